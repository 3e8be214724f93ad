/**
 * What stands around a chunk in Kafka: key, headers and partition, so that readers that are not ours can route and
 * filter without decoding the value.
 */
import { type IHeaders, Partitioners } from 'kafkajs'
import { type Chunk, ChunkError, decodeChunk, type RunNames } from './chunk.ts'
import { ChunkReader } from './chunk-reader.ts'
import type { FetchedRecord } from './deferred-records.ts'
import { decodeJsonLine, JSON_CONTENT_TYPE } from './json-line.ts'

/** Value of the `content-type` header of a record that holds a chunk. */
export const CHUNK_CONTENT_TYPE = 'application/vnd.tallyman.chunk+msgpack'

/** Name of the topic unless the settings say otherwise. */
export const DEFAULT_TOPIC = 'tallyman'

export const recordKey = (service: string, module: string): string => `${service}/${module}`

export const recordHeaders = (
  names: { service: string; module: string; host: string },
  contentType = CHUNK_CONTENT_TYPE,
): Record<string, string> => ({
  'content-type': contentType,
  service: names.service,
  module: names.module,
  host: names.host,
})

const partitioner = Partitioners.DefaultPartitioner()

/**
 * The partition of a key among `count`, as Java's default partitioner chooses it (murmur2 of the key's bytes), so that
 * other tools find a module where they expect it.
 */
export function partitionOf(key: string, count: number): number {
  const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({
    partitionErrorCode: 0,
    partitionId,
    leader: 0,
    replicas: [],
    isr: [],
  }))
  return partitioner({ topic: '', partitionMetadata, message: { key, value: null } })
}

const NO_VALUE = 'the record has no value'

/**
 * The lines of a record, in whichever format its headers say; a chunk where they say nothing.
 * @throws ChunkError for a value that is not of that format
 */
export function decodeRecord({ value, headers }: { value: Buffer | null; headers?: IHeaders | undefined }): Chunk {
  if (value === null) throw new ChunkError('invalid-chunk', NO_VALUE)
  return headers?.['content-type']?.toString() === JSON_CONTENT_TYPE ? decodeJsonLine(value) : decodeChunk(value)
}

/** Reads records of many runs, each again and again (chunk-reader.ts). */
export class RecordReader<T> {
  #know: (names: RunNames) => T
  #chunks: ChunkReader<T>

  /** @param know works out what goes with a run's names, as `of` of its chunks */
  constructor(know: (names: RunNames) => T) {
    this.#know = know
    this.#chunks = new ChunkReader(know)
  }

  /** @throws ChunkError as `decodeRecord` does */
  read(record: FetchedRecord): Chunk & { of: T } {
    const { value } = record
    if (value === null) throw new ChunkError('invalid-chunk', NO_VALUE)
    if (contentTypeOf(record) !== JSON_CONTENT_TYPE) return this.#chunks.read(value)
    const chunk = decodeJsonLine(value)
    return { ...chunk, of: this.#know(chunk) }
  }
}

/** What its header says, where the record tells that without all of them. */
const contentTypeOf = (record: FetchedRecord): string | undefined =>
  record.contentType ?? record.headers?.['content-type']?.toString()
