/**
 * Sending to Kafka, with what kafkajs leaves to its caller.
 *
 * Invariants
 * - Every record names its partition, and one attempt is in flight at a time: kafkajs loses and doubles records that it
 *   may spread itself, or that overlap with a lost connection.
 * - An attempt counts only when the reply holds an entry for each partition, with error 0 and a base offset: kafkajs resolves
 *   with an empty reply for a partition that its metadata does not know.
 * - After an attempt that failed, or did not settle in time, the client is thrown away. A new one asks for metadata
 *   afresh and shares no half-dead connection, which is what kafkajs 2 does not manage by itself.
 * - A late success of an attempt that was given up stores a second copy. Line numbers make it recognisable.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Kafka, type Producer as KafkaProducer, Partitioners } from 'kafkajs'
import { ZSTD } from './kafka.ts'

export type OutgoingRecord = {
  topic: string
  partition: number
  key: string
  headers: Record<string, string>
  value: Buffer<ArrayBuffer>
}

export type ProducerEvents = {
  /** An attempt failed; nothing is lost, it is tried again. `attempts` have failed in a row. */
  failed(error: Error, attempts: number): void
  /** An attempt succeeded after `attempts` failures, `ms` after the first of them. */
  recovered(attempts: number, ms: number): void
}

/** Kafka will not take these records as they are: sending them again is no use. Nothing of them may count as sent. */
export class RefusedError extends Error {
  override name = 'RefusedError'
  /** `too-large` for a broker's limit; `no-partition`: the topic does not have that partition (any more). */
  readonly reason: 'too-large' | 'no-partition'
  constructor(reason: RefusedError['reason'], message: string) {
    super(message)
    this.reason = reason
  }
}

/** kafkajs's names of the protocol's errors that say that a batch is too large for a broker. */
const TOO_LARGE = ['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE']

export type ProducerLimits = {
  /** An attempt that has not settled after this long is given up, ms. */
  attemptTimeout: number
  /** Pause after the first failure in a row, doubled with each further one up to `maxBackoff`, ms. */
  backoff: number
  maxBackoff: number
}

const LIMITS: ProducerLimits = { attemptTimeout: 10_000, backoff: 100, maxBackoff: 2_000 }

export class Producer {
  #connect: () => Kafka
  #events: ProducerEvents
  #limits: ProducerLimits
  #producer: KafkaProducer | undefined
  #kafka: Kafka | undefined
  #stopped = new AbortController()

  /** @param connect makes a client; called again after each failed attempt */
  constructor(connect: () => Kafka, events: ProducerEvents, limits = LIMITS) {
    this.#connect = connect
    this.#events = events
    this.#limits = limits
  }

  /** Resolves with the number of partitions of `topic`, however long it takes until Kafka knows it. Rejects after `stop`. */
  partitions(topic: string): Promise<number> {
    return this.#persist(async (kafka) => {
      const admin = kafka.admin()
      await admin.connect()
      try {
        const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
        const count = topics[0]?.partitions.length ?? 0
        if (count === 0) throw new Error(`topic ${topic} has no partitions`)
        return count
      } finally {
        await admin.disconnect()
      }
    })
  }

  /**
   * Resolves once every record is acknowledged by all in-sync replicas, however long that takes.
   * @returns how many attempts failed before: after a failure kafkajs may still hold the records' buffers
   * @throws RefusedError when Kafka will not take them as they are
   * @throws Error after `stop`
   */
  async send(records: OutgoingRecord[]): Promise<number> {
    let failures = -1
    await this.#persist(async (kafka) => {
      failures++
      await this.#attempt(kafka, records)
    })
    return failures
  }

  /** Ends what is under way; what is not acknowledged by now is not counted as sent. */
  async stop(): Promise<void> {
    this.#stopped.abort(new Error('the producer was stopped'))
    await this.#discard()
  }

  async #attempt(kafka: Kafka, records: OutgoingRecord[]): Promise<void> {
    if (!this.#producer) {
      this.#producer = kafka.producer({
        allowAutoTopicCreation: false,
        createPartitioner: Partitioners.DefaultPartitioner,
        retry: { retries: 0 },
      })
      await this.#producer.connect()
    }
    const topicMessages = [...Map.groupBy(records, (record) => record.topic)].map(([topic, ofTopic]) => ({
      topic,
      messages: ofTopic.map(({ partition, key, headers, value }) => ({ partition, key, headers, value })),
    }))
    const reply = await this.#producer.sendBatch({ topicMessages, acks: -1, compression: ZSTD, timeout: 30_000 })
    for (const { topic, partition } of records) {
      const entry = reply.find((r) => r.topicName === topic && r.partition === partition)
      if (entry?.errorCode !== 0 || entry.baseOffset === undefined || Number(entry.baseOffset) < 0) {
        throw new RefusedError('no-partition', `Kafka did not acknowledge partition ${partition} of topic ${topic}`)
      }
    }
  }

  /** Tries until it succeeds. */
  async #persist<T>(attempt: (kafka: Kafka) => Promise<T>): Promise<T> {
    const { signal } = this.#stopped
    let since = 0
    for (let failures = 0; ; failures++) {
      signal.throwIfAborted()
      try {
        this.#kafka ??= this.#connect()
        const result = await this.#inTime(attempt(this.#kafka))
        if (failures > 0) this.#events.recovered(failures, performance.now() - since)
        return result
      } catch (error) {
        signal.throwIfAborted()
        const { type, message } = error as Error & { type?: string }
        if (type !== undefined && TOO_LARGE.includes(type)) throw new RefusedError('too-large', message)
        await this.#discard()
        if (error instanceof RefusedError) throw error
        if (failures === 0) since = performance.now()
        this.#events.failed(error as Error, failures + 1)
        await sleep(Math.min(this.#limits.backoff * 2 ** failures, this.#limits.maxBackoff), undefined, { signal })
      }
    }
  }

  async #inTime<T>(attempt: Promise<T>): Promise<T> {
    const settled = new AbortController()
    const { attemptTimeout } = this.#limits
    const limit = sleep(attemptTimeout, undefined, { signal: AbortSignal.any([settled.signal, this.#stopped.signal]) })
    try {
      return await Promise.race([
        attempt,
        limit.then(() => {
          throw new Error(`Kafka did not answer within ${attemptTimeout} ms`)
        }),
      ])
    } finally {
      settled.abort()
      limit.catch(() => {})
    }
  }

  /** Lets the client go. Its disconnecting may hang with the broker that it hangs on, so it is not waited for. */
  async #discard(): Promise<void> {
    const producer = this.#producer
    this.#producer = undefined
    this.#kafka = undefined
    producer?.disconnect().catch(() => {})
  }
}
