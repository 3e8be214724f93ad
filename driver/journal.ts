/**
 * The journal of a run: its FIFO's bytes, verbatim, on disk.
 *
 * <journal>/runs/<run>/run.json          what the run is (run.ts)
 *                      <offset>.segment  bytes from that offset of the run's stream on, 16 hex digits
 *                      <offset>.gap      how many lines were dropped before that offset, because the disk took nothing
 *                      <offset>.hole     up to where the disk did not give what it holds, from that offset on
 *                      dropped           the same while the disk still takes nothing, in a file that is there from the beginning
 *                      checkpoint        how far it is shipped (checkpoint.ts)
 *
 * Invariants
 * - Segments are written by intake alone, only at their end, and never reopened for writing: a driver that starts begins a
 *   new one. So a segment's length is what the kernel moved, and a killed driver leaves nothing torn.
 * - Segments follow each other without a gap: the name of one is the name of the one before plus its length.
 * - What was once given up as a hole stays one, should the disk give it after all: lines behind it are numbered by then.
 * - A run is there once its folder has its name, and over and done when the folder is gone. It is made and removed under another
 *   name, so that no half of one is taken for a run.
 */
import {
  closeSync,
  type Dirent,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import * as z from 'zod'
import type { SourcePair } from '../wire/chunk.ts'
import { replaceFile } from '../wire/durable.ts'
import { lockFile } from '../wire/lock.ts'

/**
 * Takes the journal for this process: two drivers on one would share each FIFO's bytes between them.
 * @returns undefined, or the process id of who holds it
 */
export const lockJournal = (journal: string): string | undefined => lockFile(join(journal, 'driver.lock'))

/** What is held for checkpoints: a segment can only go once a checkpoint behind it is written, and a full disk takes none. */
const RESERVE_BYTES = 256 * 1024
const reservePath = (journal: string): string => join(journal, 'reserve')

export function giveReserve(journal: string): void {
  try {
    rmSync(reservePath(journal), { force: true })
  } catch {
    // A disk that only reads.
  }
}

/** Holds the reserve, as far as the disk has room for it. */
export function takeReserve(journal: string): void {
  try {
    writeFileSync(reservePath(journal), Buffer.alloc(RESERVE_BYTES), { mode: 0o600 })
  } catch {
    // Taken again when there is room.
  }
}

const SUFFIX = '.segment'
const GAP_SUFFIX = '.gap'
const HOLE_SUFFIX = '.hole'
const REMOVED = '.removed-'

/** Offset of a segment's first byte in the run's stream, and its length, both in bytes. */
export type Segment = { base: number; length: number }

export const runsFolder = (journal: string): string => join(journal, 'runs')
export const runFolder = (journal: string, run: string): string => join(journal, 'runs', run)
const hex = (offset: number): string => offset.toString(16).padStart(16, '0')
export const segmentPath = (folder: string, base: number): string => join(folder, hex(base) + SUFFIX)

const gapLines = z.tuple([z.int().min(0), z.int().min(0)])
const gapNote = z.object({ lines: gapLines })
const droppedNote = z.object({ offset: z.int().min(0), lines: gapLines })
const holeNote = z.object({ until: z.int().min(0) })

/** @returns undefined where the file can't be read or is no JSON */
function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}

/**
 * Lines, by source, that were dropped where a segment begins. What stands before it may end within a frame: that one is among them,
 * and so is a line whose first parts stand before it.
 */
export type Gap = { offset: number; lines: SourcePair }

const gapPath = (folder: string, offset: number): string => join(folder, hex(offset) + GAP_SUFFIX)

/** Notes a gap, before anything is written behind it. @throws Error of the file system */
export const writeGap = (folder: string, { offset, lines }: Gap): void =>
  writeFileSync(gapPath(folder, offset), JSON.stringify({ lines }), { mode: 0o600 })

const droppedPath = (folder: string): string => join(folder, 'dropped')
/** The note is always as long as this, blanks included, so that a disk that is full can take it. */
const DROPPED_BYTES = 96

/** A stretch of the stream, from `from` up to `until`, that the disk did not give. */
export type Hole = { from: number; until: number }

const holePath = (folder: string, from: number): string => join(folder, hex(from) + HOLE_SUFFIX)

/** The holes of a run, in order. A note that can't be read is none: the disk is asked again. */
function listHoles(folder: string, names: readonly string[]): Hole[] {
  return names
    .filter((name) => /^[0-9a-f]{16}\.hole$/.test(name))
    .sort()
    .flatMap((name) => {
      const from = Number.parseInt(name, 16)
      const { data } = holeNote.safeParse(readJson(join(folder, name)))
      return data && data.until > from ? [{ from, until: data.until }] : []
    })
}

/** Takes the room for what `writeDropped` will say. @throws Error of the file system */
export const reserveDropped = (folder: string): void =>
  writeFileSync(droppedPath(folder), ' '.repeat(DROPPED_BYTES), { mode: 0o600 })

/** Says what was dropped behind `offset` so far, where nothing else can be written. */
export function writeDropped(folder: string, dropped: Gap): void {
  try {
    writeFileSync(droppedPath(folder), JSON.stringify(dropped).padEnd(DROPPED_BYTES), { flag: 'r+' })
  } catch {
    // A disk with an error, or one that copies on write. A driver that lives on has the count all the same.
  }
}

/** @returns what `writeDropped` said last, or undefined where it never did */
export const readDropped = (folder: string): Gap | undefined =>
  droppedNote.safeParse(readJson(droppedPath(folder))).data

/**
 * The gaps of a run, in order. One that can't be read counts no lines, but is one. What was dropped and never noted, because the
 * driver was killed before the disk took bytes again, is one as well.
 */
function listGaps(folder: string, names: readonly string[]): Gap[] {
  const gaps = names
    .filter((name) => /^[0-9a-f]{16}\.gap$/.test(name))
    .sort()
    .map((name): Gap => {
      const { data } = gapNote.safeParse(readJson(join(folder, name)))
      return { offset: Number.parseInt(name, 16), lines: data?.lines ?? [0, 0] }
    })
  const dropped = readDropped(folder)
  const last = gaps.at(-1)
  if (!dropped || (last && last.offset > dropped.offset)) return gaps
  // Of the same gap a full disk may have left an empty note.
  const noted = last?.offset === dropped.offset
  if (noted && last.lines[0] + last.lines[1] >= dropped.lines[0] + dropped.lines[1]) return gaps
  return [...(noted ? gaps.slice(0, -1) : gaps), dropped]
}

/** The run folders there are, after clearing away what an interrupted removal left. None where there is no such folder, or no reading it. */
export function listRuns(journal: string): string[] {
  const folder = runsFolder(journal)
  const runs: string[] = []
  let entries: Dirent[]
  try {
    entries = readdirSync(folder, { withFileTypes: true })
  } catch {
    return []
  }
  for (const entry of entries) {
    if (entry.name.startsWith(REMOVED)) discard(join(folder, entry.name))
    else if (entry.isDirectory()) runs.push(entry.name)
  }
  return runs
}

function discard(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true })
  } catch {
    // A disk that only reads. It is tried again at the next start.
  }
}

/** As many things that are not understood are kept for somebody to look at. */
const MAX_SET_ASIDE = 100

/**
 * Moves what is not understood to where somebody can look at it; the oldest that was moved before goes where there is too much.
 * @param path below the journal
 * @returns where it is now
 * @throws Error of the file system
 */
export function setAside(journal: string, path: string): string {
  const aside = join(journal, 'set-aside')
  mkdirSync(aside, { recursive: true, mode: 0o700 })
  const to = join(aside, `${basename(path)}-${Date.now()}`)
  renameSync(path, to)
  const moved = (name: string): number => Number(/\d+$/.exec(name)?.[0] ?? 0)
  const names = readdirSync(aside).sort((a, b) => moved(a) - moved(b))
  for (const name of names.slice(0, -MAX_SET_ASIDE)) discard(join(aside, name))
  return to
}

/** What is in a run's folder: nothing, once the run is removed. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

const basesOf = (names: readonly string[]): number[] =>
  names
    .filter((name) => /^[0-9a-f]{16}\.segment$/.test(name))
    .sort()
    .map((name) => Number.parseInt(name, 16))

/**
 * A run's segments, in order. Files of other names are not looked at. One that goes meanwhile is left out: intake removes the
 * last one where nothing came to be in it, and shipping the first ones.
 */
export function listSegments(folder: string): Segment[] {
  return basesOf(namesIn(folder)).flatMap((base) => {
    const stat = statSync(segmentPath(folder, base), { throwIfNoEntry: false })
    return stat ? [{ base, length: stat.size }] : []
  })
}

/**
 * Where the run's stream ends, as far as its segments and gaps say: where all of them were given up a checkpoint stands further
 * (left-run.ts).
 */
export function journalEnd(folder: string): number {
  const last = listSegments(folder).at(-1)
  return Math.max(last ? last.base + last.length : 0, listGaps(folder, namesIn(folder)).at(-1)?.offset ?? 0)
}

/** What the folder of a run is called before it is whole, and once it is to go: the next start clears it away. */
const gravePath = (journal: string, run: string): string => join(runsFolder(journal), REMOVED + run)

/**
 * Makes a run's folder with what `fill` puts into it: there as a whole as soon as the rename is done.
 * @throws Error of the file system, with nothing left of the folder
 */
export function makeRun(journal: string, run: string, fill: (folder: string) => void): void {
  const grave = gravePath(journal, run)
  try {
    mkdirSync(grave, { recursive: true, mode: 0o700 })
    fill(grave)
    renameSync(grave, runFolder(journal, run))
  } catch (error) {
    discard(grave)
    throw error
  }
}

/**
 * Takes a run's folder away as a whole: gone for every later start as soon as the rename is done.
 * @throws Error of the file system; then all of it is still there
 */
export function removeRun(journal: string, run: string): void {
  const grave = gravePath(journal, run)
  try {
    renameSync(runFolder(journal, run), grave)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  discard(grave)
}

/** What a file system gives is tried again behind a hole in steps from this size on, each twice the one before. */
const PAGE_BYTES = 4096

/**
 * Reads a run's stream by offset, across segments, while intake still writes the last one. One descriptor at most is open.
 * What the disk does not give ends no thread: there a read comes back short.
 */
export class JournalReader {
  #folder: string
  #readFile: typeof readSync
  #bases: number[] = []
  #gaps: Gap[] = []
  #holes: Hole[] = []
  /** Why the last read was short, and at which offset, where that was the disk's fault. */
  failure: { error: Error; offset: number } | undefined
  #refreshFailure: Error | undefined
  #fd = -1
  #base = 0
  #start: number

  /**
   * @param start where the stream begins while there is no segment: what is before that is gone
   * @param readFile reads a segment, as `readSync` does
   */
  constructor(folder: string, start = 0, readFile: typeof readSync = readSync) {
    this.#folder = folder
    this.#readFile = readFile
    this.#start = start
    this.#refresh()
  }

  /**
   * Fills `target[at, at + length)` from `offset` of the stream on. Bytes up to `offset + length` must have been written.
   * @returns bytes read: fewer only where a segment is missing or shorter than its successor's name says, at a hole, or at a `failure`
   */
  read(target: Uint8Array, at: number, length: number, offset: number): number {
    this.failure = undefined
    let done = 0
    let refreshed = false
    while (done < length) {
      const position = offset + done
      const wanted = this.#holes.length === 0 ? length - done : this.#beforeHole(position, length - done)
      if (wanted === 0) return done
      let read: number
      try {
        read = this.#open(position) ? this.#readFile(this.#fd, target, at + done, wanted, position - this.#base) : 0
      } catch (error) {
        // It may be the one before, and what begins here newer than our list.
        if (!refreshed) {
          refreshed = true
          this.#refresh()
          continue
        }
        this.failure = { error: error as Error, offset: position }
        return done
      }
      done += read
      // Nothing read: the segment has ended, and its successor may be newer than our list.
      if (read === 0 && refreshed) break
      refreshed = read === 0
      if (refreshed) this.#refresh()
    }
    // It may be that there is more than we could see.
    if (done < length && this.#refreshFailure) this.failure = { error: this.#refreshFailure, offset: offset + done }
    return done
  }

  /** How many of so many bytes there are from `offset` on up to the next hole. */
  #beforeHole(offset: number, bytes: number): number {
    const hole = this.#holes.find(({ until }) => until > offset)
    return hole ? Math.max(0, Math.min(bytes, hole.from - offset)) : bytes
  }

  /**
   * Gives up what there is from `from` on: up to where the disk gives something, `limit`, or the next segment. Noted on the disk as
   * far as it takes that; else a later reader asks it again.
   */
  giveUp(from: number, limit: number): void {
    const base = this.#bases.findLast((base) => base <= from) ?? from
    const end = Math.min(limit, this.next(from) ?? limit)
    let until = end
    for (let step = PAGE_BYTES; from + step < end; step *= 2) {
      const page = from + step - ((from + step - base) % PAGE_BYTES)
      if (!this.#gives(page)) continue
      until = page
      break
    }
    this.passOver(from, until)
  }

  /** Gives up [from, until), whatever the disk gives of it, noted as in `giveUp`: a hole in each segment, with which its note goes. */
  passOver(from: number, until: number): void {
    for (let at = from, end = at; at < until; at = end) {
      end = Math.min(until, this.#bases.find((base) => base > at) ?? until)
      this.#addHole({ from: at, until: end })
    }
  }

  #addHole({ from, until }: Hole): void {
    this.#holes = [...this.#holes, { from, until }].sort((a, b) => a.from - b.from)
    try {
      writeFileSync(holePath(this.#folder, from), JSON.stringify({ until }), { mode: 0o600 })
    } catch {
      // As above.
    }
  }

  #gives(offset: number): boolean {
    return this.read(Buffer.alloc(1), 0, 1, offset) === 1
  }

  /** The base of a segment that begins in [offset, offset + length), of those that a read has come across. */
  baseWithin(offset: number, length: number): number | undefined {
    return this.#bases.find((base) => base >= offset && base < offset + length)
  }

  /** The offset at which the stream goes on where nothing can be read at `offset`, or undefined when nothing follows. */
  next(offset: number): number | undefined {
    this.#refresh()
    const hole = this.#holes.find(({ from, until }) => from <= offset && offset < until)
    return hole?.until ?? this.#bases.find((base) => base > offset)
  }

  /** The first gap behind `passed` and not before `offset`, of those that a read has come across. */
  gapFrom(offset: number, passed: number): Gap | undefined {
    return this.#gaps.find((gap) => gap.offset > passed && gap.offset >= offset)
  }

  /** Offset of the last gap before `end`; −1 where there is none. */
  gapBefore(end: number): number {
    return this.#gaps.findLast((gap) => gap.offset < end)?.offset ?? -1
  }

  /** Where each segment begins, in order. */
  bases(): readonly number[] {
    this.#refresh()
    return this.#bases
  }

  /** Where the first segment begins, as far as is known, or would begin. */
  get start(): number {
    return this.#bases[0] ?? this.#start
  }

  /** Whether a segment ends at or before `offset` and could be removed. */
  droppable(offset: number): boolean {
    return this.#bases.length > 1 && this.#bases[1]! <= offset
  }

  /**
   * Puts [offset, end) of the first segment, which ends there, into one of its own, whole and durable, so that the first can go.
   * @throws Error of the file system; then nothing is changed
   */
  keepTail(offset: number, end: number): void {
    const tail = Buffer.alloc(end - offset)
    if (this.read(tail, 0, tail.length, offset) < tail.length)
      throw new Error(`the journal can't be read from ${offset} on`)
    const path = segmentPath(this.#folder, offset)
    try {
      replaceFile(path, tail, true)
    } catch (error) {
      rmSync(`${path}.new`, { force: true })
      throw error
    }
    this.#refresh()
  }

  /**
   * Removes the first segment.
   * @param end where it ends, if it is the only one
   * @returns whether there was one, and the disk let it go
   */
  dropFirst(end = 0): boolean {
    const [base, next = end] = this.#bases
    if (base === undefined) return false
    try {
      if (base === this.#base) this.close()
      unlinkSync(segmentPath(this.#folder, base))
    } catch {
      // A disk that only reads. What is beside the segment does no harm.
      return false
    }
    this.#bases.shift()
    this.#start = end
    const notes = [
      ...this.#gaps.filter(({ offset }) => offset === base).map(({ offset }) => gapPath(this.#folder, offset)),
      ...this.#holes.filter(({ from }) => from < next).map(({ from }) => holePath(this.#folder, from)),
    ]
    this.#gaps = this.#gaps.filter(({ offset }) => offset !== base)
    this.#holes = this.#holes.filter(({ from }) => from >= next)
    for (const note of notes) discard(note)
    return true
  }

  close(): void {
    if (this.#fd !== -1) closeSync(this.#fd)
    this.#fd = -1
  }

  #refresh(): void {
    let names: string[]
    try {
      names = namesIn(this.#folder)
    } catch (error) {
      // What is known by now has to do.
      this.#refreshFailure = error as Error
      return
    }
    this.#refreshFailure = undefined
    this.#bases = basesOf(names)
    this.#gaps = listGaps(this.#folder, names)
    const noted = listHoles(this.#folder, names)
    // Those that the disk did not take a note of are still known.
    const others = this.#holes.filter(({ from }) => !noted.some((hole) => hole.from === from))
    this.#holes = [...noted, ...others].sort((a, b) => a.from - b.from)
  }

  /** Opens the segment that holds `offset`, or that ends there. @returns whether there is one */
  #open(offset: number): boolean {
    const base = this.#bases.findLast((b) => b <= offset)
    if (base === undefined) return false
    if (this.#fd !== -1 && base === this.#base) return true
    this.close()
    // The segment may have been there, empty, before a gap was noted in front of it; now that bytes are in it the note is final.
    this.#refresh()
    try {
      this.#fd = openSync(segmentPath(this.#folder, base), 'r')
    } catch (error) {
      // For a reader that is not the shipper: removed since the list was made.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
      throw error
    }
    this.#base = base
    return true
  }
}
