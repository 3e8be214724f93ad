/**
 * What stands around a chunk in Kafka: key, headers and partition, so that readers that are not ours can route and
 * filter without decoding the value.
 */
import { Partitioners } from 'kafkajs'

/** Value of the `content-type` header of a record that holds a chunk. */
export const CHUNK_CONTENT_TYPE = 'application/vnd.tallyman.chunk+msgpack'

/** Name of the topic unless the settings say otherwise. */
export const DEFAULT_TOPIC = 'tallyman'

export const recordKey = (service: string, module: string): string => `${service}/${module}`

export const recordHeaders = (names: { service: string; module: string; host: string }): Record<string, string> => ({
  'content-type': CHUNK_CONTENT_TYPE,
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
