/**
 * The writer: puts extents at their places in the files.
 *
 * Invariants
 * - A file is written at a tracked position, never appended to, truncated or renamed: writing again from a checkpoint
 *   on puts the same bytes at the same places, and whoever follows the file sees each line once.
 * - One partition writes a file. The plain name belongs to the first partition that wrote it, and that is durable before its
 *   first byte; any other partition's file carries `.p<N>`.
 * - A file that is shorter than what we wrote, that is not the one that we wrote to, that was there before we were, or that is
 *   sealed, is left alone: we go on in a new segment `.<k>`. It is looked at just before each flush writes to it, and its path with
 *   each checkpoint. Where bytes go is chosen only then, because a busy file is truncated between the taking up of a line and its writing
 *   more often than not: at its old place it would stand behind a hole, in a removed file nowhere.
 * - After a sync that failed nothing is taken for durable any more. The kernel tells of each error once and has pages that it could not
 *   write for clean: the next sync succeeds, and the bytes are gone with the power.
 * - Everything below the root is reached without following a link.
 */
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  type Stats,
  writevSync,
} from 'node:fs'
import { join } from 'node:path'
import { LRUCache } from 'lru-cache'
import type { Logger } from 'pino'
import { syncFolder } from '../wire/durable.ts'
import { type FileState, newFile } from './checkpoint.ts'
import { ConsumerError } from './errors.ts'
import { forgetPages, syncFileSystem } from './kernel.ts'
import { readFileName } from './names.ts'

/** What waits to be written is copied here. */
const BUFFER_BYTES = 4 * 1024 * 1024
/** A record that alternates between days or sources has a stretch a line: so many wait at a time. */
const MAX_STRETCHES = 16 * 1024
/** As many files and folders are made durable one by one; more of them by syncfs. */
const SYNC_ONE_BY_ONE = 16
/** writev(2) takes this many pieces. */
const IOV_MAX = 1024

/** `apart`: on another file system than the root. */
type OpenFile = { fd: number; ino: number; dirty: boolean; apart: boolean }

/** A stretch of lines: how many, and the times of the earliest and the latest, ms since 1970. */
type Said = { lines: number; tmin: number; tmax: number }

/** Where lines have gone: the file by its path below the root, and where in it they begin. */
export type Place = { file: string; position: number }

/** What waits to be written for a day of a module, from one partition: pieces in the buffer, and who is told where each has gone. */
type Waiting = {
  folder: string
  day: string
  partition: number
  pieces: Uint8Array[]
  said: Said[]
  placed: ((place: Place, bytes: Uint8Array) => void)[]
}

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
  /** Folders on the way to files of which the checkpoint does not say that they hold anything. */
  #newFolders = new Set<string>()
  /** Folders that were looked at since the last flush began. */
  #looked = new Set<string>()
  /** Files that are closed once they are synced. */
  #leaving: OpenFile[] = []
  /** Files were closed before what they hold was durable. */
  #closedDirty = false
  /** Why nothing that was written since the last checkpoint can be taken for durable. */
  #unsure: Error | undefined
  #root: number
  #device: number
  #buffer = Buffer.alloc(BUFFER_BYTES)
  #filled = 0
  /** How many `write`s wait. */
  #stretches = 0
  /** By `partition folder/day`. */
  #waiting = new Map<string, Waiting>()
  /** Bytes that were written since all was made durable last. */
  unsynced = 0
  /** Files that were left since the daemon started, because they were not as we wrote them. */
  tampered = 0

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
    return this.#stretches < MAX_STRETCHES && this.#filled + bytes <= this.#buffer.length
  }

  /**
   * Takes up lines for the file of a module's day, from a partition. They reach the file with `flush`.
   * @param folder the module's, below the root
   * @param said of all of them
   * @param placed is told where they stand, once they do, with their bytes, valid until it returns
   */
  write(
    folder: string,
    day: string,
    partition: number,
    bytes: Uint8Array,
    said: Said,
    placed: (place: Place, bytes: Uint8Array) => void,
  ): void {
    const key = `${partition} ${folder}/${day}`
    let waiting = this.#waiting.get(key)
    if (!waiting) {
      waiting = { folder, day, partition, pieces: [], said: [], placed: [] }
      this.#waiting.set(key, waiting)
      // Named here, so that one entry of the checkpoint names all that are new.
      if (!this.#current.has(key)) this.#newFile(waiting)
    }
    this.#stretches++
    waiting.pieces.push(this.#keep(bytes))
    waiting.said.push(said)
    waiting.placed.push(placed)
  }

  /**
   * Closes files for good, where what we wrote to them is what the checkpoint says: what comes late goes to new segments.
   * @param known as the checkpoint knows them
   * @returns those that are closed now
   */
  seal(known: readonly [string, FileState][]): [string, FileState][] {
    return known.flatMap(([file, state]) => {
      const ours = this.#files.get(file)
      if (ours?.length !== state.length || this.#waiting.has(keyOf(file, ours)) || this.#changed.has(file)) return []
      this.#drop(file)
      return [[file, sealed(ours)]]
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
    const state = this.#files.get(file)
    this.#files.delete(file)
    this.#changed.delete(file)
    if (state) this.#turnFrom(file, state)
  }

  /** What comes next goes to another file. */
  #turnFrom(file: string, state: FileState): void {
    this.#open.delete(file)
    const key = keyOf(file, state)
    if (this.#current.get(key) === file) this.#current.delete(key)
  }

  /** A copy that lives until the flush; what is larger than the buffer has one of its own. */
  #keep(bytes: Uint8Array): Uint8Array {
    if (this.#filled + bytes.length > this.#buffer.length) return bytes.slice()
    this.#buffer.set(bytes, this.#filled)
    this.#filled += bytes.length
    return this.#buffer.subarray(this.#filled - bytes.length, this.#filled)
  }

  /**
   * Writes what waits. Called again after it threw, it writes the same bytes to the same places: nothing is forgotten.
   * @throws Error of the file system
   */
  flush(): void {
    this.#register()
    this.#looked.clear()
    for (const [key, waiting] of this.#waiting) {
      const file = this.#fileFor(key, waiting)
      const state = this.#files.get(file)!
      this.#writeOut(file, state, waiting.pieces)
      this.#changed.add(file)
      this.#waiting.delete(key)
      this.#tellPlaces(file, state, waiting)
    }
    this.#filled = 0
    this.#stretches = 0
    this.#options.flushed?.()
  }

  #tellPlaces(file: string, state: FileState, { pieces, said, placed }: Waiting): void {
    for (let i = 0; i < pieces.length; i++) {
      const { lines, tmin, tmax } = said[i]!
      const position = state.length
      state.length += pieces[i]!.length
      state.first = state.lines === 0 ? tmin : Math.min(state.first, tmin)
      state.last = Math.max(state.last, tmax)
      state.lines += lines
      placed[i]!({ file, position }, pieces[i]!)
    }
  }

  #register(): void {
    if (this.#newFiles.length === 0) return
    this.#options.register(this.#newFiles)
    this.#newFiles = []
  }

  /** How long each file is, with all that was flushed. */
  get lengths(): Map<string, number> {
    // Those that are sealed are what the checkpoint says.
    const all = [...this.#options.files, ...this.#files]
    return new Map(all.map(([file, { length }]) => [file, length]))
  }

  /**
   * Makes everything durable that was flushed. Where that fails it is not to be called again: what was flushed is gone.
   * @returns the files that have changed since the last call
   * @throws Error of the file system, and the same again where it is called nevertheless
   */
  sync(): [string, FileState][] {
    if (this.#unsure) throw this.#unsure
    try {
      this.#makeDurable()
    } catch (error) {
      this.#unsure = error as Error
      this.#forgetPages()
      throw error
    }
    for (const file of this.#leaving.splice(0)) closeSync(file.fd)
    for (const file of this.#changed) {
      if (this.#files.get(file)!.sealed) continue
      const stat = this.#look(file)
      if (!stat) this.#leave(file)
      else if (stat !== 'not made yet') this.#files.get(file)!.seen = seenOf(stat)
    }
    const changed = Array.from(this.#changed, (path): [string, FileState] => [path, { ...this.#files.get(path)! }])
    this.#changed.clear()
    return changed
  }

  #makeDurable(): void {
    const dirty = [...this.#leaving, ...this.#open.values().filter((file) => file.dirty)]
    const many = this.#closedDirty || dirty.length + this.#newFolders.size > SYNC_ONE_BY_ONE
    if (many) syncFileSystem(this.#root)
    for (const file of dirty) if (!many || file.apart) fdatasyncSync(file.fd)
    if (!many) for (const folder of this.#newFolders) syncFolder(folder)
    for (const file of dirty) file.dirty = false
    this.unsynced = 0
    this.#newFolders.clear()
    this.#closedDirty = false
  }

  /** Lets go of what the kernel holds of what was written, also to files that were closed meanwhile. */
  #forgetPages(): void {
    for (const { fd } of this.#leaving) forgetPages(fd)
    for (const file of this.#changed) {
      const open = this.#open.peek(file)
      if (open) forgetPages(open.fd)
      else if (this.#look(file)) {
        const fd = openSync(join(this.#options.root, file), constants.O_RDONLY | constants.O_NOFOLLOW)
        forgetPages(fd)
        closeSync(fd)
      }
    }
  }

  /** Ends the writing of a file that is not as we wrote it. */
  #leave(file: string): void {
    const state = sealed(this.#files.get(file)!)
    this.#files.set(file, state)
    this.#changed.add(file)
    this.#turnFrom(file, state)
    this.tampered++
  }

  close(): void {
    this.#open.clear()
    for (const file of this.#leaving.splice(0)) this.#close(file)
    closeSync(this.#root)
  }

  #close({ fd, dirty, apart }: OpenFile): void {
    try {
      if (dirty && apart) fdatasyncSync(fd)
      else this.#closedDirty ||= dirty
    } catch (error) {
      this.#unsure = error as Error
    }
    closeSync(fd)
  }

  #writeOut(file: string, state: FileState, pieces: Uint8Array[]): void {
    const open = this.#opened(file, state)
    let at = state.length
    let rest = pieces
    while (rest.length > 0) {
      const written = writevSync(open.fd, rest.slice(0, IOV_MAX), at)
      open.dirty = true
      at += written
      this.unsynced += written
      rest = behind(rest, written)
    }
  }

  /** The file that takes what waits: the current one, as long as it is as we wrote it. */
  #fileFor(key: string, waiting: Waiting): string {
    const current = this.#current.get(key)
    if (current !== undefined) {
      const open = this.#open.peek(current)
      if (open ? this.#holds(current, open) : this.#look(current)) return current
      this.#leave(current)
    }
    const file = this.#newFile(waiting)
    this.#register()
    return file
  }

  /** @returns what stands at a file's path, or undefined where that is not the file that we wrote, or holds less */
  #look(file: string): Stats | 'not made yet' | undefined {
    const state = this.#files.get(file)!
    const open = this.#open.peek(file)
    const stat = lstatSync(`${this.#options.root}/${file}`, { throwIfNoEntry: false })
    if (!stat && state.length === 0 && !open) return 'not made yet'
    // While it is held open nothing else can have its number.
    const same = stat?.isFile() && stat.size >= state.length && (open ? stat.ino === open.ino : isSeen(state, stat))
    if (same) return stat
    this.#tellTampered(file, stat)
    return undefined
  }

  /**
   * Whether an open file has a name still, and holds what we wrote. A third of what it costs to look at its path: one that was moved
   * away shows there, with the next checkpoint, and what it was given until then stands in it.
   */
  #holds(file: string, { fd }: OpenFile): boolean {
    const stat = fstatSync(fd)
    if (stat.nlink > 0 && stat.size >= this.#files.get(file)!.length) return true
    this.#tellTampered(file, stat.nlink > 0 ? stat : undefined)
    return false
  }

  #tellTampered(file: string, found: Stats | undefined): void {
    this.#options.log.error(
      { code: 'FILE_TAMPERED', file, written: this.#files.get(file)!.length, found: found?.size ?? 'nothing' },
      'a file is not the one that was written, or shorter: somebody truncated, replaced or removed it. What is missing of its lines is gone; new ones go to a new segment',
    )
  }

  #newFile({ folder, day, partition }: Pick<Waiting, 'folder' | 'day' | 'partition'>): string {
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
    this.#newFiles.push([file, newFile(partition)])
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

  #opened(file: string, state: FileState): OpenFile {
    const known = this.#open.get(file)
    if (known) return known
    const [service, module] = file.split('/')
    this.#makeFolders(service!, module!)
    // Their names also where they are there: whoever made them may have been killed before they were durable, and the power goes later.
    if (!this.#options.files.get(file)?.length) {
      const { root } = this.#options
      for (const folder of [`${root}/${service}/${module}`, `${root}/${service}`, root]) this.#newFolders.add(folder)
    }
    const path = join(this.#options.root, file)
    const flags = constants.O_WRONLY | constants.O_NOFOLLOW
    let fd: number
    try {
      fd = openSync(path, flags)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      fd = openSync(path, flags | constants.O_CREAT, 0o644)
    }
    const stat = fstatSync(fd)
    if (!stat.isFile()) {
      closeSync(fd)
      throw new ConsumerError('ROOT_REFUSED', `${path} is no file; move it away`)
    }
    state.seen ??= seenOf(stat)
    const open: OpenFile = { fd, ino: stat.ino, dirty: false, apart: stat.dev !== this.#device }
    this.#open.set(file, open)
    return open
  }

  #makeFolders(...components: string[]): void {
    let path = this.#options.root
    for (const component of components) {
      path = join(path, component)
      if (this.#looked.has(path)) continue
      this.#looked.add(path)
      const stat = lstatSync(path, { throwIfNoEntry: false })
      if (stat?.isDirectory()) continue
      if (stat) throw new ConsumerError('ROOT_REFUSED', `${path} is no folder; move it away`)
      mkdirSync(path)
    }
  }
}

/** What the names of a file's partition have in common, and those of its day. */
function stemOf(file: string): { plain: string; stem: string; segment: number } | undefined {
  const name = readFileName(file)
  if (!name) return undefined
  const plain = `${name.service}/${name.module}/${name.day}`
  return { plain, stem: name.other === undefined ? plain : `${plain}.p${name.other}`, segment: name.segment }
}

/** By what the file that a partition writes now is found. */
const keyOf = (file: string, { partition }: FileState): string => `${partition} ${stemOf(file)!.plain}`

/** A file's state once it is closed for good: then nobody asks any more whether it is the same. */
function sealed({ seen: _, ...state }: FileState): FileState {
  return { ...state, sealed: true }
}

const seenOf = ({ ino, birthtimeMs, mtimeMs }: Stats): NonNullable<FileState['seen']> => [ino, birthtimeMs, mtimeMs]

/**
 * Whether what stands in a file's place is that file, and not one that replaced it while it was closed: the same inode, whose number
 * may have been given anew, so with the same birth; or one that nobody wrote to since, as a copy of the whole root is on another disk.
 */
function isSeen({ seen, length }: FileState, stat: Stats): boolean {
  if (!seen) return true
  const [ino, birth, mtime] = seen
  return (stat.ino === ino && stat.birthtimeMs === birth) || (stat.mtimeMs === mtime && stat.size === length)
}

/** What is left of `pieces` behind their first `written` bytes. */
function behind(pieces: Uint8Array[], written: number): Uint8Array[] {
  let left = written
  let i = 0
  while (i < pieces.length && left >= pieces[i]!.length) left -= pieces[i++]!.length
  return left === 0 ? pieces.slice(i) : [pieces[i]!.subarray(left), ...pieces.slice(i + 1)]
}
