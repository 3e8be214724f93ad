/**
 * The index: of every stretch of bytes in a file whose lines they are, which numbers, from when, and their checksum. `tallyman
 * verify` holds the files against it.
 *
 *   <root>/.tallyman/index/<day>   blocks: uint32 LE length, uint32 LE CRC-32 of the payload, payload: MessagePack {files, runs, rows}
 *   a run is [id, service, module, host, container, format], or only its id, as it was written at first
 *
 * Invariants
 * - A row is of one run, and of bytes that stand together. What follows it of the same run joins it, up to MAX_ROW_BYTES.
 * - A row of `raw` is of one source, because its lines do not say of which they are.
 * - It is written at tracked positions and made durable before the checkpoint that says how long it is: what stands behind that
 *   length is nothing, and is written over.
 */
import { closeSync, constants, fdatasyncSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { decode, encode } from '@msgpack/msgpack'
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
const HEADER_BYTES = 8

const count = z.int().min(0)
const numbers = z.tuple([count, count])
/** As a row stands in a block: file and run by their place in its lists. */
const packed = z.tuple([count, count, count, count, count, numbers, numbers, count, count, count])
const format = z.enum(['text', 'raw', 'jsonl'])
const named = z.tuple([z.string(), z.string(), z.string(), z.string(), z.string(), format])
type Named = z.infer<typeof named>
const block = z.object({
  files: z.array(z.string()),
  runs: z.array(z.union([z.string(), named])),
  rows: z.array(packed),
})

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

export class IndexLog {
  #folder: string
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
   * @throws Error of the file system; called again, it writes the same to the same places
   */
  sync(): [day: string, length: number][] {
    const grown = Array.from(this.#rows, ([day, rows]): [string, number] => {
      const bytes = pack(rows)
      const length = this.#lengths.get(day) ?? 0
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
      return [day, length + bytes.length]
    })
    const written = this.#rows
    this.#rows = new Map()
    this.#last.clear()
    for (const [day, length] of grown) {
      this.#lengths.set(day, length)
      for (const tell of this.#watchers) tell(day, written.get(day)!, length)
    }
    return grown
  }
}

function pack(rows: readonly Row[]): Buffer {
  const files = new Map<string, number>()
  const runs: (string | Named)[] = []
  const known = new Map<string, { place: number; names: Names | undefined }>()
  const placeOf = (file: string): number => {
    if (!files.has(file)) files.set(file, files.size)
    return files.get(file)!
  }
  const placeOfRun = ({ run, names }: Row): number => {
    const last = known.get(run)
    if (last && sameNames(last.names, names)) return last.place
    known.set(run, { place: runs.length, names })
    return runs.push(names ? [run, names.service, names.module, names.host, names.container, names.format] : run) - 1
  }
  const packedRows = rows.map((row): z.infer<typeof packed> => {
    const { file, position, bytes, lines, numbers, tmin, tmax, crc } = row
    return [placeOf(file), position, bytes, lines, placeOfRun(row), ...numbers, tmin, tmax, crc]
  })
  const payload = encode({ files: [...files.keys()], runs, rows: packedRows })
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
  const path = join(state, 'index', day)
  const fd = openSync(path, 'r')
  try {
    const header = Buffer.alloc(HEADER_BYTES)
    for (let at = from; at < length; ) {
      const damaged = new Error(`${path} is damaged from byte ${at} on`)
      if (readSync(fd, header, 0, HEADER_BYTES, at) < HEADER_BYTES) throw damaged
      const size = header.readUInt32LE(0)
      if (at + HEADER_BYTES + size > length) throw damaged
      const payload = Buffer.alloc(size)
      if (readSync(fd, payload, 0, size, at + HEADER_BYTES) < size || crc32(payload) !== header.readUInt32LE(4))
        throw damaged
      const { files, runs, rows } = block.parse(decode(payload))
      const known = runs.map(namesOf)
      yield rows.map(([file, position, bytes, lines, run, stdout, stderr, tmin, tmax, crc]) => ({
        ...{ file: files[file]!, position, bytes, lines, ...known[run]! },
        ...{ numbers: [stdout, stderr] as Row['numbers'], tmin, tmax, crc },
      }))
      at += HEADER_BYTES + size
    }
  } finally {
    closeSync(fd)
  }
}
