/**
 * Deferred records: the records of a compressed batch, inflated when somebody looks at one of them.
 *
 * A fetch brings megabytes that are compressed, and logs that repeat themselves inflate to hundreds of times that. Left to
 * kafkajs all of it is in memory at once; here it is one batch at a time.
 *
 * Invariants
 * - Offsets are known without inflating: claims are made of them.
 * - A batch is inflated once, whoever looks at how many of its records, until it is released; then again.
 * - Of a record nothing is made but what somebody asks for: its headers say again what its value does.
 * - What was taken of a record is a view of the inflated batch: it is gone with `release`.
 * - A batch that can't be inflated throws the same error for each of its records, and for no other: it is tried once. Sequence that
 *   breaks otherwise: 10,000 records of 7 KB of zeros, each of which inflates up to the limit, in one turn of the event loop.
 */
import type { IHeaders, KafkaMessage } from 'kafkajs'

/** A record as it is fetched. */
export type FetchedRecord = KafkaMessage & {
  /** Of the last record of a deferred batch: gives back what the batch was inflated to. */
  release?: () => void
  /** Its first header of that name, where that is told without the others. */
  contentType?: string | undefined
}

/** A batch as kafkajs hands it over (patches/): of a batch without gaps, with what its records have in common. */
export type CompressedBatch = {
  compressed: Buffer
  count: number
  /** What stands before the records. Offset and times in decimal, times in ms since 1970. */
  context: { firstOffset: string; firstTimestamp: string; maxTimestamp: string; timestampType: number }
}

/** `timestampType` of a topic whose records have the time at which they were appended, all of a batch the same. */
const LOG_APPEND_TIME = 1

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
  #records: InflatedRecord[] | undefined
  #failure: InflateError | undefined

  constructor(batch: CompressedBatch, inflate: (compressed: Buffer) => Buffer) {
    this.context = batch.context
    this.count = batch.count
    this.#batch = batch
    this.#inflate = inflate
  }

  record(index: number): InflatedRecord {
    if (this.#failure) throw this.#failure
    if (!this.#records) {
      try {
        this.#inflated = this.#inflate(this.#batch.compressed)
        this.#records = recordsOf(this.#inflated, this.#batch)
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

/** Where the next number is read. */
const cursor = { at: 0 }

/** As Kafka's protocol has it: zigzag, 7 bits a byte. */
function varint(bytes: Buffer): number {
  let bits = 0
  let byte: number
  let shift = 0
  do {
    byte = bytes[cursor.at++] ?? 0
    bits |= (byte & 0x7f) << shift
    shift += 7
  } while (byte >= 0x80)
  return (bits >>> 1) ^ -(bits & 1)
}

function varlong(bytes: Buffer): bigint {
  let bits = 0n
  let byte: number
  let shift = 0n
  do {
    byte = bytes[cursor.at++] ?? 0
    bits |= BigInt(byte & 0x7f) << shift
    shift += 7n
  } while (byte >= 0x80)
  return (bits >> 1n) ^ -(bits & 1n)
}

/** @throws Error for what is no records, and so many */
function recordsOf(bytes: Buffer, { count, context }: CompressedBatch): InflatedRecord[] {
  const records: InflatedRecord[] = []
  let at = 0
  for (let i = 0; i < count; i++) {
    cursor.at = at
    const length = varint(bytes)
    at = cursor.at + length
    if (length < 0 || at > bytes.length) throw new Error(`record ${i} of ${count} is cut short`)
    records.push(new InflatedRecord(bytes, at, context))
  }
  return records
}

/** A record of an inflated batch: where its parts are. One that is not there is at -1. */
class InflatedRecord {
  readonly attributes: number
  #bytes: Buffer
  #context: CompressedBatch['context']
  #timestampDelta: bigint | undefined
  #keyAt: number
  #keyEnd: number
  #valueAt: number
  #valueEnd: number
  #headersAt: number

  /** Of what stands at the cursor, up to `end`. */
  constructor(bytes: Buffer, end: number, context: CompressedBatch['context']) {
    this.#bytes = bytes
    this.#context = context
    this.attributes = bytes.readInt8(cursor.at++)
    if (context.timestampType === LOG_APPEND_TIME) varint(bytes)
    else this.#timestampDelta = varlong(bytes)
    // How far its offset is from the first one, which is its place among them.
    varint(bytes)
    const keyBytes = varint(bytes)
    this.#keyAt = keyBytes < 0 ? -1 : cursor.at
    this.#keyEnd = cursor.at += Math.max(0, keyBytes)
    const valueBytes = varint(bytes)
    this.#valueAt = valueBytes < 0 ? -1 : cursor.at
    this.#valueEnd = cursor.at += Math.max(0, valueBytes)
    this.#headersAt = cursor.at
    if (cursor.at > end) throw new Error('a record holds more than it is long')
  }

  get timestamp(): string {
    const { firstTimestamp, maxTimestamp } = this.#context
    return this.#timestampDelta === undefined ? maxTimestamp : String(BigInt(firstTimestamp) + this.#timestampDelta)
  }

  get key(): Buffer | null {
    return this.#keyAt === -1 ? null : this.#bytes.subarray(this.#keyAt, this.#keyEnd)
  }

  get value(): Buffer | null {
    return this.#valueAt === -1 ? null : this.#bytes.subarray(this.#valueAt, this.#valueEnd)
  }

  get headers(): IHeaders {
    const bytes = this.#bytes
    const headers: IHeaders = Object.create(null)
    cursor.at = this.#headersAt
    for (let left = varint(bytes); left > 0; left--) {
      const key = part(bytes).toString()
      const value = part(bytes)
      const known = headers[key]
      headers[key] = known === undefined ? value : [known, value].flat()
    }
    return headers
  }

  get contentType(): string | undefined {
    const bytes = this.#bytes
    cursor.at = this.#headersAt
    for (let left = varint(bytes); left > 0; left--) {
      const key = part(bytes)
      const value = part(bytes)
      if (key.equals(CONTENT_TYPE)) return value.toString('latin1')
    }
    return undefined
  }
}

const CONTENT_TYPE = Buffer.from('content-type')

/** What stands at the cursor, behind its length. */
function part(bytes: Buffer): Buffer {
  const length = Math.max(0, varint(bytes))
  const begin = cursor.at
  cursor.at += length
  return bytes.subarray(begin, cursor.at)
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

  get contentType() {
    return this.#batch.record(this.#index).contentType
  }

  get attributes() {
    return this.#batch.record(this.#index).attributes
  }

  get headers() {
    return this.#batch.record(this.#index).headers
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
