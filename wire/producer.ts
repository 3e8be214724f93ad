/**
 * Sending to Kafka, with what kafkajs leaves to its caller.
 *
 * Invariants
 * - Every record names its partition, and one attempt is in flight at a time: kafkajs loses and doubles records that it
 *   may spread itself, or that overlap with a lost connection.
 * - An attempt counts only when the reply holds an entry for each partition, with error 0 and a base offset: kafkajs resolves
 *   with an empty reply for a partition that its metadata does not know.
 * - What one broker can't take keeps nothing from the others: kafkajs (patches/) sends to each broker that it can reach, and tells with
 *   its error what was stored.
 * - After an attempt that failed, or did not settle in time, the client is thrown away and its connections are cut. A new one asks for
 *   metadata afresh and shares no half-dead connection, which is what kafkajs 2 does not manage by itself. An attempt that was given
 *   up has nothing but the old one, and so sends nothing beside its successor.
 * - A late success of an attempt that was given up stores a second copy. Line numbers make it recognisable.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Kafka, type Producer as KafkaProducer, Partitioners, type RecordMetadata } from 'kafkajs'
import { COMPRESSIONS, type Compression, protocolError } from './kafka.ts'
import { Sockets } from './sockets.ts'
import { within } from './within.ts'

export type OutgoingRecord = {
  partition: number
  key: string
  headers: Record<string, string>
  value: Buffer<ArrayBuffer>
}

/** Takes a key out of a compacted topic. */
export type Tombstone = Omit<OutgoingRecord, 'value'> & { value: null }

export type ProducerEvents = {
  /** An attempt failed; nothing is lost, it is tried again. `attempts` have failed in a row. */
  failed(error: Error, attempts: number): void
  /** An attempt succeeded after `attempts` failures, `ms` after the first of them. */
  recovered(attempts: number, ms: number): void
}

/** Kafka will not take these records as they are: sending them again as they are is no use. */
export class RefusedError extends Error {
  override name = 'RefusedError'
  /**
   * `too-large` for a broker's limit; `no-partition`: there is no such topic or partition (any more), or not for us; `no-leader`: nobody
   * takes records for some partitions at present, or they are not there any more.
   */
  readonly reason: 'too-large' | 'no-partition' | 'no-leader'
  /** Partitions whose records are acknowledged all the same. Nothing of the others may count as sent. */
  readonly acknowledged: ReadonlySet<number>
  constructor(reason: RefusedError['reason'], message: string, acknowledged: ReadonlySet<number> = new Set()) {
    super(message)
    this.reason = reason
    this.acknowledged = acknowledged
  }
}

/** What kafkajs says of a partition that was sent to. */
type Reply = Pick<RecordMetadata, 'topicName' | 'partition' | 'errorCode' | 'baseOffset'>

/** Of an attempt that failed when brokers were sent to: what those said that answered. Undefined for one that failed before. */
function repliesOf(error: unknown): Reply[] | undefined {
  const { replies, cause } = error as { replies?: Reply[]; cause?: unknown }
  return replies ?? (cause ? repliesOf(cause) : undefined)
}

/** Errors of the protocol that the same records would meet again. Others go away by themselves. */
const REFUSALS: Record<string, RefusedError['reason']> = {
  MESSAGE_TOO_LARGE: 'too-large',
  RECORD_LIST_TOO_LARGE: 'too-large',
  UNKNOWN_TOPIC_OR_PARTITION: 'no-partition',
  TOPIC_AUTHORIZATION_FAILED: 'no-partition',
  INVALID_TOPIC_EXCEPTION: 'no-partition',
}

export type ProducerOptions = {
  compression: Compression
  /** Who has to have a record before it counts as sent: all in-sync replicas, or the leader alone. */
  acks: 'all' | 'leader'
  /** A send ends as refused where some partitions have no leader. Without it that is tried again as any failure is. */
  inPart?: boolean
}

export type ProducerLimits = {
  /** An attempt that has not settled after this long is given up, ms. */
  attemptTimeout: number
  /** Pause after the first failure in a row, doubled with each further one up to `maxBackoff`, ms. */
  backoff: number
  maxBackoff: number
}

const LIMITS: ProducerLimits = { attemptTimeout: 10_000, backoff: 100, maxBackoff: 2_000 }

/** A client, and what it sends by. */
type Client = { sockets: Sockets; producer: KafkaProducer; connected: boolean }

export class Producer {
  #connect: (sockets: Sockets) => Kafka
  #events: ProducerEvents
  #options: ProducerOptions
  #limits: ProducerLimits
  #client: Client | undefined
  #stopped = new AbortController()

  /** @param connect makes a client that has its connections from these; called again after each failed attempt */
  constructor(connect: (sockets: Sockets) => Kafka, events: ProducerEvents, options: ProducerOptions, limits = LIMITS) {
    this.#connect = connect
    this.#events = events
    this.#options = options
    this.#limits = limits
  }

  /**
   * Resolves once every record is acknowledged, however long that takes.
   * @returns how many attempts failed before: after a failure kafkajs may still hold the records' buffers
   * @throws RefusedError when Kafka will not take them as they are
   * @throws Error after `stop`
   */
  async send(topic: string, records: (OutgoingRecord | Tombstone)[]): Promise<number> {
    const { signal } = this.#stopped
    const { attemptTimeout, backoff, maxBackoff } = this.#limits
    let since = 0
    for (let failures = 0; ; failures++) {
      signal.throwIfAborted()
      try {
        this.#client ??= this.#create()
        await within(attemptTimeout, this.#attempt(this.#client, topic, records), signal)
        if (failures > 0) this.#events.recovered(failures, performance.now() - since)
        return failures
      } catch (error) {
        signal.throwIfAborted()
        const refused = error instanceof RefusedError ? error : undefined
        if (refused?.reason !== 'too-large') this.#discard()
        if (refused && (refused.reason !== 'no-leader' || this.#options.inPart)) throw refused
        if (failures === 0) since = performance.now()
        this.#events.failed(error as Error, failures + 1)
        await sleep(Math.min(backoff * 2 ** failures, maxBackoff), undefined, { signal })
      }
    }
  }

  /** Ends what is under way; what is not acknowledged by now is not counted as sent. */
  stop(): void {
    this.#stopped.abort(new Error('the producer was stopped'))
    this.#discard()
  }

  /** @throws RefusedError, or what kafkajs throws */
  async #attempt(client: Client, topic: string, records: (OutgoingRecord | Tombstone)[]): Promise<void> {
    const { replies, error } = await this.#sent(client, topic, records).then(
      (replies) => ({ replies, error: undefined }),
      (error: Error) => ({ replies: repliesOf(error), error }),
    )
    const acknowledged = new Set<number>()
    for (const { topicName, partition, errorCode, baseOffset } of replies ?? []) {
      if (topicName === topic && errorCode === 0 && Number(baseOffset ?? -1) >= 0) acknowledged.add(partition)
    }
    const rest = records.find(({ partition }) => !acknowledged.has(partition))
    if (!rest) return
    const refusal = REFUSALS[protocolError(error ?? {}) ?? '']
    if (refusal !== undefined) throw new RefusedError(refusal, error!.message, acknowledged)
    if (error && !replies) throw error
    const said = error?.message ?? 'it has no leader, or is not there any more'
    const message = `Kafka did not acknowledge partition ${rest.partition} of topic ${topic}: ${said}`
    throw new RefusedError('no-leader', message, acknowledged)
  }

  #create(): Client {
    const sockets = new Sockets()
    const producer = this.#connect(sockets).producer({
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner,
      retry: { retries: 0 },
    })
    return { sockets, producer, connected: false }
  }

  async #sent(client: Client, topic: string, records: (OutgoingRecord | Tombstone)[]): Promise<Reply[]> {
    if (!client.connected) await client.producer.connect()
    client.connected = true
    // It may have taken so long that the attempt was given up, and the next one has sent the records.
    if (client !== this.#client) throw new Error('the attempt was given up')
    const { compression, acks } = this.#options
    return client.producer.send({
      topic,
      messages: records,
      acks: acks === 'all' ? -1 : 1,
      compression: COMPRESSIONS[compression],
      timeout: 30_000,
    })
  }

  /**
   * Lets the client go. Its disconnecting may hang with the broker that it hangs on, so it is not waited for; and a peer that takes
   * connections and never closes one would keep its end of each.
   */
  #discard(): void {
    const client = this.#client
    this.#client = undefined
    client?.producer.disconnect().catch(() => {})
    client?.sockets.cut()
  }
}
