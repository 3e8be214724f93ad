/**
 * Deferred records: the records of a compressed batch, inflated when somebody looks at one of them.
 *
 * A fetch brings megabytes that are compressed, and logs that repeat themselves inflate to hundreds of times that. Left to
 * kafkajs all of it is in memory at once; here it is one batch at a time.
 *
 * Invariants
 * - Offsets are known without inflating: claims are made of them.
 * - A batch is inflated once, whoever looks at how many of its records, until it is released; then again.
 * - What was taken of a record is a view of the inflated batch: it is gone with `release`.
 * - A batch that can't be inflated throws the same error for each of its records, and for no other: it is tried once. Sequence that
 *   breaks otherwise: 10,000 records of 7 KB of zeros, each of which inflates up to the limit, in one turn of the event loop.
 */
import type { KafkaMessage } from 'kafkajs'

/** A record as it is fetched. */
export type FetchedRecord = KafkaMessage & {
  /** Of the last record of a deferred batch: gives back what the batch was inflated to. */
  release?: () => void
}

/** A batch as kafkajs hands it over (patches/): of a batch without gaps, with what its records have in common. */
export type CompressedBatch = {
  compressed: Buffer
  count: number
  /** What stands before the records. `firstOffset` in decimal. */
  context: { firstOffset: string }
  /** The records of the inflated batch. */
  decode(inflated: Buffer): KafkaMessage[]
}

/** A batch whose bytes are not what its codec makes, or that inflates to more than we take. */
export class InflateError extends Error {
  override name = 'InflateError'
  /** The records of the batch, as Kafka holds them. */
  readonly compressed: Buffer
  /** Offset of the first of them, in decimal, and how many they are. */
  readonly firstOffset: string
  readonly records: number
  constructor(message: string, { compressed, count, context }: CompressedBatch) {
    super(message)
    this.compressed = compressed
    this.firstOffset = context.firstOffset
    this.records = count
  }
}

class Batch {
  readonly context: CompressedBatch['context']
  readonly count: number
  #batch: CompressedBatch
  #inflate: (compressed: Buffer) => Buffer
  #inflated: Buffer | undefined
  #records: KafkaMessage[] | undefined
  #failure: InflateError | undefined

  constructor(batch: CompressedBatch, inflate: (compressed: Buffer) => Buffer) {
    this.context = batch.context
    this.count = batch.count
    this.#batch = batch
    this.#inflate = inflate
  }

  record(index: number): KafkaMessage {
    if (this.#failure) throw this.#failure
    if (!this.#records) {
      const { compressed, decode } = this.#batch
      try {
        this.#inflated = this.#inflate(compressed)
        this.#records = decode(this.#inflated)
      } catch (error) {
        const of = `the batch of ${this.count} records from offset ${this.context.firstOffset} on`
        this.#failure = new InflateError(`${of} can't be inflated: ${(error as Error).message}`, this.#batch)
        throw this.#failure
      }
    }
    return this.#records[index]!
  }

  release(): void {
    const memory = this.#inflated?.buffer
    this.#inflated = undefined
    this.#records = undefined
    // At once: left to the collector, what is inflated costs a full collection every few batches.
    if (memory instanceof ArrayBuffer && memory.byteLength > Buffer.poolSize) memory.transfer(0)
  }
}

class DeferredRecord {
  readonly offset: string
  readonly isControlRecord = false
  readonly release?: () => void
  #batch: Batch
  #index: number

  constructor(batch: Batch, index: number) {
    this.offset = String(Number(batch.context.firstOffset) + index)
    this.#batch = batch
    this.#index = index
    if (index === batch.count - 1) this.release = () => batch.release()
  }

  get batchContext(): CompressedBatch['context'] {
    return this.#batch.context
  }

  get key() {
    return this.#batch.record(this.#index).key
  }

  get value() {
    return this.#batch.record(this.#index).value
  }

  get timestamp() {
    return this.#batch.record(this.#index).timestamp
  }

  get attributes() {
    return this.#batch.record(this.#index).attributes
  }

  get headers() {
    return this.#batch.record(this.#index).headers ?? {}
  }
}

/**
 * The records of a batch, none of them inflated yet.
 * @param inflate throws where the bytes are not what the codec makes, or too many
 */
export function deferredRecords(batch: CompressedBatch, inflate: (compressed: Buffer) => Buffer): FetchedRecord[] {
  const shared = new Batch(batch, inflate)
  return Array.from({ length: batch.count }, (_, index) => new DeferredRecord(shared, index))
}
