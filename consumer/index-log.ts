/**
 * The index: of every stretch of bytes in a file whose lines they are, which numbers, from when, and their checksum. `tallyman
 * verify` holds the files against it.
 *
 *   <root>/.tallyman/index/<day>   blocks: uint32 LE length, uint32 LE CRC-32 of the payload, payload: MessagePack {e, t, files, runs, rows}
 *   files, runs  what rows call by its number from here on: paths, and [id, service, module, host, container, format]
 *   e            where the block stands, below this one or itself, with which the numbers begin at 0 again
 *   rows         ROW_NUMBERS numbers each, times from t on
 *
 * Blocks without `e` are of before that: each names its own files and runs, and has a list a row.
 *
 * Invariants
 * - A row is of one run, and of bytes that stand together. What follows it of the same run joins it, up to MAX_ROW_BYTES and MAX_ROW_MS.
 * - A row of `raw` is of one source, because its lines do not say of which they are.
 * - It is written at tracked positions and made durable before the checkpoint that says how long it is: what stands behind that
 *   length is nothing, and is written over.
 */
import { closeSync, constants, fdatasyncSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { decode, encode } from '@msgpack/msgpack'
import { LRUCache } from 'lru-cache'
import { z } from 'zod'
import { syncFolder } from '../wire/durable.ts'
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
}

/** A row is read into memory as a whole when it is checked. */
const MAX_ROW_BYTES = 4 * 1024 * 1024
/** A row is what is read of a file at least for a range of time: one of lines that are joined spans no more than this. */
const MAX_ROW_MS = 10_000
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
  t: count,
  files: z.array(z.string()),
  runs,
  rows: z.custom<number[]>((rows) => Array.isArray(rows) && rows.every(Number.isSafeInteger)),
})
const numbers = z.tuple([count, count])
/** As a row stood in a block at first: file and run by their place in its lists. */
const listed = z.tuple([count, count, count, count, count, numbers, numbers, count, count, count])
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

const join2 = ([a, b]: Numbers, [c, d]: Numbers): Numbers => [a || c, Math.max(b, d)]

/** What rows call by numbers, from the block at `at` on. */
type Epoch = {
  at: number
  files: Map<string, number>
  runs: Map<string, { place: number; names: Names | undefined }>
  named: number
}

export class IndexLog {
  #folder: string
  /** Of the days that are written: one whose epoch is forgotten begins another. */
  #epochs = new LRUCache<string, Epoch>({ max: EPOCHS })
  #lengths: Map<string, number>
  /** Rows that are not written yet, by day. */
  #rows = new Map<string, Row[]>()
  #last = new Map<string, Row>()
  #watchers: ((day: string, rows: readonly Row[], length: number) => void)[] = []

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
    if (
      last &&
      last.run === row.run &&
      last.position + last.bytes === row.position &&
      last.bytes < MAX_ROW_BYTES &&
      Math.max(last.tmax, row.tmax) - Math.min(last.tmin, row.tmin) <= MAX_ROW_MS &&
      sameNames(last.names, row.names) &&
      (row.names?.format !== 'raw' || ofStdout(last) === ofStdout(row))
    ) {
      last.bytes += bytes.length
      last.lines += row.lines
      last.numbers = [join2(last.numbers[0], row.numbers[0]), join2(last.numbers[1], row.numbers[1])]
      last.tmin = Math.min(last.tmin, row.tmin)
      last.tmax = Math.max(last.tmax, row.tmax)
      last.crc = crc32(bytes, last.crc)
      return
    }
    const added: Row = { ...row, bytes: bytes.length, crc: crc32(bytes) }
    this.#last.set(row.file, added)
    const rows = this.#rows.get(day)
    if (rows) rows.push(added)
    else this.#rows.set(day, [added])
  }

  /** Lets go of a day that is removed: no row of it comes any more. */
  forget(day: string): void {
    this.#lengths.delete(day)
    this.#epochs.delete(day)
    for (const tell of this.#watchers) tell(day, [], 0)
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

  /** Tells which rows were written, and how long the day's log is with them: 0, with no rows, where the day is removed. */
  watch(tell: (day: string, rows: readonly Row[], length: number) => void): void {
    this.#watchers.push(tell)
  }

  /**
   * Makes durable what was taken up.
   * @returns the days whose logs have grown, and how long they are
   * @throws Error of the file system; called again, it writes the same rows to the same places
   */
  sync(): [day: string, length: number][] {
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
    this.#last.clear()
    for (const [day, length] of grown) {
      this.#lengths.set(day, length)
      for (const tell of this.#watchers) tell(day, written.get(day)!, length)
    }
    return grown
  }

  /** @returns how long the day's log is with the rows */
  #write(day: string, rows: readonly Row[]): number {
    const length = this.#lengths.get(day) ?? 0
    let epoch = this.#epochs.get(day)
    if (!epoch || length - epoch.at > EPOCH_BYTES) {
      epoch = { at: length, files: new Map(), runs: new Map(), named: 0 }
      this.#epochs.set(day, epoch)
    }
    const bytes = pack(rows, epoch)
    // One that somebody removed is begun anew in the middle: lines land all the same, and verify tells.
    mkdirSync(this.#folder, { recursive: true })
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW
    const fd = openSync(join(this.#folder, day), flags, 0o644)
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, length + at)
      fdatasyncSync(fd)
    } finally {
      closeSync(fd)
    }
    if (length === 0) syncFolder(this.#folder)
    return length + bytes.length
  }
}

/** A block of rows. What it names for the first time goes into the epoch. */
function pack(rows: readonly Row[], epoch: Epoch): Buffer {
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
  const payload = encode({ e: epoch.at, t, files, runs, rows: flat })
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

/**
 * The rows of a day's log, block by block.
 * @param length how long the log is, as the checkpoint says
 * @param from where a block begins
 * @throws Error saying from where on it is damaged
 */
export function* readIndex(state: string, day: string, length: number, from = 0): Generator<Row[]> {
  for (const { rows } of readBlocks(state, day, length, from)) yield rows
}

/** The same, each block with where the next one begins. */
export function* readBlocks(
  state: string,
  day: string,
  length: number,
  from = 0,
): Generator<{ rows: Row[]; next: number }> {
  using log = new BlockReader(join(state, 'index', day), length)
  let names: { at: number; files: string[]; runs: Pick<Row, 'run' | 'names'>[] } | undefined
  for (let at = from; at < length; ) {
    const { value, next } = log.read(at)
    const { success, data } = block.safeParse(value)
    if (!success) yield { rows: rowsOfBefore(value, log, at), next }
    else {
      if (names?.at !== data.e) {
        names = { at: data.e, files: [], runs: [] }
        // What was named in front of the place from which it is read.
        for (let i = data.e; i < at; ) {
          const before = log.read(i)
          const { files, runs } = block.parse(before.value)
          names.files.push(...files)
          names.runs.push(...runs.map(namesOf))
          i = before.next
        }
      }
      names.files.push(...data.files)
      names.runs.push(...data.runs.map(namesOf))
      yield { rows: unpack(data, names, () => log.damaged(at)), next }
    }
    at = next
  }
}

function unpack(
  { t, rows: flat }: z.infer<typeof block>,
  { files, runs }: { files: readonly string[]; runs: readonly Pick<Row, 'run' | 'names'>[] },
  damaged: () => Error,
): Row[] {
  const rows: Row[] = []
  for (let i = 0; i + ROW_NUMBERS <= flat.length; i += ROW_NUMBERS) {
    const file = files[flat[i]!]
    const run = runs[flat[i + 1]!]
    if (file === undefined || run === undefined) throw damaged()
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
    })
  }
  return rows
}

function rowsOfBefore(value: unknown, log: BlockReader, at: number): Row[] {
  const { success, data } = blockOfBefore.safeParse(value)
  if (!success) throw log.damaged(at)
  const known = data.runs.map(namesOf)
  return data.rows.map(([file, position, bytes, lines, run, stdout, stderr, tmin, tmax, crc]) => ({
    ...{ file: data.files[file]!, position, bytes, lines, ...known[run]! },
    ...{ numbers: [stdout, stderr] as Row['numbers'], tmin, tmax, crc },
  }))
}

/** Blocks of a log, read in windows of many. */
class BlockReader implements Disposable {
  #path: string
  #length: number
  #fd: number
  #window = Buffer.alloc(0)
  /** Where the window begins. */
  #from = 0

  constructor(path: string, length: number) {
    this.#path = path
    this.#length = length
    this.#fd = openSync(path, 'r')
  }

  /** The block at a place, and where the next one is. @throws Error saying that it is damaged */
  read(at: number): { value: unknown; next: number } {
    const header = this.#bytes(at, HEADER_BYTES)
    const size = header.readUInt32LE(0)
    const next = at + HEADER_BYTES + size
    if (next > this.#length) throw this.damaged(at)
    const crc = header.readUInt32LE(4)
    const payload = this.#bytes(at + HEADER_BYTES, size)
    if (crc32(payload) !== crc) throw this.damaged(at)
    return { value: decode(payload), next }
  }

  damaged(at: number): Error {
    return new Error(`${this.#path} is damaged from byte ${at} on`)
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }

  /** @returns a view, valid until the next call */
  #bytes(at: number, count: number): Buffer {
    if (at < this.#from || at + count > this.#from + this.#window.length) {
      this.#window = Buffer.alloc(Math.min(Math.max(count, WINDOW_BYTES), this.#length - at))
      this.#from = at
      const read = readSync(this.#fd, this.#window, 0, this.#window.length, at)
      if (read < Math.min(count, this.#window.length)) throw this.damaged(at)
      this.#window = this.#window.subarray(0, read)
    }
    if (at + count > this.#from + this.#window.length) throw this.damaged(at)
    return this.#window.subarray(at - this.#from, at - this.#from + count)
  }
}
