/**
 * Recognition: which bytes of which file a record of Kafka's has become, where the index does not tell any more.
 *
 * A partition's records were written to a module's day in their order, so its blanks are walked through in theirs: what the next
 * record would be is compared with the bytes at which the walk stands. A row behind a blank whose lines come by says that the
 * blank is over. Where records are missing, the walk goes on at the place further behind that holds a record's bytes, if there is but one.
 *
 * Invariants
 * - Nothing is recognised but byte for byte, and no byte twice; lines that other rows tell of are not looked for.
 * - What a record has become was laid out as it is now: by the settings of now. What was not is not recognised.
 * - Lines of `raw` say nothing of when they were printed, and repeat each other. They are believed only as far as they reach without a
 *   gap to the end of their blank.
 * - One record is in memory at a time, and WINDOWS_BYTES of files.
 */
import { crc32 } from 'node:zlib'
import { LRUCache } from 'lru-cache'
import { type Chunk, ChunkError } from '../wire/chunk.ts'
import { type FetchedRecord, InflateError } from '../wire/deferred-records.ts'
import { decodeRecord } from '../wire/record.ts'
import type { Blank, Surroundings } from './blanks.ts'
import type { FileReader } from './file-reader.ts'
import { extend, type Names, type Row } from './index-log.ts'
import { appendedAt } from './landing.ts'
import type { Extent, Layout } from './layout.ts'
import { Ledger } from './ledger.ts'
import { folderOf, readFileName } from './names.ts'

const WINDOW_BYTES = 256 * 1024
const WINDOWS_BYTES = 16 * 1024 * 1024
/** A search through files that came to nothing is not made again for twice as many records as before, up to this many. */
const MOST_PATIENCE = 1024
const NEWLINE = 10

/** Blanks of one partition in a module's day, in the order in which they were written. */
type Walk = {
  blanks: Blank[]
  /** In which of them it stands, and where. */
  next: number
  at: number
  /** The rows right behind blanks, by their run. */
  behind: Map<string, { place: number; row: Row }[]>
  /** Rows that were recognised and are not given away yet. */
  rows: Row[]
  /** So many records are not searched for, and so many after the next search that comes to nothing. */
  skip: number
  patience: number
}

export type RecognitionOptions = {
  text: Pick<FileReader, 'readRange'>
  layout: Layout
  surroundings: Surroundings
  /** Gets the rows, some at a time. */
  found(rows: Row[]): void
  /** Is told of files that cannot be read, again and again. */
  unreadable(file: string, error: Error): void
}

export class Recognition {
  #options: RecognitionOptions
  #walks = new Map<string, Walk>()
  /** Modules of which something is blank. */
  #modules = new Set<string>()
  /** What the records so far come to: copies were not written. */
  #ledger = new Ledger()
  #windows = new LRUCache<string, { from: number; bytes: Buffer }>({
    maxSize: WINDOWS_BYTES,
    sizeCalculation: ({ bytes }) => Math.max(1, bytes.length),
  })

  /** @param partitionOf which partition writes a file */
  constructor(blanks: readonly Blank[], partitionOf: (file: string) => number, options: RecognitionOptions) {
    this.#options = options
    for (const blank of blanks) {
      const name = readFileName(blank.file)
      if (!name) continue
      const partition = partitionOf(blank.file)
      this.#modules.add(`${partition} ${name.service}/${name.module}`)
      const key = `${partition} ${name.service}/${name.module}/${name.day}`
      const walk = this.#walks.get(key)
      if (walk) walk.blanks.push(blank)
      else {
        const walk: Walk = { blanks: [blank], next: 0, at: -1, behind: new Map(), rows: [], skip: 0, patience: 1 }
        this.#walks.set(key, walk)
      }
    }
    for (const walk of this.#walks.values()) {
      const segmentOf = (file: string) => readFileName(file)!.segment
      walk.blanks.sort((a, b) => segmentOf(a.file) - segmentOf(b.file) || a.from - b.from)
      walk.at = walk.blanks[0]!.from
      for (const [place, blank] of walk.blanks.entries()) {
        const { after: row } = options.surroundings.adjoining(blank)
        if (!row) continue
        const of = walk.behind.get(row.run)
        if (of) of.push({ place, row })
        else walk.behind.set(row.run, [{ place, row }])
      }
    }
  }

  /** Whether there is nothing left that a record of a partition could have become. */
  over(partition: number): boolean {
    return this.#walks
      .entries()
      .every(([key, walk]) => !key.startsWith(`${partition} `) || walk.next === walk.blanks.length)
  }

  /** Recognises what a record has become. A partition's records come in their order. */
  async take(partition: number, message: FetchedRecord): Promise<void> {
    let chunk: Chunk
    try {
      chunk = decodeRecord(message)
    } catch (error) {
      // It has become a dead letter.
      if (error instanceof ChunkError || error instanceof InflateError) return
      throw error
    }
    const module = `${partition} ${folderOf(chunk.service, chunk.module)}`
    if (!this.#modules.has(module)) return
    const { layout } = this.#options
    const wanted = this.#ledger.enter(chunk, '', partition)
    const { service, module: name, host } = chunk
    const names = { service, module: name, host, container: chunk.container.name, format: layout.format }
    const run = Buffer.from(chunk.run).toString('hex')
    for (const extent of layout.lay(chunk, wanted, appendedAt(message))) {
      const walk = this.#walks.get(`${module}/${extent.day}`)
      if (walk && walk.next < walk.blanks.length) await this.#walk(walk, extent, run, names)
    }
  }

  /** Gives away what is left. */
  end(): void {
    for (const walk of this.#walks.values()) this.#give(walk)
  }

  async #walk(walk: Walk, extent: Extent, run: string, names: Names): Promise<void> {
    const { surroundings } = this.#options
    const { day: _, misdated: __, bytes, ...said } = extent
    if (surroundings.holds(run, extent.numbers)) {
      this.#passBy(walk, run, extent)
      return
    }
    const found = await this.#placeOf(walk, bytes)
    if (!found) return
    walk.next = found.next
    const { file, to } = walk.blanks[walk.next]!
    const row: Row = { file, position: found.at, ...said, run, names, bytes: bytes.length, crc: 0 }
    const last = walk.rows.at(-1)
    if (!last || !extend(last, row, bytes)) {
      // Of `raw` all are kept until it is known whether they are right.
      if (names.format !== 'raw') this.#give(walk)
      walk.rows.push({ ...row, crc: crc32(bytes) })
    }
    walk.at = found.at + bytes.length
    if (walk.at === to) this.#goTo(walk, walk.next + 1)
  }

  /** Lines of a row that is known come by: blanks in front of it are over. */
  #passBy(walk: Walk, run: string, { numbers }: Extent): void {
    const isOf = ({ row }: { row: Row }): boolean =>
      row.numbers.some(([from, to], source) => from > 0 && numbers[source]![0] >= from && numbers[source]![0] <= to)
    const passed = walk.behind.get(run)?.findLast(isOf)
    if (passed && passed.place >= walk.next) this.#goTo(walk, passed.place + 1)
  }

  #goTo(walk: Walk, next: number): void {
    this.#give(walk)
    walk.next = next
    walk.at = walk.blanks[next]?.from ?? -1
  }

  #give(walk: Walk): void {
    const rows = walk.rows.splice(0)
    const last = rows.at(-1)
    if (!last) return
    const { found } = this.#options
    if (last.names?.format !== 'raw') {
      found(rows)
      return
    }
    let end = walk.blanks.find(
      ({ file, from, to }) => file === last.file && last.position >= from && last.position < to,
    )!.to
    const believed = rows.toReversed().filter(({ position, bytes }) => {
      if (position + bytes !== end) return false
      end = position
      return true
    })
    found(believed.reverse())
  }

  /** Where bytes stand: here, or further behind and nowhere else there. */
  async #placeOf(walk: Walk, bytes: Uint8Array): Promise<{ next: number; at: number } | undefined> {
    const { next, at, blanks } = walk
    const here = blanks[next]!
    if (at + bytes.length <= here.to && (await this.#read(here.file, at, bytes.length)).equals(bytes)) {
      walk.skip = 0
      walk.patience = 1
      return { next, at }
    }
    if (walk.skip > 0) {
      walk.skip--
      return undefined
    }
    const found: { next: number; at: number }[] = []
    for (let i = next; i < blanks.length && found.length < 2; i++) {
      const from = i === next ? at : blanks[i]!.from
      for await (const place of this.#occurrences({ ...blanks[i]!, from }, bytes)) {
        found.push({ next: i, at: place })
        if (found.length === 2) break
      }
    }
    if (found.length === 1) {
      walk.patience = 1
      return found[0]
    }
    walk.skip = walk.patience
    walk.patience = Math.min(2 * walk.patience, MOST_PATIENCE)
    return undefined
  }

  /** Where in a blank bytes begin, as a line does. */
  async *#occurrences({ file, from, to }: Blank, bytes: Uint8Array): AsyncGenerator<number> {
    const size = Math.max(WINDOW_BYTES, 2 * bytes.length)
    for (let at = from; at + bytes.length <= to; at += size - bytes.length + 1) {
      const window = await this.#stored(file, at, Math.min(size, to - at))
      for (let i = window.indexOf(bytes); i !== -1; i = window.indexOf(bytes, i + 1)) {
        const begins = at + i === from || (i > 0 ? window[i - 1] : (await this.#read(file, at - 1, 1))[0]) === NEWLINE
        if (begins) yield at + i
      }
    }
  }

  async #read(file: string, at: number, bytes: number): Promise<Buffer> {
    if (bytes > WINDOW_BYTES) return this.#stored(file, at, bytes)
    let window = this.#windows.get(file)
    if (!window || at < window.from || at + bytes > window.from + window.bytes.length) {
      window = { from: at, bytes: await this.#stored(file, at, WINDOW_BYTES) }
      this.#windows.set(file, window)
    }
    return window.bytes.subarray(at - window.from, at - window.from + bytes)
  }
  /** @returns nothing of a file that cannot be read: then no record is recognised in it */
  async #stored(file: string, at: number, bytes: number): Promise<Buffer> {
    const { text, unreadable } = this.#options
    try {
      return await text.readRange(file, at, bytes)
    } catch (error) {
      unreadable(file, error as Error)
      return Buffer.alloc(0)
    }
  }
}
