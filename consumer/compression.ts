/**
 * Compression of closed days: one file at a time, in a thread that yields to all others.
 *
 * A file goes through these steps, each durable before the next:
 *   1. the checkpoint says that it is sealed, where all that we wrote to it is covered: late lines go to a new segment from now on
 *   2. its frames are written aside, in `<root>/.tallyman/compressing/`, and synced
 *   3. the checkpoint says `packed`, with the length of each frame and the file aside
 *   4. the file aside gets its name beside the plain one, and at once, in the same turn, the plain one is unlinked
 *   5. the folder is synced, the name aside removed, and with its next entry the checkpoint forgets that there was one
 *
 * Invariants
 * - A start finds by `packed.aside` what a kill between 3 and 5 left, and finishes it before anything else runs; a pass finds so what
 *   a disk that took nothing left. What lies aside without that is discarded, and the plain file still holds all.
 * - Each line can be read at every moment. Between the two calls of step 4, some microseconds, both files have their names, so a glob such
 *   as `*.log*` that is expanded just then finds the lines twice: no call of the kernel swaps two names of different content. In the other
 *   order it would find them nowhere. A reader that has the name of the plain file and opens it only after that is told that it is gone.
 * - Something of that name that is not ours, and a file that is longer or shorter than what we wrote, are left alone.
 */
import { join } from 'node:path'
import type { Logger } from 'pino'
import { type Clock, realClock } from '../wire/clock.ts'
import type { Calendar } from './calendar.ts'
import { type Checkpoint, type FileState, type Packed, storedAt, storedBytes } from './checkpoint.ts'
import { FRAME_BYTES } from './compress.ts'
import type { Compressor } from './compressor.ts'
import { codeOf, type Disk } from './disk.ts'
import type { Manifests } from './manifests.ts'
import type { Writer } from './writer.ts'

/** Files that are sealed in one entry of the checkpoint. */
const BATCH = 64

export type CompressionOptions = {
  root: string
  /** The folder of the root's own state. */
  state: string
  disk: Disk
  checkpoint: Pick<Checkpoint, 'state' | 'append'>
  manifests: Manifests
  calendar: Calendar
  writer: Pick<Writer, 'seal'>
  as: Packed['as'] | 'none'
  /** For so long a day has to be over, and a file not written to, ms. */
  after: number
  compressor: Pick<Compressor, 'compress' | 'close'>
  /** Runs work while nothing lands. */
  meanwhile<T>(work: () => T): Promise<T>
  log: Logger
  /** ms since 1970, as files are stamped. */
  now?: () => number
  clock?: Clock
  frame?: number
}

export class Compression {
  /** What was compressed since the daemon started: files, the bytes that they had, and those that they have now. */
  readonly compressed = { files: 0, before: 0, after: 0, failed: 0 }
  #options: CompressionOptions
  #aside: string
  #next = 0
  /** Of which the checkpoint has still to forget the file aside. */
  #finished = new Map<string, FileState>()
  /** Files that were left alone; they are told once. */
  #leftAlone = new Set<string>()

  /** Finishes what a kill left. @throws Error of the file system */
  constructor(options: CompressionOptions) {
    this.#options = options
    this.#aside = join(options.state, 'compressing')
    const { disk } = options
    disk.makeFolder(this.#aside)
    this.#recoverAll()
    for (const name of disk.list(this.#aside)) disk.discard(join(this.#aside, name))
  }

  /** Compresses what is due, a file after the other. @param stop ends it, and leaves the file in hand as it is */
  async run(stop: AbortSignal): Promise<void> {
    const { compressor } = this.#options
    this.#recoverAll()
    const close = () => compressor.close()
    stop.addEventListener('abort', close)
    try {
      await this.#compressAll(this.#due(), stop)
    } finally {
      stop.removeEventListener('abort', close)
      await close()
      this.#forgetAsides()
    }
  }

  async #compressAll(due: readonly string[], stop: AbortSignal): Promise<void> {
    const { clock = realClock } = this.#options
    for (let i = 0; i < due.length && !stop.aborted; i += BATCH) {
      const sealed = await this.#seal(due.slice(i, i + BATCH).filter((file) => this.#quiet(file)))
      for (const [file, state] of sealed) {
        if (stop.aborted) break
        const began = clock.now()
        await this.#compress(file, state, stop)
        // At most half of a disk's time.
        await clock.sleep(clock.now() - began, stop).catch(() => {})
      }
    }
  }

  /** Files of closed days that are not compressed, the oldest days first. */
  #due(): string[] {
    const { as, after, calendar, manifests, checkpoint } = this.#options
    if (as === 'none') return []
    const { files, floor } = checkpoint.state
    const days = [...manifests.files.keys()].filter((day) => day >= floor && calendar.over(day, after)).sort()
    return days
      .flatMap((day) => [...manifests.files.get(day)!])
      .filter((file) => {
        const { packed, length } = files.get(file)!
        return !packed && length > 0 && !this.#leftAlone.has(file)
      })
  }

  /** Whether no late line has come for a while; more may follow one. A stamp of the future tells nothing. */
  #quiet(file: string): boolean {
    const { after, root, disk, checkpoint, now = Date.now } = this.#options
    if (checkpoint.state.files.get(file)!.sealed) return true
    const quiet = now() - (disk.look(join(root, file))?.mtimeMs ?? 0)
    return quiet < 0 || quiet >= after
  }

  /** @returns those of the files that are sealed */
  async #seal(names: string[]): Promise<[string, FileState][]> {
    const { checkpoint, writer, meanwhile } = this.#options
    return meanwhile(() => {
      const known = names.map((file): [string, FileState] => [file, checkpoint.state.files.get(file)!])
      const sealed = writer.seal(known.filter(([, state]) => !state.sealed))
      if (sealed.length > 0) checkpoint.append({ files: sealed })
      return [...known.filter(([, state]) => state.sealed), ...sealed]
    })
  }

  async #compress(file: string, state: FileState, stop: AbortSignal): Promise<void> {
    const { root, disk, checkpoint, as, compressor, log, frame = FRAME_BYTES } = this.#options
    const aside = String(this.#next++)
    const path = join(this.#aside, aside)
    try {
      const request = { source: join(root, file), length: state.length, target: path, frame, as: as as Packed['as'] }
      const frames = await compressor.compress(request)
      await disk.syncFolder(this.#aside)
      const packed: FileState = { ...state, packed: { as: request.as, frame, frames, aside } }
      if (disk.look(join(root, storedAt(file, packed)))) throw new Error(`${storedAt(file, packed)} is there already`)
      if (disk.look(request.source)?.size !== state.length) throw new Error('somebody wrote to it meanwhile')
      await this.#replace(file, packed)
      this.compressed.files++
      this.compressed.before += state.length
      this.compressed.after += storedBytes(packed)
    } catch (error) {
      const now = checkpoint.state.files.get(file)!
      if (now.packed) this.#recover(file, now)
      disk.discard(path)
      if (stop.aborted) return
      this.compressed.failed++
      // On a disk that is full it is tried again.
      if (codeOf(error) !== 'ENOSPC') this.#leftAlone.add(file)
      const { message } = error as Error
      log.warn(
        { code: 'FILE_NOT_COMPRESSED', file, error: message },
        'a file could not be compressed, and stays as it is',
      )
    }
  }

  async #replace(file: string, state: FileState): Promise<void> {
    const { root, disk, checkpoint } = this.#options
    // Freed when it is closed, which another thread does: for a large file that takes its time.
    await using _held = await disk.hold(join(root, file))
    checkpoint.append({ files: [...this.#finished, [file, state]] })
    this.#finished.clear()
    disk.link(join(this.#aside, state.packed!.aside!), join(root, storedAt(file, state)))
    disk.unlinkHeld(join(root, file))
    await disk.syncFolder(join(root, file, '..'))
    this.#finish(file, state)
  }

  #finish(file: string, state: FileState): void {
    const { aside, ...packed } = state.packed!
    this.#options.disk.discard(join(this.#aside, aside!))
    this.#finished.set(file, { ...state, packed })
  }

  #forgetAsides(): void {
    if (this.#finished.size === 0) return
    this.#options.checkpoint.append({ files: [...this.#finished] })
    this.#finished.clear()
  }

  #recoverAll(): void {
    const begun = [...this.#options.checkpoint.state.files].filter(([, { packed }]) => packed?.aside !== undefined)
    for (const [file, state] of begun) this.#recover(file, state)
  }

  /** Goes on where a kill or an error has stopped `#replace`. */
  #recover(file: string, state: FileState): void {
    const { root, disk, checkpoint, log } = this.#options
    const aside = disk.look(join(this.#aside, state.packed!.aside!))
    const target = join(root, storedAt(file, state))
    const { packed: _, ...plain } = state
    if (aside && disk.look(join(target, '..')) && !disk.look(target)) {
      try {
        disk.link(join(this.#aside, state.packed!.aside!), target)
      } catch (error) {
        if (!disk.look(join(root, file))) throw error
        // Readers go by the checkpoint: until the disk takes a name it has to send them to the plain file, which holds all.
        checkpoint.append({ files: [[file, plain]] })
        return
      }
    }
    const there = disk.look(target)
    // Without the name aside it is ours: that goes last.
    if (there && (!aside || there.ino === aside.ino)) {
      if (disk.look(join(root, file))) disk.unlinkHeld(join(root, file))
      disk.syncFolderNow(join(root, file, '..'))
      this.#finish(file, state)
      this.#forgetAsides()
      return
    }
    checkpoint.append({ files: [[file, plain]] })
    log.warn({ code: 'FILE_TAMPERED', file }, 'somebody removed or replaced a file that is just being compressed')
  }
}
