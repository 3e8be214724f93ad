/**
 * A shipment: one run on its way to Kafka: how far it is built into batches, acknowledged, and saved.
 *
 * Invariants
 * - `acked` never moves over what is merely built. The checkpoint on disk may lag behind it and never leads.
 * - A line is told as lost once, and one that Kafka has taken never: what the journal gives up while a batch that holds it is
 *   under way is undecided until that batch is acknowledged or refused. Batches are built anew and journals are given up at any
 *   time, so nothing is told when it is built.
 * - A segment is removed only after a checkpoint past it is durable.
 * - A run that can't be read, or not be built, keeps no other from going on: it rests, is tried again, and in the end what stands in
 *   its way is given up and counted.
 */
import { type LostRange, MAX_DATA_BYTES, type SourcePair, STDERR, STDOUT } from '../wire/chunk.ts'
import { recordHeaders, recordKey } from '../wire/record.ts'
import { type ShippingCheckpoint, writeCheckpoint } from './checkpoint.ts'
import { type ChunkBuilder, READ_BYTES } from './chunks.ts'
import { Cursor, UnreadableError } from './cursor.ts'
import { CHUNKS, type Format, jsonLines } from './format.ts'
import { MAX_FRAME_BYTES } from './frames.ts'
import { JournalReader, runFolder } from './journal.ts'
import type { RunRecord } from './run.ts'
import type { ShipperEvents } from './shipper.ts'
import type { Slots } from './slots.ts'

/**
 * A run's checkpoint lags at most this far behind its acknowledgements, in time or in bytes, and is written once the run is
 * quiet. What is behind it would be sent a second time after a kill; a file each second for each run costs more than that.
 */
const CHECKPOINT_MS = 5_000
const CHECKPOINT_BYTES = 16 * 1024 * 1024
const QUIET_MS = 500

/** What stands in the way of a run is tried so often before it is given up. */
const TRIES = 3
/** What the process or the host is short of is no fault of what is read: that is tried for as long as it lasts. */
const WANTING = new Set(['EMFILE', 'ENFILE', 'ENOMEM'])

/** What became of a segment that was to be given: `open` says that it will go soon, as one that is written to and has to be closed first. */
export type Given = 'given' | 'open' | 'nothing'

/** A segment that is shipped but for so much goes, and this stays: a frame that has not come whole, and others behind the last send. */
const TAIL_BYTES = 2 * MAX_FRAME_BYTES

export class Shipment {
  readonly slot: number
  readonly record: RunRecord
  readonly folder: string
  readonly id: Buffer
  readonly key: string
  readonly format: Format
  readonly headers: Record<string, string>
  readonly reader: JournalReader
  partition: number | undefined
  /** Built up to here, and whether the end was built. */
  cursor: Cursor
  ended = false
  /** A chunk is full at this many bytes: fewer after Kafka refused one for its size, down to 1, a line a chunk. */
  chunkBytes = MAX_DATA_BYTES
  /** Kafka refused a batch that held this run and others: it goes alone, to find out whose fault that was. */
  alone = false
  /** Kafka refused the run's next line, alone in a chunk: it is given up. */
  refused = false
  /** How much of the journal there was when the run was last read to its end: what is left of that is half a frame. */
  seen = 0
  acked: ShippingCheckpoint
  /** Behind what is built into batches as a whole. */
  #built: ShippingCheckpoint
  /** How often in a row it could not be built, and until when it rests, ms of the monotonic clock. */
  #stumbles = 0
  #restsUntil = 0
  #retryMs: number
  /** What is not acknowledged yet was journalled after this moment, ms of the monotonic clock. */
  behindSince = performance.now()
  /** Given up, and on its way in a batch all the same. */
  #undecided: LostRange[] = []
  #ackedAt = Number.NEGATIVE_INFINITY
  #savedAt = Number.NEGATIVE_INFINITY
  #savedOffset: number
  /** Lines that were read, of both sources together: they are counted once, however often a batch is built anew. */
  #numbered: number
  #slots: Slots
  #events: ShipperEvents

  constructor(
    journal: string,
    slot: number,
    record: RunRecord,
    checkpoint: ShippingCheckpoint,
    { slots, events, retryMs }: { slots: Slots; events: ShipperEvents; retryMs: number },
  ) {
    this.#slots = slots
    this.#events = events
    this.#retryMs = retryMs
    this.slot = slot
    this.record = record
    this.folder = runFolder(journal, record.run)
    this.id = Buffer.from(record.run.replaceAll('-', ''), 'hex')
    this.key = record.options.key === 'run' ? record.run : recordKey(record.service, record.module)
    this.format = record.options.format === 'json' ? jsonLines({ ...record, run: this.id }) : CHUNKS
    this.headers = recordHeaders(record, this.format.contentType)
    this.reader = new JournalReader(this.folder, checkpoint.offset)
    this.partition = checkpoint.partition
    this.acked = checkpoint
    this.#built = checkpoint
    this.#savedOffset = checkpoint.offset
    this.#numbered = numbersBelow(checkpoint.lines.next)
    this.cursor = this.#cursorFrom(checkpoint)
  }

  /** Bytes that are journalled, since the run began. */
  get written(): number {
    return this.#slots.written(this.slot)
  }

  /** Bytes that its journal takes. */
  get held(): number {
    return this.written - this.reader.start
  }

  get unshipped(): number {
    return this.written - this.acked.offset
  }

  /** Bytes that are not yet built; the end of the run, which is to be built as well, counts as one. */
  get waiting(): number {
    if (this.ended || this.rests) return 0
    const { written } = this
    if (this.#slots.ended(this.slot)) return written - this.cursor.offset + 1
    return written === this.seen ? 0 : written - this.cursor.offset
  }

  /** The run is over, and there is nothing to tell of it. */
  get isEmpty(): boolean {
    if (!this.#slots.ended(this.slot) || this.written > 0) return false
    this.reader.next(0)
    return this.reader.gapFrom(0, -1) === undefined
  }

  /** Builds anew from what is acknowledged: nothing is under way any more. */
  rewind(): void {
    this.#tell(this.#undecided)
    this.#undecided = []
    this.#buildFromAcked()
  }

  #buildFromAcked(): void {
    this.#built = this.acked
    this.#buildFromBuilt()
  }

  #buildFromBuilt(): void {
    this.cursor = this.#cursorFrom(this.#built)
    this.ended = false
    this.seen = -1
  }

  /** All that the cursor has come by is built into a batch. @returns the state behind it */
  built(): ShippingCheckpoint {
    this.#stumbles = 0
    this.#built = this.cursor.state(this.partition)
    return this.#built
  }

  /** Whether it is left alone for now, because it could not be built. */
  get rests(): boolean {
    return this.#restsUntil > 0 && performance.now() < this.#restsUntil
  }

  /**
   * Its journal could not be read, or a batch not be built of it: that is tried again after a rest. After TRIES what stands in the way is
   * given up: what the disk does not give, or where it is another error, which nobody foresaw, all that the cursor had come by and read.
   */
  stumbled(error: Error, cursor = this.cursor): void {
    const unreadable = error instanceof UnreadableError ? this.reader.failure : undefined
    const { code } = (unreadable?.error ?? error) as NodeJS.ErrnoException
    const gaveUp = ++this.#stumbles >= TRIES && !WANTING.has(code ?? '')
    if (gaveUp) {
      if (unreadable) this.reader.giveUp(unreadable.offset, this.written)
      else {
        const { offset } = cursor === this.cursor ? this.#built : this.acked
        this.reader.passOver(offset, Math.min(this.written, cursor.offset + READ_BYTES))
      }
      this.#stumbles = 0
    }
    this.#restsUntil = gaveUp ? 0 : performance.now() + this.#retryMs
    setTimeout(() => this.#slots.ring(), this.#retryMs + 1).unref()
    if (cursor === this.cursor) this.#buildFromBuilt()
    this.#events.stumbled(this.record, error, gaveUp)
  }

  #cursorFrom(from: ShippingCheckpoint): Cursor {
    return new Cursor(this.reader, from, this.record.options.maxLineBytes)
  }

  /** @param lost what the acknowledged chunks told of lines that are given up */
  acknowledged(state: ShippingCheckpoint, builtAt: number, lost: readonly LostRange[]): void {
    this.#ackedAt = performance.now()
    this.#tell(lost)
    this.#undecided = rangesFrom(this.#undecided, state.lines.next)
    // What was given up meanwhile may reach further.
    if (state.offset >= this.acked.offset) this.#moveTo(state)
    this.behindSince = builtAt
    this.chunkBytes = Math.min(MAX_DATA_BYTES, this.chunkBytes * 2)
    this.alone &&= this.chunkBytes < MAX_DATA_BYTES
  }

  #moveTo(state: ShippingCheckpoint): void {
    const { offset, skipped } = this.acked
    this.acked = state
    if (state.skipped > skipped)
      this.#events.skipped(this.record.run, { from: offset, to: state.offset, bytes: state.skipped - skipped })
  }

  #tell(lost: readonly LostRange[]): void {
    for (const range of lost) this.#events.lost(this.record, range)
  }

  /** Tells of the lines that the cursor is the first to have come by. */
  countNumbered(cursor: Cursor): void {
    const numbered = numbersBelow(cursor.lines.next)
    if (numbered <= this.#numbered) return
    this.#events.numbered(numbered - this.#numbered)
    this.#numbered = numbered
  }

  /** Enters lines that are given up, for the next chunk to tell: with the ones before them where they follow each other, so that the list stays short. */
  lose(cursor: Cursor, range: LostRange): void {
    const { source, from, count, reason } = range
    const last = cursor.lost.findLast((lost) => lost.source === source)
    const follows = last?.reason === reason && last.from + last.count === from
    cursor.lost = follows
      ? cursor.lost.map((lost) => (lost === last ? { ...lost, count: lost.count + count } : lost))
      : [...cursor.lost, range]
  }

  /** The first segment: where it begins and ends, `end` being undefined while it is written to; undefined where there is none. */
  get #first(): { base: number; end: number | undefined } | undefined {
    const [base, next] = this.reader.bases()
    if (base === undefined) return undefined
    const closed = this.#slots.closed(this.slot)
    return { base, end: next ?? (closed > base ? closed : undefined) }
  }

  /** Gives the first segment if all of it is shipped, or all but a little that is put into a segment of its own. */
  giveShipped(): Given {
    // Nothing is listed for a run that can't have any.
    if (this.acked.offset <= this.reader.start) return 'nothing'
    const first = this.#first
    const { offset } = this.acked
    if (!first || offset <= first.base || (first.end ?? this.written) - offset > TAIL_BYTES) return 'nothing'
    if (first.end === undefined) return 'open'
    if (!this.#keepTail(offset, first.end) || !this.save(this.acked, true)) return 'nothing'
    return this.reader.dropFirst(first.end) ? 'given' : 'nothing'
  }

  /** What of a segment that goes is behind `offset` stays, in a segment of its own. @returns whether the disk takes it */
  #keepTail(offset: number, end: number): boolean {
    if (offset >= end) return true
    try {
      this.reader.keepTail(offset, end)
    } catch (error) {
      this.#events.diskRefused(error as Error)
      return false
    }
    return true
  }

  /**
   * Gives up the first segment, counted as it would have been shipped.
   * @param sink what its lines go through
   * @returns `nothing` also where the disk takes no checkpoint; `open` also while it does not give what is in the segment
   */
  giveSegment(sink: ChunkBuilder): Given {
    const first = this.#first
    if (!first) return 'nothing'
    const { base, end } = first
    if (end === undefined) return 'open'
    const cursor = this.#cursorFrom(this.acked)
    try {
      return this.#giveUpTo(end, base, cursor, sink)
    } catch (error) {
      this.stumbled(error as Error, cursor)
      return 'open'
    }
  }

  #giveUpTo(end: number, base: number, cursor: Cursor, sink: ChunkBuilder): Given {
    const ended = this.#slots.ended(this.slot)
    const given: LostRange[] = []
    if (cursor.offset < end) {
      // A frame that reaches into the next segment goes whole.
      const limit = Math.min(end + MAX_FRAME_BYTES, this.written)
      do {
        cursor.passGap((range) => given.push(range))
        const first: SourcePair = [...cursor.lines.next]
        const anew = () => {
          sink.begin(cursor.lines.next, Number.POSITIVE_INFINITY)
          return true
        }
        anew()
        cursor.advance(sink, limit, ended && limit === this.written, anew)
        given.push(...rangesSince(first, cursor.lines.next, 'journal-full'))
      } while (cursor.gap && cursor.offset < end)
      // What a container is in the middle of printing, or a disk that was full cut off.
      if (cursor.offset < end && (cursor.offset <= base || !this.#keepTail(cursor.offset, end))) return 'nothing'
    }
    for (const range of given) this.lose(cursor, range)
    const state = cursor.state(this.partition)
    if (!this.save(state, true)) return 'nothing'
    // A line that Kafka refused alone is not there any more: the next one is another.
    if (state.offset > this.acked.offset) this.refused = false
    this.countNumbered(cursor)
    const built = this.cursor.lines.next
    this.#undecided.push(...rangesUpTo(given, built))
    this.#tell(rangesFrom(given, built))
    this.#moveTo(state)
    if (this.cursor.offset < state.offset) this.#buildFromAcked()
    return this.reader.dropFirst(end) ? 'given' : 'nothing'
  }

  /** Whether the checkpoint on disk is due. */
  get due(): boolean {
    const now = performance.now()
    return (
      now - this.#savedAt >= CHECKPOINT_MS ||
      now - this.#ackedAt >= QUIET_MS ||
      this.acked.offset - this.#savedOffset >= CHECKPOINT_BYTES
    )
  }

  /** @returns whether the disk took it. Where it did not the checkpoint lags, and what is behind it is sent a second time after a restart. */
  save(checkpoint: ShippingCheckpoint, durable: boolean): boolean {
    try {
      writeCheckpoint(this.folder, checkpoint, durable)
    } catch (error) {
      this.#events.diskRefused(error as Error)
      return false
    }
    return true
  }

  /** Saves what is acknowledged, because it is due. @returns as `save` */
  saveAcked(): boolean {
    this.#savedAt = performance.now()
    this.#savedOffset = this.acked.offset
    return this.save(this.acked, false)
  }
}

const numbersBelow = ([stdout, stderr]: Readonly<SourcePair>): number => stdout + stderr

/** The numbers from `first` up to `next`, given up for `reason`. */
export const rangesSince = (first: Readonly<SourcePair>, next: Readonly<SourcePair>, reason: string): LostRange[] =>
  ([STDOUT, STDERR] as const).flatMap((source) =>
    next[source] > first[source] ? [{ source, from: first[source], count: next[source] - first[source], reason }] : [],
  )

/** What of the ranges has a number of `next` or above. */
const rangesFrom = (ranges: readonly LostRange[], next: Readonly<SourcePair>): LostRange[] =>
  ranges.flatMap((range) => {
    const from = Math.max(range.from, next[range.source])
    const count = range.from + range.count - from
    return count > 0 ? [{ ...range, from, count }] : []
  })

/** What of them has a number below. */
const rangesUpTo = (ranges: readonly LostRange[], next: Readonly<SourcePair>): LostRange[] =>
  ranges.flatMap((range) => {
    const count = Math.min(range.count, next[range.source] - range.from)
    return count > 0 ? [{ ...range, count }] : []
  })
