/**
 * History in the order of time: the lines of every stretch that overlaps a range, merged.
 *
 * Stretches are read in the order of their earliest line. Once every stretch is read that can hold an earlier line than one in
 * hand, that one is final and is sent. Backwards, for the last lines of a range, the same with the latest lines.
 *
 * Invariants
 * - The order is by time, then file, then position: that of all lines sorted at once.
 * - At most `limit` lines are in hand, and of their text TEXT_BYTES: what is over is read a second time when it is sent.
 * - Whoever reads slowly is waited for, with nothing read ahead.
 */
import TinyQueue from 'tinyqueue'
import type { Access } from './access.ts'
import type { Gap, LinesQuery } from './api-schema.ts'
import type { Events } from './event-stream.ts'
import type { FileReader } from './file-reader.ts'
import type { Picked, RowCache, Wanted } from './row-cache.ts'
import { selectorOf, type TextFilter, textFilter } from './selection.ts'
import { byTime, lineEvent, parseLines, type StoredLine, type Stretch } from './stored-line.ts'

/** What everything that reads history needs. */
export type History = {
  rows: RowCache
  text: FileReader
}

const TEXT_BYTES = 32 * 1024 * 1024
/** Stretches are read in batches: small ones first, so that the first answer is quick. */
const FIRST_BATCH_BYTES = 64 * 1024
const LARGEST_BATCH_BYTES = 2 * 1024 * 1024
/** Stretches that are less apart are read at once. */
const READ_OVER_BYTES = 16 * 1024
const LARGEST_READ_BYTES = 1024 * 1024
const BATCH_LINES = 1000

/** The wanted of a question. @throws ConsumerError */
export function wantedOf(
  query: Pick<LinesQuery, 'target' | 'service' | 'module' | 'host' | 'container' | 'source'> & {
    since?: string | undefined
    until?: string | undefined
  },
  may: Access['may'],
): Wanted {
  return {
    ...selectorOf(query, may),
    since: query.since === undefined ? Number.NEGATIVE_INFINITY : Date.parse(query.since),
    until: query.until === undefined ? Number.POSITIVE_INFINITY : Date.parse(query.until),
  }
}

export const isWanted = ({ since, until, stdout, stderr, lengths }: Wanted, line: StoredLine): boolean =>
  line.time >= since &&
  line.time < until &&
  (line.stderr ? stderr : stdout) &&
  (lengths === undefined || line.position < (lengths.get(line.file) ?? 0))

/** `GET /lines`. @throws ConsumerError before the first batch, for a question that is not understood */
export async function* readLines(
  history: History,
  query: LinesQuery,
  { may, signal }: { may: Access['may']; signal: AbortSignal },
): Events {
  const filter = textFilter(query)
  const partial: Gap[] = []
  let sent = 0
  let limited = false
  const merge = new Merge(history, wantedOf(query, may), filter, query, partial)
  for await (const lines of merge.run(signal)) {
    sent += lines.length
    yield lines.map((line) => lineEvent(line, filter?.spans(line.text)))
  }
  if (signal.aborted) return
  limited = merge.limited
  yield [JSON.stringify({ type: 'end', lines: sent, limited, partial })]
}

/** A line in hand; without its text where that has to be read again. */
type InHand = Omit<StoredLine, 'text'> & { text: string | undefined; stretch: Stretch }

export class Merge {
  /** There were more lines than `limit`. */
  limited = false
  #history: History
  #wanted: Wanted
  #filter: TextFilter | undefined
  #limit: number
  #last: boolean
  #partial: Gap[]
  #hand: TinyQueue<InHand>
  #order: (a: InHand, b: InHand) => number
  #textBytes = 0

  /** @param partial gets what could not be read */
  constructor(
    history: History,
    wanted: Wanted,
    filter: TextFilter | undefined,
    { limit, last }: { limit: number; last: boolean },
    partial: Gap[],
  ) {
    this.#history = history
    this.#wanted = wanted
    this.#filter = filter
    this.#limit = limit
    this.#last = last
    this.#partial = partial
    const forward = byTime as (a: InHand, b: InHand) => number
    this.#order = last ? (a, b) => forward(b, a) : forward
    this.#hand = new TinyQueue<InHand>([], this.#order)
  }

  /** The lines, in batches. @param signal ends the reading where it is */
  async *run(signal: AbortSignal): AsyncGenerator<StoredLine[]> {
    const stretches = this.#stretches()
    let left = this.#limit
    let next = await stretches.next()
    for (let size = FIRST_BATCH_BYTES; !next.done; size = Math.min(size * 2, LARGEST_BATCH_BYTES)) {
      const batch: Stretch[] = []
      const counts = this.#counts(left)
      for (let bytes = 0; !next.done && bytes < size; next = await stretches.next()) {
        if (!counts(next.value)) {
          next = { done: true, value: undefined }
          break
        }
        batch.push(next.value)
        bytes += next.value.bytes
      }
      for await (const [stretch, bytes] of readStretches(this.#history.text, batch, this.#partial, signal))
        this.#take(stretch, bytes, left)
      if (signal.aborted) return
      if (this.#last) continue
      for await (const final of this.#final(next.done ? Number.POSITIVE_INFINITY : next.value.tmin, left)) {
        left -= final.length
        yield final
      }
      if (this.limited) return
    }
    if (!this.#last) return
    this.limited = this.#hand.length > this.#limit
    this.#cut(this.#limit)
    yield* this.#whole(this.#hand.data.toReversed())
  }

  /** Whether anything in a stretch, or in one behind it, can still be among the lines that are sent. */
  #counts(left: number): (stretch: Stretch) => boolean {
    if (this.#hand.length <= left) return () => true
    this.#cut(left + 1)
    const { time } = this.#hand.data.at(-1)!
    return this.#last ? ({ tmax }) => tmax >= time : ({ tmin }) => tmin <= time
  }

  #take(stretch: Stretch, bytes: Buffer, left: number): void {
    for (const line of parseLines(stretch, bytes)) {
      if (!isWanted(this.#wanted, line) || (this.#filter && !this.#filter.passes(line.text))) continue
      const kept = this.#textBytes + line.bytes <= TEXT_BYTES
      if (kept) this.#textBytes += line.bytes
      this.#hand.push({ ...line, text: kept ? line.text : undefined, stretch })
    }
    if (this.#hand.length > 2 * left + 1000) this.#cut(left + 1)
  }

  /** Forgets all but the first `keep` lines in hand. */
  #cut(keep: number): void {
    const sorted = this.#hand.data.sort(this.#order)
    for (const line of sorted.splice(keep)) if (line.text !== undefined) this.#textBytes -= line.bytes
    this.#hand = new TinyQueue<InHand>(sorted, this.#order)
  }

  /** Lines before which nothing can come any more, since all that is still to be read is of `tmin` or later. */
  async *#final(tmin: number, left: number): AsyncGenerator<StoredLine[]> {
    const lines: InHand[] = []
    for (let first = this.#hand.peek(); first && first.time < tmin; first = this.#hand.peek()) {
      if (lines.length === left) {
        this.limited = true
        break
      }
      lines.push(this.#hand.pop()!)
    }
    yield* this.#whole(lines)
  }

  /** Lines with their text, in batches. */
  async *#whole(lines: InHand[]): AsyncGenerator<StoredLine[]> {
    let batch: StoredLine[] = []
    let bytes = 0
    for (const line of lines) {
      batch.push(line.text === undefined ? await this.#again(line) : (line as StoredLine))
      if (line.text !== undefined) this.#textBytes -= line.bytes
      bytes += line.bytes
      if (batch.length < BATCH_LINES && bytes < LARGEST_READ_BYTES) continue
      yield batch
      batch = []
      bytes = 0
    }
    if (batch.length > 0) yield batch
  }

  /** Reads a line whose text was not kept. */
  async #again({ stretch, ...line }: InHand): Promise<StoredLine> {
    const bytes = await this.#history.text.readRange(line.file, line.position, line.bytes + 1)
    return parseLines({ ...stretch, position: line.position }, bytes)[0] ?? { ...line, text: '' }
  }

  /** All stretches of the range by their earliest line; backwards by their latest. */
  async *#stretches(): AsyncGenerator<Stretch> {
    const { rows } = this.#history
    const [edge, sign] = this.#last ? (['tmax', -1] as const) : (['tmin', 1] as const)
    const open = new TinyQueue<Sorted>([], (a, b) => sign * (a.time - b.time))
    const waiting = rows.days
      .map((day) => ({ day, begin: rows.bounds(day)[edge] }))
      .sort((a, b) => sign * (a.begin - b.begin))
    for (;;) {
      const first = open.peek()
      const day = waiting[0]
      if (day && (!first || sign * (day.begin - first.time) <= 0)) {
        waiting.shift()
        for (const picked of await rows.day(day.day, this.#wanted, this.#partial)) {
          if (picked.picked.length > 0) open.push(new Sorted(picked, edge, sign))
        }
        continue
      }
      if (!first) return
      open.pop()
      yield first.shift()
      if (first.left) open.push(first)
    }
  }
}

/** The picked rows of a day in the order of one of their times. */
class Sorted {
  #rows: Picked['rows']
  #picked: Uint32Array
  #times: Float64Array
  #at = 0

  constructor({ rows, picked }: Picked, edge: 'tmin' | 'tmax', sign: number) {
    this.#rows = rows
    this.#times = rows[edge]
    const times = this.#times
    this.#picked = picked.sort((a, b) => sign * (times[a]! - times[b]!) || a - b)
  }

  get time(): number {
    return this.#times[this.#picked[this.#at]!]!
  }

  get left(): boolean {
    return this.#at < this.#picked.length
  }

  shift(): Stretch {
    return this.#rows.at(this.#picked[this.#at++]!)
  }
}

/**
 * Reads stretches, those that stand together at once.
 * @param partial gets those that could not be read
 * @param signal ends the reading where it is
 */
export async function* readStretches(
  text: FileReader,
  stretches: readonly Stretch[],
  partial: Gap[],
  signal: AbortSignal,
): AsyncGenerator<[Stretch, Buffer]> {
  const sorted = [...stretches].sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.position - b.position))
  for (let from = 0; from < sorted.length && !signal.aborted; ) {
    const first = sorted[from]!
    let end = first.position + first.bytes
    let to = from + 1
    for (; to < sorted.length; to++) {
      const { file, position, bytes } = sorted[to]!
      if (file !== first.file || position - end > READ_OVER_BYTES) break
      if (position + bytes - first.position > LARGEST_READ_BYTES) break
      end = position + bytes
    }
    try {
      const read = await text.readRange(first.file, first.position, end - first.position)
      for (const stretch of sorted.slice(from, to)) {
        const at = stretch.position - first.position
        yield [stretch, read.subarray(at, at + stretch.bytes)]
      }
    } catch (error) {
      tellGap(partial, first.file, error as Error)
    }
    from = to
  }
}

/** Enters a file that could not be read, once. */
export function tellGap(partial: Gap[], file: string, { message }: Error): void {
  if (!partial.some((gap) => gap.file === file)) partial.push({ file, message })
}
