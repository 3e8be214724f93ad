/**
 * Reading a partition apart from any group: from an offset to an offset, to whoever asks. kafkajs reads in groups only, so this sends
 * the fetches itself, and has kafkajs decode the answers as it does for a group.
 */
import type { Kafka, KafkaMessage } from 'kafkajs'
import Batch from 'kafkajs/src/consumer/batch.js'
import { type Cluster, clusterOf } from './cluster.ts'

/** Records of transactions that were not committed are left out, as a member of a group has it. */
const READ_COMMITTED = 1
const FETCH_BYTES = 1024 * 1024
const WAIT_MS = 500
/** So many answers in a row may be empty before what is asked for. */
const EMPTY_ANSWERS = 10

export class PartitionReader {
  #cluster: Cluster

  constructor(kafka: Kafka) {
    this.#cluster = clusterOf(kafka)
  }

  /**
   * The records of a partition from offset `from` up to and without `to`, as many at a time as one fetch brings.
   * @param bounded settles as what it is given does, or rejects once that has taken too long
   * @throws Error where Kafka can't be asked, or does not hold them
   */
  async *read(
    topic: string,
    partition: number,
    from: number,
    to: number,
    bounded: <T>(work: Promise<T>) => Promise<T>,
  ): AsyncGenerator<KafkaMessage[]> {
    if (from >= to) return
    await bounded(this.#cluster.connect())
    await bounded(this.#cluster.addTargetTopic(topic))
    await bounded(this.#cluster.refreshMetadata())
    for (let next = from, empty = 0; next < to; ) {
      const batch = await bounded(this.#fetch(topic, partition, next))
      if (batch.rawMessages.length === 0) {
        if (++empty === EMPTY_ANSWERS)
          throw new Error(`Kafka has no record ${next} of partition ${partition} of ${topic}`)
        continue
      }
      empty = 0
      next = Number(batch.lastOffset()) + 1
      const messages = batch.messages.filter(({ offset }) => Number(offset) < to)
      if (messages.length > 0) yield messages
    }
  }

  /** Lets the connections go. It may hang with a broker that hangs. */
  async close(): Promise<void> {
    await this.#cluster.disconnect()
  }

  async #fetch(topic: string, partition: number, next: number): Promise<Batch> {
    const known = this.#cluster.findTopicPartitionMetadata(topic).find(({ partitionId }) => partitionId === partition)
    if (!known) throw new Error(`topic ${topic} has no partition ${partition}`)
    if (known.leader < 0) throw new Error(`partition ${partition} of topic ${topic} has no leader`)
    const broker = await this.#cluster.findBroker({ nodeId: known.leader })
    const { responses } = await broker.fetch({
      maxWaitTime: WAIT_MS,
      minBytes: 1,
      maxBytes: FETCH_BYTES,
      isolationLevel: READ_COMMITTED,
      topics: [{ topic, partitions: [{ partition, fetchOffset: String(next), maxBytes: FETCH_BYTES }] }],
    })
    const answer = responses[0]?.partitions[0]
    if (!answer) throw new Error(`Kafka said nothing of partition ${partition} of ${topic}`)
    return new Batch(topic, String(next), answer)
  }
}
