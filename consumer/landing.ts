/**
 * Landing: one batch of a partition's records, from decoding to bytes at their places: ledger, layout, writer.
 *
 * Invariant: it depends on the records, the state that the checkpoint holds and the settings, and on nothing else, so a
 * second pass from the same checkpoint writes the same bytes to the same places.
 */
import type { KafkaMessage } from 'kafkajs'
import { type Chunk, ChunkError } from '../wire/chunk.ts'
import { type FetchedRecord, InflateError } from '../wire/deferred-records.ts'
import { RecordReader } from '../wire/record.ts'
import type { DeadLetters } from './dead-letters.ts'
import type { Hub } from './hub.ts'
import type { IndexLog } from './index-log.ts'
import { type Extent, LAST_STAMP_MS, type Layout } from './layout.ts'
import type { Ledger } from './ledger.ts'
import { type Origin, originOf } from './origin.ts'
import { stretchOf } from './stored-line.ts'
import type { Place, Writer } from './writer.ts'

/** What has landed since the daemon started. */
export type Counts = { records: number; lines: number; doubled: number; misdated: number; undecodable: number }

/** Does work until it does not throw. */
export type Insist = (work: () => void) => Promise<void>

export type LandingOptions = {
  topic: string
  letters: Pick<DeadLetters, 'keep'>
  ledger: Ledger
  layout: Layout
  writer: Writer
  index: IndexLog
  /** Gets what is handed to the writer. */
  hub?: Pick<Hub, 'take'>
}

/**
 * When Kafka appended a record, ms since 1970. On a topic that was set to CreateTime meanwhile it is what the sender says, which can
 * be no date.
 */
export const appendedAt = ({ timestamp }: Pick<FetchedRecord, 'timestamp'>): number =>
  Math.min(Math.max(0, Number(timestamp)), LAST_STAMP_MS)

export class Landing {
  readonly counts: Counts = { records: 0, lines: 0, doubled: 0, misdated: 0, undecodable: 0 }
  /** When the newest of the records was appended that have landed, ms since 1970; 0 before the first. */
  newest = 0
  /** When the first lines of the chunks since `takeTimes` were printed, ms since 1970. */
  #times: number[] = []
  /** Of the batch that could not be inflated last. */
  #refused: InflateError | undefined
  #topic: string
  #letters: Pick<DeadLetters, 'keep'>
  #ledger: Ledger
  #layout: Layout
  #writer: Writer
  #index: IndexLog
  #hub: Pick<Hub, 'take'> | undefined
  #records: RecordReader<Origin>

  constructor(options: LandingOptions) {
    this.#topic = options.topic
    this.#letters = options.letters
    this.#ledger = options.ledger
    this.#layout = options.layout
    this.#writer = options.writer
    this.#index = options.index
    this.#hub = options.hub
    this.#records = new RecordReader((names) => originOf(names, options.layout.format))
  }

  /**
   * Hands a record's lines to the writer.
   * @param insist does what the disk may refuse, until it does not: flush the writer, when the record's lines do not fit any more, and
   * keep a dead letter
   */
  async land(partition: number, message: FetchedRecord, insist: Insist): Promise<void> {
    this.counts.records++
    let chunk: Chunk & { of: Origin }
    try {
      chunk = this.#records.read(message)
    } catch (error) {
      if (error instanceof ChunkError) await this.#refuse(partition, message, error.reason, error, insist)
      else if (error instanceof InflateError) await this.#refuseBatch(partition, error, insist)
      else throw error
      this.counts.undecodable++
      message.release?.()
      return
    }
    const appended = appendedAt(message)
    if (appended > this.newest) this.newest = appended
    const { of: origin } = chunk
    const time = timeOf(chunk, appended)
    const first = this.#layout.dayOf(time, appended)
    const wanted = this.#ledger.enter(chunk, first, partition, appended, Number(message.offset), origin.run)
    let lines = 0
    for (const extent of this.#layout.lay(chunk, wanted, appended)) {
      if (!this.#writer.fits(extent.bytes.length)) await insist(() => this.#writer.flush())
      this.#writer.write(origin.folder, extent.day, partition, extent.bytes, extent, (place, kept) =>
        this.#placed(origin, extent, place, kept),
      )
      this.#ledger.wrote(chunk, extent.day, extent.lines)
      if (this.#index.full) await insist(() => this.#index.write())
      lines += extent.lines
      this.counts.misdated += extent.misdated
    }
    if (lines > 0) this.#times.push(time)
    this.counts.lines += lines
    this.counts.doubled += chunk.lines - lines
    // All that was taken of it has been copied by now.
    message.release?.()
  }

  /** An extent's bytes have their place. @param kept they, valid until this returns */
  #placed({ run, names }: Origin, extent: Extent, { file, position }: Place, kept: Uint8Array): void {
    const { day, lines, numbers, tmin, tmax } = extent
    const row = { file, position, bytes: kept.length, lines, run, names, numbers, tmin, tmax }
    this.#index.add(day, row, kept)
    this.#hub?.take(stretchOf(row, names), kept)
  }

  /**
   * Enters a record that another root writes into a ledger that is not ours, and nothing else.
   * @param known whether a run is in it already as of this record
   */
  count(ledger: Ledger, partition: number, message: FetchedRecord, known: (run: string) => boolean): void {
    let chunk: Chunk & { of: Origin }
    try {
      chunk = this.#records.read(message)
    } catch (error) {
      if (error instanceof ChunkError || error instanceof InflateError) return
      throw error
    }
    if (known(chunk.of.run)) return
    const appended = appendedAt(message)
    const day = this.#layout.dayOf(timeOf(chunk, appended), appended)
    const wanted = ledger.enter(chunk, day, partition, appended, Number(message.offset), chunk.of.run)
    const lines = wanted ? wanted.reduce((sum, one) => sum + one, 0) : chunk.lines
    ledger.wrote(chunk, day, lines)
  }

  takeTimes(): number[] {
    return this.#times.splice(0)
  }

  /** Keeps a batch as it is, once for all of its records, as a letter of the first of them. */
  async #refuseBatch(partition: number, error: InflateError, insist: Insist): Promise<void> {
    if (error === this.#refused) return
    const { firstOffset: offset, compressed: value } = error
    const message = { offset, key: null, value, timestamp: '', attributes: 0, headers: {} }
    await this.#refuse(partition, message, 'not-inflated', error, insist, error.records)
    this.#refused = error
  }

  async #refuse(
    partition: number,
    message: KafkaMessage,
    reason: string,
    error: Error,
    insist: Insist,
    records = 1,
  ): Promise<void> {
    const refused = { topic: this.#topic, partition, message, records, reason, text: error.message }
    await insist(() => this.#letters.keep(refused))
  }
}

/** Of a chunk without lines nothing is known but when it came. In ms since 1970. */
const timeOf = (chunk: Chunk, appended: number): number => (chunk.lines > 0 ? Number(chunk.t0 / 1_000_000n) : appended)
