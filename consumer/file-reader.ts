/**
 * Reading stretches of files' text, whether a file is compressed or not.
 *
 * Invariants
 * - A position is one of the text, and stays what it is when the file is compressed.
 * - Of a compressed file only the frames are inflated that hold what is asked for; the last ones are kept, up to `cacheBytes`.
 * - No link is followed: what is read lies below the root.
 * - A file may be compressed, or removed, between a look at the checkpoint and the opening: then the checkpoint is asked again.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gunzip, zstdDecompress } from 'node:zlib'
import { LRUCache } from 'lru-cache'
import { type FileState, type Packed, storedAt } from './checkpoint.ts'

export type FileReaderOptions = {
  root: string
  /** Files by the path of their text below the root, as the checkpoint says. */
  files: ReadonlyMap<string, FileState>
  /** Files that are held open at most. */
  openFiles?: number
  /** Inflated text that is kept at most. */
  cacheBytes?: number
}

/** A file that was compressed or removed takes up the disk for as long as it is held open. */
const OPEN_MS = 10_000

const inflate: Record<Packed['as'], (bytes: Uint8Array) => Promise<Buffer>> = {
  zst: promisify(zstdDecompress),
  gz: promisify(gunzip),
}

export class FileReader implements Disposable {
  #root: string
  #realRoot: string | undefined
  #files: ReadonlyMap<string, FileState>
  #open: LRUCache<string, FileHandle>
  #frames: LRUCache<string, Buffer>

  constructor({ root, files, openFiles = 64, cacheBytes = 32 * 1024 * 1024 }: FileReaderOptions) {
    this.#root = root
    this.#files = files
    this.#open = new LRUCache({
      max: openFiles,
      ttl: OPEN_MS,
      ttlAutopurge: true,
      // It waits for the reads that are under way.
      dispose: (handle) => void handle.close(),
    })
    this.#frames = new LRUCache({ maxSize: cacheBytes, sizeCalculation: ({ length }) => Math.max(1, length) })
  }

  /**
   * The text from a position on.
   * @param file path of its text below the root: that of the plain file, also where it is compressed
   * @returns `bytes` bytes, fewer where the file ends before that; for looking at, not for changing
   * @throws Error of the file system, ENOENT for a file that is not there
   */
  async readRange(file: string, position: number, bytes: number): Promise<Buffer> {
    const state = this.#files.get(file)
    try {
      return await this.#read(file, state, position, bytes)
    } catch (error) {
      const now = this.#files.get(file)
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || now?.packed === state?.packed) throw error
      return this.#read(file, now, position, bytes)
    }
  }

  [Symbol.dispose](): void {
    this.#open.clear()
    this.#frames.clear()
  }

  async #read(file: string, state: FileState | undefined, position: number, bytes: number): Promise<Buffer> {
    if (!state?.packed) return this.#readStored(file, position, bytes)
    const { packed } = state
    const stored = storedAt(file, state)
    const first = Math.floor(position / packed.frame)
    const last = Math.min(Math.floor((position + Math.max(bytes, 1) - 1) / packed.frame), packed.frames.length - 1)
    const pieces: Buffer[] = []
    for (let i = first; i <= last; i++) {
      const text = await this.#frame(stored, packed, i)
      const from = i * packed.frame
      pieces.push(text.subarray(Math.max(position - from, 0), Math.max(position + bytes - from, 0)))
    }
    return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces)
  }

  async #frame(stored: string, { as, frames }: Packed, index: number): Promise<Buffer> {
    const key = `${stored} ${index}`
    const known = this.#frames.get(key)
    if (known) return known
    const at = frames.slice(0, index).reduce((sum, bytes) => sum + bytes, 0)
    const text = await inflate[as](await this.#readStored(stored, at, frames[index]!))
    this.#frames.set(key, text)
    return text
  }

  /** Bytes as they stand in the file. */
  async #readStored(stored: string, position: number, bytes: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(bytes)
    let filled = 0
    while (filled < bytes) {
      const handle = this.#open.get(stored) ?? (await this.#opened(stored))
      const { bytesRead } = await handle.read(buffer, filled, bytes - filled, position + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return buffer.subarray(0, filled)
  }

  async #opened(stored: string): Promise<FileHandle> {
    this.#realRoot ??= await realpath(this.#root)
    const path = join(this.#realRoot, stored)
    if ((await realpath(path)) !== path) throw new Error(`${stored} is reached by a link, which is not followed`)
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    // Another reader may have opened it meanwhile; that one is closed, once it is done, when ours takes its place.
    this.#open.set(stored, handle)
    return handle
  }
}
