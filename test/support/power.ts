/**
 * A loss of power, made up from what was synced: what a file held at its last sync stays, and of what was written since some is there and
 * some is not. What became of the names in a folder since its last sync is there up to some step, as with a file system that keeps a journal,
 * and no folder waits for another.
 *
 * Power goes before any call that changes or syncs something below a `Host`'s root. From then on each such call throws, until it is back.
 *
 * Invariant: nothing that had a name is freed, so that it can come back, and an inode number names one file.
 */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { basename, dirname, join } from 'node:path'

/** A disk takes a write in pieces of this size, and drops them one by one. Smaller than a real one's, so that lines are torn. */
const SECTOR_BYTES = 16
const FOLDER = 'folder'

/** Thrown by a call that was made without power. */
export class PowerCut extends Error {}

/** What a name stands for: an inode's number, or a folder; undefined: nothing. */
type Named = number | typeof FOLDER | undefined

/** Names of a folder as of its last sync, and what was done to them since, step by step. */
type Names = { synced: Map<string, Named>; steps: [name: string, of: Named][][] }

const real = { ...fs }
const hosts: Host[] = []

export class Host {
  readonly root: string
  /** Holds whatever had a name, by its inode's number. */
  #kept: string
  #contents = new Map<number, Buffer>()
  #folders = new Map<string, Names>()
  #left = Number.POSITIVE_INFINITY

  /** How often the power went. */
  cuts = 0

  /** @param folder gets the root, and beside it what is needed to bring it back */
  constructor(folder: string) {
    real.mkdirSync(folder, { recursive: true })
    this.root = join(folder, 'root')
    this.#kept = join(folder, 'kept')
    real.mkdirSync(this.root)
    real.mkdirSync(this.#kept)
    this.#folders.set(this.root, { synced: new Map(), steps: [] })
    hosts.push(this)
  }

  [Symbol.dispose](): void {
    hosts.splice(hosts.indexOf(this), 1)
  }

  get isDark(): boolean {
    return this.#left < 0
  }

  /** So many calls are made before the power goes. */
  cutIn(calls: number): void {
    this.#left = calls
  }

  /**
   * Leaves of the root what a loss of power does, with which it is back. What is open there still has to be let alone from then on.
   * @param draw a number from 0 up to 1
   */
  lose(draw: () => number): void {
    this.cuts++
    this.#left = Number.POSITIVE_INFINITY
    const files = new Map<string, number>()
    const folders = [this.root]
    for (const folder of folders) {
      for (const [name, of] of this.#drawn(folder, draw)) {
        if (of === FOLDER) folders.push(join(folder, name))
        else if (of !== undefined) files.set(join(folder, name), of)
      }
    }
    for (const entry of real.readdirSync(this.root, { recursive: true, withFileTypes: true }).reverse()) {
      const path = join(entry.parentPath, entry.name)
      if (entry.isDirectory()) {
        if (!folders.includes(path)) real.rmSync(path, { recursive: true })
      } else if (!files.has(path) || real.statSync(path).ino !== files.get(path)) real.unlinkSync(path)
    }
    for (const folder of folders) real.mkdirSync(folder, { recursive: true })
    for (const [path, inode] of files) if (!real.existsSync(path)) real.linkSync(join(this.#kept, String(inode)), path)
    this.#folders.clear()
    for (const inode of new Set(files.values())) this.#tear(inode, draw)
    for (const folder of folders) this.#syncNames(folder)
  }

  #drawn(folder: string, draw: () => number): Map<string, Named> {
    const { synced, steps } = this.#folders.get(folder) ?? { synced: new Map<string, Named>(), steps: [] }
    const some = draw() < 0.5 ? steps.length : Math.floor(draw() * (steps.length + 1))
    return new Map([...synced, ...steps.slice(0, some).flat()])
  }

  #tear(inode: number, draw: () => number): void {
    const path = join(this.#kept, String(inode))
    const now = real.readFileSync(path)
    const before = this.#contents.get(inode) ?? Buffer.alloc(0)
    if (before.equals(now)) return
    // A file may have its new length before its new bytes: what is between is zeros.
    const after = Buffer.alloc(Math.max(before.length, draw() < 0.5 ? now.length : Math.floor(draw() * now.length)))
    before.copy(after)
    for (let at = 0; at < after.length; at += SECTOR_BYTES) {
      if (draw() < 0.5) now.subarray(at, at + SECTOR_BYTES).copy(after, at)
    }
    // In place: it stays the same file.
    real.writeFileSync(path, after)
    this.#contents.set(inode, after)
  }

  /** A call that changes or syncs something is about to be made. */
  call(): void {
    this.#left--
    if (this.isDark) throw new PowerCut('there is no power')
  }

  /** Something was named, or a name taken away, in one step. */
  renamed(...paths: string[]): void {
    for (const folder of new Set(paths.map(dirname))) {
      const changes = paths
        .filter((path) => dirname(path) === folder)
        .map((path): [string, Named] => [basename(path), this.#named(path)])
      this.#folders.get(folder)?.steps.push(changes)
    }
    for (const path of paths)
      if (this.#named(path) === FOLDER && !this.#folders.has(path))
        this.#folders.set(path, { synced: new Map(), steps: [] })
  }

  #named(path: string): Named {
    const stat = real.lstatSync(path, { throwIfNoEntry: false })
    if (!stat) return undefined
    if (stat.isDirectory()) return FOLDER
    const kept = join(this.#kept, String(stat.ino))
    if (!real.existsSync(kept)) real.linkSync(path, kept)
    return stat.ino
  }

  synced(fd: number): void {
    const stat = real.fstatSync(fd)
    const path = real.readlinkSync(`/proc/self/fd/${fd}`)
    if (stat.isDirectory()) this.#syncNames(path)
    else this.#contents.set(stat.ino, real.readFileSync(`/proc/self/fd/${fd}`))
  }

  /** All that stands below the root is durable. */
  syncedAll(): void {
    const folders = [this.root]
    for (const folder of folders) {
      for (const [name, of] of this.#syncNames(folder)) {
        if (of === FOLDER) folders.push(join(folder, name))
        else if (of !== undefined) this.#contents.set(of, real.readFileSync(join(folder, name)))
      }
    }
  }

  #syncNames(folder: string): Map<string, Named> {
    const synced = new Map(real.readdirSync(folder).map((name) => [name, this.#named(join(folder, name))]))
    this.#folders.set(folder, { synced, steps: [] })
    return synced
  }
}

function writing<T>(fd: number, work: () => T): T {
  hostOf(fd)?.call()
  return work()
}

function hostOf(at: string | number): Host | undefined {
  if (hosts.length === 0) return undefined
  const path = typeof at === 'number' ? real.readlinkSync(`/proc/self/fd/${at}`) : at
  return hosts.find(({ root }) => path === root || path.startsWith(`${root}/`))
}

/** Names that are there after `work` and were not before, or the other way round, are told to their host. */
function naming<T>(paths: string[], work: () => T): T {
  const host = hostOf(paths.at(-1)!)
  if (!host) return work()
  const isThere = (path: string): boolean => real.existsSync(path)
  const before = paths.map(isThere)
  host.call()
  const result = work()
  // A name that is given anew takes one from what had it before.
  const changed = paths.filter((path, i) => i === 1 || isThere(path) !== before[i])
  if (changed.length > 0) host.renamed(...changed)
  return result
}

/** A file is made durable, as far as its host's model of it goes: without the disk's own time. */
function syncing(fd: number, sync: (fd: number) => void): void {
  const host = hostOf(fd)
  host?.call()
  if (host) host.synced(fd)
  else sync(fd)
}

const creates = (flags: fs.OpenMode = 'r'): boolean =>
  typeof flags === 'number' ? (flags & fs.constants.O_CREAT) !== 0 : !flags.startsWith('r')

/** Each folder on the way to a path that is not there yet, the outermost first. */
const missing = (path: string): string[] => (real.existsSync(path) ? [] : [...missing(dirname(path)), path])

/** Everything of node:fs that the consumer changes files with. */
Object.assign(fs, {
  openSync: (path: string, flags?: fs.OpenMode, mode?: fs.Mode) =>
    creates(flags) ? naming([path], () => real.openSync(path, flags!, mode)) : real.openSync(path, flags ?? 'r', mode),
  mkdirSync: (path: string, options?: fs.MakeDirectoryOptions) => {
    const made = options?.recursive ? missing(path) : [path]
    for (const each of made) naming([each], () => real.mkdirSync(each, { mode: options?.mode ?? 0o777 }))
    return made[0]
  },
  linkSync: (from: string, to: string) => naming([to], () => real.linkSync(from, to)),
  unlinkSync: (path: string) => naming([path], () => real.unlinkSync(path)),
  rmdirSync: (path: string) => naming([path], () => real.rmdirSync(path)),
  renameSync: (from: string, to: string) => naming([from, to], () => real.renameSync(from, to)),
  rmSync: (path: string, options?: fs.RmOptions) =>
    options?.recursive ? real.rmSync(path, options) : naming([path], () => real.rmSync(path, options)),
  writeFileSync: (
    at: string | number,
    data: Uint8Array | string,
    options?: fs.WriteFileOptions & { flush?: boolean },
  ) => {
    if (typeof at === 'number') return writing(at, () => real.writeFileSync(at, data, options))
    const fd = fs.openSync(at, 'w')
    try {
      writing(fd, () => real.writeFileSync(fd, data))
      if (options?.flush) fs.fsyncSync(fd)
    } finally {
      real.closeSync(fd)
    }
  },
  writeSync: (fd: number, ...rest: [Uint8Array]) => writing(fd, () => real.writeSync(fd, ...rest)),
  writevSync: (fd: number, ...rest: [Uint8Array[]]) => writing(fd, () => real.writevSync(fd, ...rest)),
  ftruncateSync: (fd: number, length?: number) => writing(fd, () => real.ftruncateSync(fd, length)),
  fsyncSync: (fd: number) => syncing(fd, real.fsyncSync),
  fdatasyncSync: (fd: number) => syncing(fd, real.fdatasyncSync),
})
syncBuiltinESMExports()

/** Of consumer/kernel.ts, to be mocked: `vi.mock('../../consumer/kernel.ts', async (original) => powered(await original()))`. */
export const powered = (kernel: typeof import('../../consumer/kernel.ts')): typeof kernel => ({
  ...kernel,
  syncFileSystem(fd) {
    const host = hostOf(fd)
    if (!host) return kernel.syncFileSystem(fd)
    host.call()
    host.syncedAll()
  },
})
