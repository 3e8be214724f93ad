/**
 * The index: of every stretch of bytes in a file whose lines they are, which numbers, from when, and their checksum. `tallyman
 * verify` holds the files against it.
 *
 *   <root>/.tallyman/index/<day>   blocks: uint32 LE length, uint32 LE CRC-32 of the payload, payload: MessagePack
 *                                  {e, n, t, files, runs, rows, rebuilt?}
 *   files, runs  what rows call by its number from here on: paths, and [id, service, module, host, container, format]
 *   e            where the block stands, below this one or itself, with which the numbers begin at 0 again
 *   n            how many files and runs have numbers before this block: what follows a damaged one is understood all the same
 *   rows         ROW_NUMBERS numbers each, times from t on
 *   rebuilt      which of the rows were made of what stands in the file, and not of what was written to it
 *
 * Blocks without `e` are of before that: each names its own files and runs, and has a list a row.
 *
 * Invariants
 * - A row is of one run, and of bytes that stand together. What follows it of the same run joins it, up to MAX_ROW_BYTES, MAX_ROW_LINES and MAX_ROW_MS.
 * - A row of `raw` is of one source, because its lines do not say of which they are.
 * - It is written at tracked positions and made durable before the checkpoint that says how long it is: what stands behind that
 *   length is nothing, and is written over.
 * - A block that is damaged costs its own rows, and those that call by a number what it named: the next whole one is found by its
 *   checksum. Of blocks without `n` it costs more, up to the next that begins the numbers anew.
 * - A log is replaced as a whole (reindex.ts): places in it are places in that one log.
 */
import { closeSync, constants, fstatSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { decode, encode } from '@msgpack/msgpack'
import { LRUCache } from 'lru-cache'
import { z } from 'zod'
import { syncFolder } from '../wire/durable.ts'
import { syncData } from './kernel.ts'
import type { LineFormat } from './layout.ts'

/** Numbers of a source's lines in a row: the first and the last, 0 where it has none. */
export type Numbers = [from: number, to: number]

/** Whose lines they are, beyond the run's life, and how they look in the file. */
export type Names = { service: string; module: string; host: string; container: string; format: LineFormat }

export type Row = {
  /** Path below the root. */
  file: string
  position: number
  bytes: number
  lines: number
  /** The run's id in hex. */
  run: string
  /** Rows of before this was kept have none. */
  names?: Names | undefined
  numbers: [stdout: Numbers, stderr: Numbers]
  /** Times of its earliest and its latest line, ms since 1970. */
  tmin: number
  tmax: number
  /** CRC-32 of the bytes. */
  crc: number
  /**
   * It was made of what stands in the file: its checksum says nothing of what was written. Where that does not tell the run, `run` is
   * empty, and the lines of each source are numbered from 1 on.
   */
  rebuilt?: true | undefined
}

/** A row is read into memory as a whole when it is checked. */
const MAX_ROW_BYTES = 4 * 1024 * 1024
/** And line by line when it is told: of `raw`, an empty line is one byte. */
const MAX_ROW_LINES = 64 * 1024
/** A row is what is read of a file at least for a range of time: one of lines that are joined spans no more than this. */
const MAX_ROW_MS = 10_000
/** Rows that wait for the checkpoint: a record that alternates between days or sources has one a line. */
const MAX_PENDING = 16 * 1024
const HEADER_BYTES = 8
/** So much of a log is read at once. */
const WINDOW_BYTES = 256 * 1024

/** With a block so far behind the first of its names these begin anew: whoever reads from some place on reads that much in front of it. */
const EPOCH_BYTES = 1024 * 1024
/** Late lines may be of any day; a few are written at a time. */
const EPOCHS = 8
/** Of a row: file, run, position, bytes, lines, for each source its first number and how many follow, tmin, tmax - tmin, crc. */
const ROW_NUMBERS = 12

const count = z.int().min(0)
const format = z.enum(['text', 'raw', 'jsonl'])
const named = z.tuple([z.string(), z.string(), z.string(), z.string(), z.string(), format])
type Named = z.infer<typeof named>
const runs = z.array(z.union([z.string(), named]))
const block = z.object({
  e: count,
  n: z.tuple([count, count]).optional(),
  t: count,
  files: z.array(z.string()),
  runs,
  rows: z.custom<number[]>((rows) => Array.isArray(rows) && rows.every(Number.isSafeInteger)),
  rebuilt: z.array(count).optional(),
})
type Block = z.infer<typeof block>
const numbers = z.tuple([count, count])
/** As a row stood in a block at first: file and run by their place in its lists. */
const listed = z.tuple([count, count, count, count, count, numbers, numbers, count, count, count])
/** How the payloads of whole blocks begin: a map of so many keys, and the first of them. */
const BEGINNINGS = ['\x87\xa1e', '\x86\xa1e', '\x85\xa1e', '\x83\xa5files'].map((text) => Buffer.from(text, 'latin1'))
const blockOfBefore = z.object({ files: z.array(z.string()), runs, rows: z.array(listed) })

const sameNames = (a: Names | undefined, b: Names | undefined): boolean =>
  a === b ||
  (a?.container === b?.container &&
    a?.host === b?.host &&
    a?.service === b?.service &&
    a?.module === b?.module &&
    a?.format === b?.format)

/** Whether a row holds lines of stdout; one of `raw` holds no others then. */
const ofStdout = ({ numbers }: Pick<Row, 'numbers'>): boolean => numbers[0][0] !== 0

/** Whether a row goes on where another ends, in the same run and near enough in time. */
const follows = (last: Row, row: Omit<Row, 'bytes' | 'crc'>): boolean =>
  last.run === row.run &&
  last.file === row.file &&
  last.position + last.bytes === row.position &&
  last.bytes < MAX_ROW_BYTES &&
  last.lines < MAX_ROW_LINES &&
  Math.max(last.tmax, row.tmax) - Math.min(last.tmin, row.tmin) <= MAX_ROW_MS &&
  sameNames(last.names, row.names) &&
  (row.names?.format !== 'raw' || ofStdout(last) === ofStdout(row))

/** Makes a row longer by what follows it. @returns whether it could */
export function extend(last: Row, row: Omit<Row, 'bytes' | 'crc'>, bytes: Uint8Array): boolean {
  if (!follows(last, row)) return false
  last.bytes += bytes.length
  last.lines += row.lines
  last.numbers = [join2(last.numbers[0], row.numbers[0]), join2(last.numbers[1], row.numbers[1])]
  last.tmin = Math.min(last.tmin, row.tmin)
  last.tmax = Math.max(last.tmax, row.tmax)
  last.crc = crc32(bytes, last.crc)
  return true
}

const join2 = ([a, b]: Numbers, [c, d]: Numbers): Numbers => [a || c, Math.max(b, d)]

/** What rows call by numbers, from the block at `at` on. */
type Epoch = {
  at: number
  files: Map<string, number>
  runs: Map<string, { place: number; names: Names | undefined }>
  named: number
}

/** Is told what becomes of days' logs. */
export type IndexWatcher = {
  /** Rows were written, and so long is the log with them. */
  grown(day: string, rows: readonly Row[], length: number): void
  /** The day is removed. */
  removed(day: string): void
  /** Another log has taken the place of the day's. */
  replaced(day: string): void
  /** The day's log does not hold all that was written to it. */
  damaged?(day: string): void
}

export class IndexLog {
  #folder: string
  /** Of the days that are written: one whose epoch is forgotten begins another. */
  #epochs = new LRUCache<string, Epoch>({ max: EPOCHS })
  #lengths: Map<string, number>
  /** Rows that are not written yet, by day. */
  #rows = new Map<string, Row[]>()
  #waiting = 0
  #last = new Map<string, Row>()
  /** Logs that have grown since the last `sync`, and how long they are. */
  #grown = new Map<string, number>()
  #watchers: IndexWatcher[] = []

  /**
   * @param state the folder of the root's own state
   * @param lengths how long each day's log is, as the checkpoint says
   */
  constructor(state: string, lengths: ReadonlyMap<string, number>) {
    this.#folder = join(state, 'index')
    this.#lengths = new Map(lengths)
  }

  /** Takes up what was handed to the writer. */
  add(day: string, row: Omit<Row, 'bytes' | 'crc'>, bytes: Uint8Array): void {
    const last = this.#last.get(row.file)
    if (last && extend(last, row, bytes)) return
    const added: Row = { ...row, bytes: bytes.length, crc: crc32(bytes) }
    this.#last.set(row.file, added)
    this.#waiting++
    const rows = this.#rows.get(day)
    if (rows) rows.push(added)
    else this.#rows.set(day, [added])
  }

  /** Lets go of a day that is removed: no row of it comes any more. */
  forget(day: string): void {
    this.#lengths.delete(day)
    this.#grown.delete(day)
    this.#epochs.delete(day)
    for (const watcher of this.#watchers) watcher.removed(day)
  }

  /** Goes on in the log that has taken the place of a day's. @param length how long that one is */
  replaced(day: string, length: number): void {
    this.#lengths.set(day, length)
    this.#grown.delete(day)
    this.#epochs.delete(day)
    for (const watcher of this.#watchers) watcher.replaced(day)
  }

  /** Where a day's log is. */
  pathOf(day: string): string {
    return join(this.#folder, day)
  }

  /** How long each day's log is; rows that are pending are not in there. */
  get lengths(): ReadonlyMap<string, number> {
    return this.#lengths
  }

  /** Rows that are not written yet, by day. They grow: whoever keeps one makes a copy. Their bytes may still be on the way. */
  get pending(): ReadonlyMap<string, readonly Row[]> {
    return this.#rows
  }

  /** Whether so many rows are pending that they should be written before more are taken up. */
  get full(): boolean {
    return this.#waiting >= MAX_PENDING
  }

  watch(watcher: IndexWatcher): void {
    this.#watchers.push(watcher)
  }

  /**
   * Makes durable what was taken up.
   * @returns the days whose logs have grown since the last call, and how long they are
   * @throws Error of the file system; called again, it writes the same rows to the same places
   */
  sync(): [day: string, length: number][] {
    this.write()
    const grown = [...this.#grown]
    this.#grown.clear()
    return grown
  }

  /** Makes durable what was taken up, ahead of the checkpoint. @throws as `sync` does */
  write(): void {
    let grown: [string, number][]
    try {
      grown = Array.from(this.#rows, ([day, rows]) => [day, this.#write(day, rows)])
    } catch (error) {
      // What was named in a block that is not there is not named.
      this.#epochs.clear()
      throw error
    }
    const written = this.#rows
    this.#rows = new Map()
    this.#waiting = 0
    this.#last.clear()
    for (const [day, length] of grown) {
      this.#lengths.set(day, length)
      this.#grown.set(day, length)
      for (const watcher of this.#watchers) watcher.grown(day, written.get(day)!, length)
    }
  }

  /** @returns how long the day's log is with the rows */
  #write(day: string, rows: readonly Row[]): number {
    const length = this.#lengths.get(day) ?? 0
    // One that somebody removed is begun anew in the middle: lines land all the same, and the check tells.
    mkdirSync(this.#folder, { recursive: true })
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW
    const fd = openSync(join(this.#folder, day), flags, 0o644)
    try {
      if (fstatSync(fd).size < length) {
        // What was named there is not any more.
        this.#epochs.delete(day)
        for (const watcher of this.#watchers) watcher.damaged?.(day)
      }
      const epoch = epochAt(length, this.#epochs.get(day))
      this.#epochs.set(day, epoch)
      const bytes = pack(rows, epoch)
      writeAll(fd, bytes, length)
      syncData(fd)
      // Whoever made them may have been killed before he had synced their names.
      if (length === 0) for (const folder of [this.#folder, dirname(this.#folder)]) syncFolder(folder)
      return length + bytes.length
    } finally {
      closeSync(fd)
    }
  }
}

function writeAll(fd: number, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, position + at)
}

/** The epoch of a block at `at`: the last one, or a new one where that is too far back. */
function epochAt(at: number, last: Epoch | undefined): Epoch {
  return last && at - last.at <= EPOCH_BYTES ? last : { at, files: new Map(), runs: new Map(), named: 0 }
}

/** A log that is written from its beginning on, beside the one whose place it may take. */
export class NewIndex implements Disposable {
  length = 0
  #fd: number
  #epoch: Epoch | undefined

  /** @throws Error of the file system */
  constructor(path: string) {
    this.#fd = openSync(path, 'w', 0o644)
  }

  /** Writes a block. */
  write(rows: readonly Row[]): void {
    if (rows.length === 0) return
    this.#epoch = epochAt(this.length, this.#epoch)
    const bytes = pack(rows, this.#epoch)
    writeAll(this.#fd, bytes, this.length)
    this.length += bytes.length
  }

  /** Makes it durable. */
  sync(): void {
    syncData(this.#fd)
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }
}

/** A block of rows. What it names for the first time goes into the epoch. */
function pack(rows: readonly Row[], epoch: Epoch): Buffer {
  const n = [epoch.files.size, epoch.named]
  const files: string[] = []
  const runs: (string | Named)[] = []
  const placeOf = (file: string): number => {
    let place = epoch.files.get(file)
    if (place === undefined) {
      place = epoch.files.size
      epoch.files.set(file, place)
      files.push(file)
    }
    return place
  }
  const placeOfRun = ({ run, names }: Row): number => {
    const known = epoch.runs.get(run)
    if (known && sameNames(known.names, names)) return known.place
    const place = epoch.named++
    epoch.runs.set(run, { place, names })
    runs.push(names ? [run, names.service, names.module, names.host, names.container, names.format] : run)
    return place
  }
  const t = rows.reduce((least, { tmin }) => Math.min(least, tmin), Number.POSITIVE_INFINITY)
  const flat: number[] = []
  for (const row of rows) {
    const { position, bytes, lines, numbers, tmin, tmax, crc } = row
    const [[from, to], [fromErr, toErr]] = numbers
    flat.push(placeOf(row.file), placeOfRun(row), position, bytes, lines)
    flat.push(from, to - from, fromErr, toErr - fromErr, tmin - t, tmax - tmin, crc)
  }
  const rebuilt = rows.flatMap((row, i) => (row.rebuilt ? [i] : []))
  const payload = encode({ e: epoch.at, n, t, files, runs, rows: flat, ...(rebuilt.length > 0 && { rebuilt }) })
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32LE(payload.length, 0)
  header.writeUInt32LE(crc32(payload), 4)
  return Buffer.concat([header, payload])
}

function namesOf(run: string | Named): Pick<Row, 'run' | 'names'> {
  if (typeof run === 'string') return { run }
  const [id, service, module, host, container, format] = run
  return { run: id, names: { service, module, host, container, format } }
}

/** A stretch of a day's log of which rows are missing: from byte `from` up to and without `to`. */
export type Damage = { from: number; to: number }

export type Damaged = (damage: Damage) => void

/**
 * The rows of a day's log, block by block.
 * @param length how long the log is, as the checkpoint says
 * @param from where a block begins
 * @param damaged is told what is passed over; where nobody is, it throws
 * @throws Error of the file system
 */
export function* readIndex(state: string, day: string, length: number, from = 0, damaged?: Damaged): Generator<Row[]> {
  for (const { rows } of readBlocks(state, day, length, from, damaged)) yield rows
}

/** The same, each block with where the next one begins. */
export function* readBlocks(
  state: string,
  day: string,
  length: number,
  from = 0,
  damaged?: Damaged,
): Generator<{ rows: Row[]; next: number }> {
  const path = join(state, 'index', day)
  using log = new BlockReader(path, length)
  const passOver = ({ from, to }: Damage): void => {
    if (!damaged) throw new Error(`${path} is damaged from byte ${from} on`)
    damaged({ from, to })
  }
  let names: EpochNames | undefined
  for (let at = from; at < length; ) {
    const read = log.read(at)
    if (!read) {
      const to = log.wholeFrom(at + 1)
      passOver({ from: at, to })
      names?.passOver()
      at = to
      continue
    }
    const { value, next } = read
    const { success, data } = block.safeParse(value)
    let rows: Row[] | undefined
    if (success) {
      if (names?.at !== data.e) names = EpochNames.read(log, data.e, at)
      names.take(data)
      rows = unpack(data, names)
      if (rows.length * ROW_NUMBERS < data.rows.length) passOver({ from: at, to: next })
    } else {
      rows = rowsOfBefore(value)
      if (!rows) passOver({ from: at, to: next })
    }
    if (rows) yield { rows, next }
    at = next
  }
}

/** What of a day's log is not whole, without reading its rows. Comes back now and then, with nothing, so that others have their turn. */
export function* damageOf(state: string, day: string, length: number): Generator<Damage | undefined> {
  using log = new BlockReader(join(state, 'index', day), length)
  for (let at = 0, told = 0; at < length; ) {
    const next = log.payload(at)?.next
    if (next === undefined) {
      const to = log.wholeFrom(at + 1)
      yield { from: at, to }
      at = to
    } else at = next
    if (at - told < WINDOW_BYTES) continue
    told = at
    yield undefined
  }
}

/** What rows call by numbers, as it is read. */
class EpochNames {
  readonly at: number
  readonly files: string[] = []
  readonly runs: Pick<Row, 'run' | 'names'>[] = []
  /** No block of the epoch was passed over. */
  #whole = true

  /** Those of the blocks from `at` on up to and without that at `to`. */
  static read(log: BlockReader, at: number, to: number): EpochNames {
    const names = new EpochNames(at)
    for (let i = at; i < to; ) {
      const before = log.read(i)
      const { data } = block.safeParse(before?.value)
      if (data?.e === at) names.take(data)
      else names.passOver()
      i = before?.next ?? log.wholeFrom(i + 1)
    }
    return names
  }

  private constructor(at: number) {
    this.at = at
  }

  passOver(): void {
    this.#whole = false
  }

  take({ n, files, runs }: Block): void {
    // Whatever the next one names, its numbers are not known.
    if (!n && !this.#whole) return
    const [fileAt, runAt] = n ?? [this.files.length, this.runs.length]
    for (const [i, file] of files.entries()) this.files[fileAt + i] = file
    for (const [i, run] of runs.entries()) this.runs[runAt + i] = namesOf(run)
  }
}

/** The rows of a block, but for those whose names are not known. */
function unpack({ t, rows: flat, rebuilt }: Block, { files, runs }: EpochNames): Row[] {
  const rows: Row[] = []
  const made = new Set(rebuilt)
  for (let i = 0; i + ROW_NUMBERS <= flat.length; i += ROW_NUMBERS) {
    const file = files[flat[i]!]
    const run = runs[flat[i + 1]!]
    if (file === undefined || run === undefined) continue
    const [position, bytes, lines] = [flat[i + 2]!, flat[i + 3]!, flat[i + 4]!]
    const [from, fromErr] = [flat[i + 5]!, flat[i + 7]!]
    const tmin = t + flat[i + 9]!
    rows.push({
      ...{ file, position, bytes, lines, run: run.run, names: run.names },
      numbers: [
        [from, from + flat[i + 6]!],
        [fromErr, fromErr + flat[i + 8]!],
      ],
      ...{ tmin, tmax: tmin + flat[i + 10]!, crc: flat[i + 11]! },
      ...(made.has(i / ROW_NUMBERS) && { rebuilt: true }),
    })
  }
  return rows
}

/** @returns undefined for what is no block */
function rowsOfBefore(value: unknown): Row[] | undefined {
  const { success, data } = blockOfBefore.safeParse(value)
  if (!success) return undefined
  const known = data.runs.map(namesOf)
  return data.rows.map(([file, position, bytes, lines, run, stdout, stderr, tmin, tmax, crc]) => ({
    ...{ file: data.files[file]!, position, bytes, lines, ...known[run]! },
    ...{ numbers: [stdout, stderr] as Row['numbers'], tmin, tmax, crc },
  }))
}

/** Blocks of a log, read in windows of many. */
class BlockReader implements Disposable {
  #length: number
  /** Of a log that is not there none is whole. */
  #fd: number | undefined
  #window = Buffer.alloc(0)
  /** Where the window begins. */
  #from = 0

  constructor(path: string, length: number) {
    this.#length = length
    try {
      this.#fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }

  /** The block at a place, and where the next one is. @returns undefined where no whole one is */
  read(at: number): { value: unknown; next: number } | undefined {
    const found = this.payload(at)
    try {
      return found && { value: decode(found.payload), next: found.next }
    } catch {
      return undefined
    }
  }

  /** The same, not decoded: a view, valid until the next call. */
  payload(at: number): { payload: Buffer; next: number } | undefined {
    const header = this.#bytes(at, HEADER_BYTES)
    const size = header?.readUInt32LE(0)
    // Zeros, of a hole in the file, are an empty payload with the right CRC.
    if (!header || !size || at + HEADER_BYTES + size > this.#length) return undefined
    const crc = header.readUInt32LE(4)
    const payload = this.#bytes(at + HEADER_BYTES, size)
    return payload && crc32(payload) === crc ? { payload, next: at + HEADER_BYTES + size } : undefined
  }

  /** Where the first whole block is, at a place or behind it; the log's end where there is none. */
  wholeFrom(from: number): number {
    const overlap = Math.max(...BEGINNINGS.map(({ length }) => length)) - 1
    for (let at = from + HEADER_BYTES; at < this.#length; ) {
      const window = this.#bytes(at, 1, true)
      if (!window) return this.#length
      const end = at + window.length
      const candidates = BEGINNINGS.flatMap((beginning) => occurrences(window, beginning)).sort((a, b) => a - b)
      const places = candidates.map((i) => at + i - HEADER_BYTES)
      // The window moves with each look.
      for (const place of places) if (this.payload(place)) return place
      at = Math.max(end - overlap, at + 1)
    }
    return this.#length
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
  }

  /**
   * @param rest all of the window from there on
   * @returns a view, valid until the next call; undefined where the file ends before
   */
  #bytes(at: number, count: number, rest = false): Buffer | undefined {
    if (this.#fd === undefined) return undefined
    if (at < this.#from || at + count > this.#from + this.#window.length) {
      this.#window = Buffer.alloc(Math.min(Math.max(count, WINDOW_BYTES), Math.max(0, this.#length - at)))
      this.#from = at
      const read = readSync(this.#fd, this.#window, 0, this.#window.length, at)
      this.#window = this.#window.subarray(0, read)
    }
    if (at + count > this.#from + this.#window.length) return undefined
    return this.#window.subarray(at - this.#from, rest ? undefined : at - this.#from + count)
  }
}

function occurrences(bytes: Buffer, of: Buffer): number[] {
  const found: number[] = []
  for (let at = bytes.indexOf(of); at !== -1; at = bytes.indexOf(of, at + 1)) found.push(at)
  return found
}
