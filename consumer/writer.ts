/**
 * The writer: puts extents at their places in the files.
 *
 * Invariants
 * - A file is written at a tracked position, never appended to, truncated or renamed: writing again from a checkpoint
 *   on puts the same bytes at the same places, and whoever follows the file sees each line once.
 * - One partition writes a file. The plain name belongs to the first partition that wrote it, and that is durable before its
 *   first byte; any other partition's file carries `.p<N>`.
 * - A file that is shorter than what we wrote, that is not the one that we hold open, that was there before we were, or that is
 *   sealed, is left alone: we go on in a new segment `.<k>`. The path is looked at before a file's first line after a checkpoint, and
 *   with the next checkpoint.
 * - Everything below the root is reached without following a link.
 */
import { closeSync, constants, fdatasyncSync, fstatSync, lstatSync, mkdirSync, openSync, writevSync } from 'node:fs'
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import { syncFolder } from '../wire/durable.ts'
import { type FileState, newFile } from './checkpoint.ts'
import { ConsumerError } from './errors.ts'
import { forgetPages, syncFileSystem } from './kernel.ts'
import { pathComponent, readFileName } from './names.ts'

/** What waits to be written is copied here. */
const BUFFER_BYTES = 4 * 1024 * 1024
/** As many files and folders are made durable one by one; more of them by syncfs. */
const SYNC_ONE_BY_ONE = 16
/** writev(2) takes this many pieces. */
const IOV_MAX = 1024

/** `apart`: on another file system than the root. */
type OpenFile = { fd: number; ino: number; dirty: boolean; apart: boolean }

/** What waits to be written to one file: where the first byte goes, and the pieces in the buffer. */
type Waiting = { file: string; position: number; pieces: Uint8Array[] }

export type WriterOptions = {
  root: string
  /** Files as the checkpoint knows them, by path below the root. */
  files: ReadonlyMap<string, FileState>
  openFiles: number
  log: Logger
  /** Makes the names of new files durable, before a byte is written to any of them. */
  register(files: [string, FileState][]): void
  /** All that was taken up stands in the files. */
  flushed?(): void
}

export class Writer {
  #options: WriterOptions
  /** Those that are not sealed. */
  #files = new Map<string, FileState>()
  /** The file that a partition writes now, by `partition folder/day`. */
  #current = new Map<string, string>()
  #plainOwner = new Map<string, number>()
  #segments = new Map<string, number>()
  #open: LRUCache<string, OpenFile>
  #newFiles: [string, FileState][] = []
  #changed = new Set<string>()
  #newFolders = new Set<string>()
  /** Folders that were looked at since the last flush began. */
  #looked = new Set<string>()
  /** Files that are closed once they are synced. */
  #leaving: OpenFile[] = []
  /** Files were closed before what they hold was durable. */
  #closedDirty = false
  #root: number
  #device: number
  #buffer = Buffer.alloc(BUFFER_BYTES)
  #filled = 0
  #waiting = new Map<string, Waiting>()

  constructor(options: WriterOptions) {
    this.#options = options
    // Held open, because syncfs tells of errors since its descriptor was opened.
    this.#root = openSync(options.root, 'r')
    this.#device = fstatSync(this.#root).dev
    this.#open = new LRUCache({
      max: options.openFiles,
      // A file that leaves the cache is closed; what it holds must be durable by the next checkpoint. Syncing each at once would cost a
      // commit of the file system's journal each: a few stay open until then, and where there are more all is synced.
      dispose: (file) => {
        if (file.dirty && this.#leaving.length < SYNC_ONE_BY_ONE) this.#leaving.push(file)
        else this.#close(file)
      },
    })
    for (const [path, state] of options.files) {
      if (!state.sealed) this.#files.set(path, { ...state })
      this.#remember(path, state)
    }
  }

  /** Whether the buffer takes `bytes` more before it should be flushed. */
  fits(bytes: number): boolean {
    return this.#filled + bytes <= this.#buffer.length
  }

  /**
   * Takes up lines for the file of a module's day, for a partition. They reach the file with `flush`.
   * @param said how many lines they are, and the times of the earliest and the latest, ms since 1970
   * @returns the file, and where in it they go
   */
  write(
    service: string,
    module: string,
    day: string,
    partition: number,
    bytes: Uint8Array,
    said: { lines: number; tmin: number; tmax: number },
  ): { file: string; position: number } {
    const file = this.#fileFor(`${pathComponent(service)}/${pathComponent(module)}`, day, partition)
    const state = this.#files.get(file)!
    const position = state.length
    this.#wait(file, position, this.#keep(bytes))
    state.length += bytes.length
    state.first = state.lines === 0 ? said.tmin : Math.min(state.first, said.tmin)
    state.last = Math.max(state.last, said.tmax)
    state.lines += said.lines
    return { file, position }
  }

  /**
   * Closes files for good, where what we wrote to them is what the checkpoint says: what comes late goes to new segments.
   * @param known as the checkpoint knows them
   * @returns those that are closed now
   */
  seal(known: readonly [string, FileState][]): [string, FileState][] {
    return known.flatMap(([file, state]) => {
      const ours = this.#files.get(file)
      if (ours?.length !== state.length || this.#waiting.has(file) || this.#changed.has(file)) return []
      this.#drop(file)
      return [[file, { ...ours, sealed: true }]]
    })
  }

  /** Lets go of files whose day is removed: nothing is written for it any more. */
  forget(files: Iterable<string>): void {
    for (const file of files) {
      this.#drop(file)
      const { plain, stem } = stemOf(file)!
      this.#plainOwner.delete(plain)
      this.#segments.delete(stem)
    }
  }

  /** Ends the writing of a file. Its name stays taken. */
  #drop(file: string): void {
    const partition = this.#files.get(file)?.partition
    this.#files.delete(file)
    this.#open.delete(file)
    this.#changed.delete(file)
    const key = `${partition} ${stemOf(file)!.plain}`
    if (this.#current.get(key) === file) this.#current.delete(key)
  }

  /** A copy that lives until the flush; what is larger than the buffer has one of its own. */
  #keep(bytes: Uint8Array): Uint8Array {
    if (!this.fits(bytes.length)) return bytes.slice()
    this.#buffer.set(bytes, this.#filled)
    this.#filled += bytes.length
    return this.#buffer.subarray(this.#filled - bytes.length, this.#filled)
  }

  #wait(file: string, position: number, piece: Uint8Array): void {
    const waiting = this.#waiting.get(file)
    if (waiting) waiting.pieces.push(piece)
    else this.#waiting.set(file, { file, position, pieces: [piece] })
  }

  /**
   * Writes what waits. Called again after it threw, it writes the same bytes to the same places: nothing is forgotten.
   * @throws Error of the file system
   */
  flush(): void {
    if (this.#newFiles.length > 0) {
      // With no length yet: what is in the state stands already for what is only about to be written.
      this.#options.register(this.#newFiles.map(([path, { partition }]) => [path, newFile(partition)]))
      this.#newFiles = []
    }
    this.#looked.clear()
    for (const waiting of this.#waiting.values()) {
      this.#writeOut(waiting)
      this.#changed.add(waiting.file)
      this.#waiting.delete(waiting.file)
    }
    this.#filled = 0
    this.#options.flushed?.()
  }

  /** How long each file is, with what waits to be written. */
  get lengths(): Map<string, number> {
    // Those that are sealed are what the checkpoint says.
    const all = [...this.#options.files, ...this.#files]
    return new Map(all.map(([file, { length }]) => [file, length]))
  }

  /**
   * Makes everything durable that was flushed. Where that fails it is not to be called again: what was flushed is gone.
   * @returns the files that have changed since the last call
   */
  sync(): [string, FileState][] {
    const written = Array.from(this.#open.entries()).filter(([, file]) => file.dirty)
    const dirty = [...this.#leaving, ...written.map(([, file]) => file)]
    const many = this.#closedDirty || dirty.length + this.#newFolders.size > SYNC_ONE_BY_ONE
    try {
      if (many) syncFileSystem(this.#root)
      for (const file of dirty) if (!many || file.apart) fdatasyncSync(file.fd)
      if (!many) for (const folder of this.#newFolders) syncFolder(folder)
    } catch (error) {
      for (const file of dirty) forgetPages(file.fd)
      throw error
    }
    for (const file of dirty) file.dirty = false
    for (const [path] of written) if (!this.#intact(path)) this.#leave(path)
    for (const file of this.#leaving.splice(0)) closeSync(file.fd)
    this.#newFolders.clear()
    this.#closedDirty = false
    const changed = Array.from(this.#changed, (path): [string, FileState] => [path, { ...this.#files.get(path)! }])
    this.#changed.clear()
    return changed
  }

  /** Ends the writing of a file that is not as we wrote it. Sealed, for after a restart nothing tells that it was replaced. */
  #leave(file: string): void {
    const state = this.#files.get(file)!
    state.sealed = true
    this.#changed.add(file)
    this.#open.delete(file)
    const key = `${state.partition} ${stemOf(file)!.plain}`
    if (this.#current.get(key) === file) this.#current.delete(key)
  }

  close(): void {
    this.#open.clear()
    for (const file of this.#leaving.splice(0)) this.#close(file)
    closeSync(this.#root)
  }

  #close({ fd, dirty, apart }: OpenFile): void {
    if (dirty && apart) fdatasyncSync(fd)
    else this.#closedDirty ||= dirty
    closeSync(fd)
  }

  #writeOut({ file, position, pieces }: Waiting): void {
    const open = this.#opened(file)
    let at = position
    let rest = pieces
    while (rest.length > 0) {
      const written = writevSync(open.fd, rest.slice(0, IOV_MAX), at)
      open.dirty = true
      at += written
      rest = behind(rest, written)
    }
  }

  /** The file of a partition for a day, by its path below the root; chosen when it is first asked for. */
  #fileFor(folder: string, day: string, partition: number): string {
    const key = `${partition} ${folder}/${day}`
    const current = this.#current.get(key)
    if (current !== undefined) {
      if (this.#open.peek(current)?.dirty || this.#intact(current)) return current
      this.#leave(current)
    }
    return this.#newFile(folder, day, partition)
  }

  /** Whether a file is the one that we wrote, and holds at least that. */
  #intact(file: string): boolean {
    if (this.#waiting.has(file)) return true
    const { length } = this.#files.get(file)!
    const stat = lstatSync(join(this.#options.root, file), { throwIfNoEntry: false })
    const ino = this.#open.peek(file)?.ino ?? stat?.ino
    if (stat ? stat.isFile() && stat.size >= length && stat.ino === ino : length === 0) return true
    this.#options.log.error(
      { code: 'FILE_TAMPERED', file, written: length, found: stat?.size ?? 'nothing' },
      'a file is not the one that was written, or shorter: somebody truncated, replaced or removed it. What is missing of its lines is gone; new ones go to a new segment',
    )
    return false
  }

  #newFile(folder: string, day: string, partition: number): string {
    const plain = `${folder}/${day}`
    const owner = this.#plainOwner.get(plain) ?? partition
    const stem = owner === partition ? plain : `${plain}.p${partition}`
    let segment = this.#segments.get(stem)
    segment = segment === undefined ? 0 : segment + 1
    let file: string
    do {
      file = `${stem}${segment === 0 ? '' : `.${segment}`}.log`
      segment++
      // A name that is taken by something that we know nothing of is not ours to write to, and neither is one whose compressed
      // file would be in the way later.
    } while (['', '.zst', '.gz'].some((ending) => this.#taken(`${file}${ending}`)))
    const state = newFile(partition)
    this.#files.set(file, state)
    this.#remember(file, state)
    this.#newFiles.push([file, state])
    return file
  }

  #taken(file: string): boolean {
    return lstatSync(join(this.#options.root, file), { throwIfNoEntry: false }) !== undefined
  }

  /** Enters a file into what the next choice of a name goes by. */
  #remember(file: string, { partition, sealed }: FileState): void {
    const name = stemOf(file)
    if (!name) return
    const { plain, stem, segment } = name
    if (stem === plain) this.#plainOwner.set(plain, partition)
    if (segment < (this.#segments.get(stem) ?? 0)) return
    this.#segments.set(stem, segment)
    if (sealed) this.#current.delete(`${partition} ${plain}`)
    else this.#current.set(`${partition} ${plain}`, file)
  }

  #opened(file: string): OpenFile {
    const known = this.#open.get(file)
    if (known) return known
    const [service, module] = file.split('/')
    const folder = this.#folder(service!, module!)
    const path = join(this.#options.root, file)
    const flags = constants.O_WRONLY | constants.O_NOFOLLOW
    let fd: number
    try {
      fd = openSync(path, flags)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      fd = openSync(path, flags | constants.O_CREAT, 0o644)
      this.#newFolders.add(folder)
    }
    const stat = fstatSync(fd)
    if (!stat.isFile()) {
      closeSync(fd)
      throw new ConsumerError('ROOT_REFUSED', `${path} is no file; move it away`)
    }
    const open: OpenFile = { fd, ino: stat.ino, dirty: false, apart: stat.dev !== this.#device }
    this.#open.set(file, open)
    return open
  }

  #folder(...components: string[]): string {
    let path = this.#options.root
    for (const component of components) {
      const parent = path
      path = join(path, component)
      if (this.#looked.has(path)) continue
      this.#looked.add(path)
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (stat?.isDirectory()) continue
      if (stat) throw new ConsumerError('ROOT_REFUSED', `${path} is no folder; move it away`)
      mkdirSync(path)
      this.#newFolders.add(parent)
    }
    return path
  }
}

/** What the names of a file's partition have in common, and those of its day. */
function stemOf(file: string): { plain: string; stem: string; segment: number } | undefined {
  const name = readFileName(file)
  if (!name) return undefined
  const plain = `${name.service}/${name.module}/${name.day}`
  return { plain, stem: name.other === undefined ? plain : `${plain}.p${name.other}`, segment: name.segment }
}

/** What is left of `pieces` behind their first `written` bytes. */
function behind(pieces: Uint8Array[], written: number): Uint8Array[] {
  let left = written
  let i = 0
  while (i < pieces.length && left >= pieces[i]!.length) left -= pieces[i++]!.length
  return left === 0 ? pieces.slice(i) : [pieces[i]!.subarray(left), ...pieces.slice(i + 1)]
}
