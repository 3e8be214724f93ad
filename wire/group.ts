/**
 * Membership in a consumer group, over a kafkajs client that is thrown away as soon as it stands still.
 *
 * kafkajs waits for a broker that hangs (a machine that swaps, a process that is stopped) with everything that it reads, and there are
 * ways in which it stands still for good and says nothing. So it is watched, and what stands still is left behind, with nothing
 * of it waited for: a new client, of seeds that answer, joins in its place. It stands still when
 *   a request stays without an answer for STILL_MS,
 *   a partition has records, by a count that is not the consumer's own, and none came for STILL_MS,
 *   nothing at all was heard for SILENT_MS, or kafkajs gave up.
 *
 * Invariants
 * - Of two clients only the newest is listened to, and can speak: the earlier one's connections are cut, and what of it is
 *   on the way still is refused by Kafka once the new one has joined.
 * - Partitions that the group gives are paused until `begin` says where each goes on.
 * - Commits are made with what a batch brings, while its handler runs, and in no other way: kafkajs's own commit from outside tries
 *   again in another generation, and moves the group back.
 * - A commit whose fate is unknown ends the client: it may be stored late, behind a later one, and move the group back. In the
 *   generation that follows it is refused.
 * - After one that stood still the next few are given a part of the time, because what they wait for is that Kafka itself notices. Where
 *   they come to nothing as well it is given more and more, so that a Kafka that is slow is not asked ever more.
 */
import type { ConnectionOptions } from 'node:tls'
import type { Admin, Consumer, EachBatchPayload, Kafka, KafkaMessage } from 'kafkajs'
import { type Clock, realClock } from './clock.ts'
import { coordinatorOf, protocolError } from './kafka.ts'
import { PartitionReader } from './partition-reader.ts'
import { answers } from './seeds.ts'
import { Sockets } from './sockets.ts'
import { within } from './within.ts'

/** Kafka's default for the shortest allowed. */
const SESSION_MS = 6_000
const REBALANCE_MS = 10_000
const FETCH_WAIT_MS = 250
/**
 * A member learns by its heartbeat that the group has changed: a take-over waits for that. kafkajs thinks of it after each fetch, and of one
 * that takes longer than a fetch may after every other.
 */
const HEARTBEAT_MS = FETCH_WAIT_MS
/** Partitions that are added, and leaders that moved, are noticed after this long. */
const METADATA_MS = 10_000
/** As many partitions are worked on at a time: each waits in its handler until the round that holds it is over. */
const CONCURRENT_PARTITIONS = 64
const LEAVE_MS = 3_000
/** Answers to a commit that leave open whether it is stored. */
const UNCERTAIN = ['REQUEST_TIMED_OUT', 'UNKNOWN']
/** So many clients in a row are given this part of the time: for longer than Kafka takes to see that a broker is gone. */
const HASTY_CLIENTS = 10
const HASTE = 0.3
/** One that has lived for this long is given all of it, ms. */
const HASTY_MS = 30_000

export type GroupLimits = {
  /** A request, or a partition that has records, may stand still for this long, ms. */
  still: number
  /** And so long at most, after many clients that came to nothing. */
  mostStill: number
  /** How long nothing at all may be heard, and how long joining may take, ms. */
  silent: number
  /** How often it is looked, ms. */
  look: number
  /** Pause before the next client, ms. */
  backoff: number
}

const LIMITS: GroupLimits = { still: 5_000, mostStill: 60_000, silent: 20_000, look: 1_000, backoff: 500 }

export type GroupCommit = { partition: number; offset: number; metadata: string }

export type GroupBatch = {
  partition: number
  messages: KafkaMessage[]
  /** The offset that the next record of the partition gets. */
  high: number
  /** Commits, for any partition of ours. @throws Error when Kafka refuses, or does not say whether it took them */
  commit(commits: GroupCommit[]): Promise<void>
  heartbeat(): Promise<void>
}

export type GroupEvents = {
  /** A new client is connected and about to join. */
  connected(kafka: Kafka, admin: Admin): Promise<void>
  /** The group knows us by this id. */
  joined(memberId: string): void
  /** We have these partitions, and no others any more; none of them is read before `begin`. */
  assigned(partitions: number[]): void
  /** These of our partitions have no leader, or none that can be reached: they bring nothing at present. Told again and again, none as well. */
  leaderless(partitions: number[]): void
  /** @returns whether the batch is dealt with; if not, it comes again */
  batch(batch: GroupBatch): Promise<boolean>
  /** What we had is not ours any more, and a new client is made. May throw: then that is the end, and what `start` throws. */
  away(error: Error): void
}

/** What Kafka holds of a partition: its first offset, and the one that the next record will get. */
export type Extent = { low: number; high: number }

/** How far a partition is dealt with, and since when that has not changed while there was more; `busy`: since when a batch is worked on. */
type Position = { next: number; since: number; busy: number | undefined }

type Client = {
  kafka: Kafka
  sockets: Sockets
  admin: Admin
  consumer: Consumer
  reader: PartitionReader
  /** How long a request or a partition may stand still, ms, and so long it is less, as long as it is `young`. */
  still: number
  hasty: boolean
  born: number
  /** Since when a broker, by its id, has a fetch that it has not answered. */
  fetching: Map<number, number>
  positions: Map<number, Position>
  /** When something was heard of it. */
  heard: number
  /** Whether a batch was dealt with. */
  moved: boolean
  /** Aborted, with the reason, when it is to be left behind. */
  end: AbortController
  /** Aborted then, and at the end of everything. */
  ended: AbortSignal
}

export type GroupOptions = {
  /** Makes a client. @param requestTimeout how long a request may stay unanswered, ms. @param sockets where its connections are from */
  connect(requestTimeout: number, sockets: Sockets): Kafka
  /** How the brokers speak TLS, where they do. */
  tls?: ConnectionOptions | undefined
  groupId: string
  topic: string
  /** Bytes, compressed, that one fetch may bring. */
  fetchBytes: number
}

export class Group {
  #options: GroupOptions
  #limits: GroupLimits
  #clock: Clock
  #events!: GroupEvents
  #client: Client | undefined
  #stopped = new AbortController()
  #life: Promise<void> | undefined

  constructor(options: GroupOptions, limits = LIMITS, clock = realClock) {
    this.#options = options
    this.#limits = limits
    this.#clock = clock
  }

  /** Joins, however long that takes, and stays until `stop`. @throws what `away` throws */
  start(events: GroupEvents): Promise<void> {
    this.#events = events
    const joined = Promise.withResolvers<void>()
    this.#life = this.#live(joined.resolve).catch(joined.reject)
    return joined.promise
  }

  /** Leaves the group. @returns whether it was left in good order */
  async stop(): Promise<boolean> {
    const client = this.#client
    this.#stopped.abort(new Error('the consumer was stopped'))
    await this.#life
    if (!client) return true
    const leaving = Promise.all([client.consumer.disconnect(), client.admin.disconnect(), client.reader.close()])
    return within(LEAVE_MS, leaving, new AbortController().signal).then(
      () => true,
      () => false,
    )
  }

  /** What the group has committed, by partition; −1 where that is nothing. */
  async commits(): Promise<Map<number, { offset: number; metadata: string | null }>> {
    const { groupId, topic } = this.#options
    const client = this.#present()
    const [found] = await this.#bounded(client, client.admin.fetchOffsets({ groupId, topics: [topic] }))
    return new Map(
      found?.partitions.map(({ partition, offset, metadata }) => [partition, { offset: Number(offset), metadata }]),
    )
  }

  /** What Kafka holds of each partition of a topic; undefined for one that has no leader, or none that can be reached. */
  async extents(topic = this.#options.topic): Promise<Map<number, Extent | undefined>> {
    const client = this.#present()
    const found = await this.#bounded(client, client.admin.fetchTopicOffsets(topic))
    return new Map(
      found.map(({ partition, low, high }) => [
        partition,
        Number(high) < 0 ? undefined : { low: Number(low), high: Number(high) },
      ]),
    )
  }

  /** Records of a partition, apart from what the group reads: those from offset `from` up to and without `to`. */
  async *read(
    partition: number,
    from: number,
    to: number,
    topic = this.#options.topic,
  ): AsyncGenerator<KafkaMessage[]> {
    const client = this.#present()
    const { reader, kafka } = client
    try {
      yield* reader.read(topic, partition, from, to, (work) => this.#bounded(client, work))
    } catch (error) {
      // Whoever tries again does so over connections of which nothing is waited for.
      if (client.reader === reader) {
        client.reader = new PartitionReader(kafka)
        reader.close().catch(() => {})
      }
      throw error
    }
  }

  /** Goes on with what was assigned. @param starts offset of the next record, by partition */
  begin(starts: ReadonlyMap<number, number>): void {
    const { topic } = this.#options
    const { consumer, positions } = this.#present()
    for (const [partition, next] of starts) {
      consumer.seek({ topic, partition, offset: String(next) })
      positions.set(partition, { next, since: this.#clock.now(), busy: undefined })
    }
    if (starts.size > 0) consumer.resume([{ topic, partitions: [...starts.keys()] }])
  }

  #present(): Client {
    if (!this.#client) throw new Error('there is no connection to Kafka')
    return this.#client
  }

  /** Settles as `work` does, unless the client is left behind meanwhile. */
  #bounded<T>(client: Client, work: Promise<T>): Promise<T> {
    return within(this.#patience(client), work, client.ended)
  }

  async #live(joined: () => void): Promise<void> {
    const { signal } = this.#stopped
    const { silent, backoff } = this.#limits
    for (let vain = 0; !signal.aborted; ) {
      const client = this.#make(vain)
      this.#client = client
      const watch = setInterval(() => void this.#look(client), this.#limits.look)
      try {
        await within(silent, this.#join(client), client.ended)
        joined()
        await aborted(client.ended)
      } catch (error) {
        if (signal.aborted) return
        vain = client.moved ? 1 : vain + 1
        this.#client = undefined
        client.sockets.cut()
        for (const part of [client.consumer, client.admin]) part.disconnect().catch(() => {})
        this.#events.away(error as Error)
      } finally {
        clearInterval(watch)
      }
      await this.#clock.sleep(backoff, signal).catch(() => {})
    }
  }

  /** How long it may stand still now, ms. */
  #patience({ hasty, born, still }: Client): number {
    return hasty && this.#clock.now() - born < HASTY_MS ? still * HASTE : still
  }

  /** @param vain how many clients in a row came to nothing */
  #make(vain: number): Client {
    const hasty = vain > 0 && vain <= HASTY_CLIENTS
    const still = Math.min(this.#limits.still * 2 ** Math.max(0, vain - HASTY_CLIENTS), this.#limits.mostStill)
    const { connect, groupId, fetchBytes } = this.#options
    const sockets = new Sockets()
    const kafka = connect(still, sockets)
    const end = new AbortController()
    return {
      ...{
        kafka,
        sockets,
        still,
        hasty,
        end,
        born: this.#clock.now(),
        fetching: new Map(),
        ended: AbortSignal.any([end.signal, this.#stopped.signal]),
      },
      ...{ positions: new Map(), heard: this.#clock.now(), moved: false },
      admin: kafka.admin({ retry: { retries: 1 } }),
      reader: new PartitionReader(kafka),
      consumer: kafka.consumer({
        groupId,
        sessionTimeout: SESSION_MS,
        heartbeatInterval: HEARTBEAT_MS,
        rebalanceTimeout: REBALANCE_MS,
        maxWaitTimeInMs: FETCH_WAIT_MS,
        maxBytes: fetchBytes,
        metadataMaxAge: METADATA_MS,
        allowAutoTopicCreation: false,
        retry: { retries: 5, initialRetryTime: 100, maxRetryTime: 1_000, restartOnFailure: async () => false },
      }),
    }
  }

  async #join(client: Client): Promise<void> {
    const { consumer, admin } = client
    const { topic } = this.#options
    const { GROUP_JOIN, HEARTBEAT, FETCH_START, FETCH, END_BATCH_PROCESS, CRASH, REQUEST_TIMEOUT } = consumer.events
    const hear = () => {
      client.heard = this.#clock.now()
    }
    consumer.on(FETCH_START, ({ payload }) => void client.fetching.set(payload.nodeId, this.#clock.now()))
    consumer.on(FETCH, ({ payload }) => {
      client.fetching.delete(payload.nodeId)
      hear()
    })
    consumer.on(HEARTBEAT, hear)
    consumer.on(END_BATCH_PROCESS, ({ payload: { topic: of, partition, batchSize, lastOffset } }) => {
      // What holds nothing but control records, or what was aborted, kafkajs deals with and tells no handler. What a handler had is
      // told here too, whether it is dealt with or not.
      const position = client.positions.get(partition)
      if (of !== topic || batchSize > 0 || !position) return
      position.next = Math.max(position.next, Number(lastOffset) + 1)
      position.since = this.#clock.now()
    })
    consumer.on(CRASH, ({ payload }) => client.end.abort(payload.error))
    consumer.on(REQUEST_TIMEOUT, ({ payload: { broker, apiName } }) =>
      client.end.abort(new Error(`broker ${broker} did not answer ${apiName} within ${client.still} ms`)),
    )
    consumer.on(GROUP_JOIN, ({ payload }) => {
      hear()
      if (client !== this.#client) return
      const partitions = payload.memberAssignment[topic] ?? []
      client.positions = new Map()
      client.fetching.clear()
      if (partitions.length > 0) consumer.pause([{ topic, partitions }])
      this.#events.joined(payload.memberId)
      this.#events.assigned(partitions)
    })
    await this.#bounded(client, admin.connect())
    await this.#events.connected(client.kafka, admin)
    await this.#bounded(client, this.#ping(client))
    await this.#bounded(client, consumer.connect())
    await this.#bounded(client, consumer.subscribe({ topic, fromBeginning: true }))
    hear()
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: CONCURRENT_PARTITIONS,
      eachBatch: (payload) => this.#batch(client, payload),
    })
  }

  /** A coordinator that hangs is not asked: joining may take long for a good reason, and a bad one would not be told from that. */
  async #ping(client: Client): Promise<void> {
    const { groupId, topic, tls } = this.#options
    const coordinator = await coordinatorOf(client.kafka, groupId, topic)
    if (await answers(coordinator, tls, this.#patience(client))) return
    throw new Error(`broker ${coordinator}, which coordinates the group, does not answer`)
  }

  async #batch(client: Client, payload: EachBatchPayload): Promise<void> {
    const { batch, resolveOffset, heartbeat, commitOffsetsIfNecessary, isRunning, isStale } = payload
    const { positions } = client
    const position = positions.get(batch.partition)
    // Fetched before we knew where to go on: not resolved, so it is fetched again from there.
    if (client !== this.#client || !position || !isRunning() || isStale()) return
    position.busy = this.#clock.now()
    try {
      const landed = await this.#events.batch({
        partition: batch.partition,
        messages: batch.messages,
        high: Number(batch.highWatermark),
        commit: (commits) => {
          const partitions = commits.map(({ offset, ...commit }) => ({ ...commit, offset: String(offset) }))
          return this.#commit(client, commitOffsetsIfNecessary({ topics: [{ topic: batch.topic, partitions }] }))
        },
        heartbeat,
      })
      if (!landed) return
      resolveOffset(batch.lastOffset())
      position.next = Number(batch.lastOffset()) + 1
      client.moved = true
    } finally {
      position.busy = undefined
      position.since = this.#clock.now()
    }
    await heartbeat()
  }

  async #commit(client: Client, committing: Promise<void>): Promise<void> {
    try {
      await this.#bounded(client, committing)
    } catch (error) {
      const refusal = protocolError(error)
      if (refusal === undefined || UNCERTAIN.includes(refusal)) client.end.abort(error)
      throw error
    }
  }

  /** Looks whether the client stands still, and ends it then. */
  async #look(client: Client): Promise<void> {
    const now = this.#clock.now()
    const { silent, look } = this.#limits
    const still = this.#patience(client)
    const quiet = now - client.heard
    if (quiet > silent) client.end.abort(new Error(`nothing was heard of Kafka for ${Math.round(quiet)} ms`))
    for (const [node, since] of client.fetching) {
      if (now - since > still)
        client.end.abort(new Error(`broker ${node} has not answered a fetch for ${Math.round(now - since)} ms`))
    }
    const positions = [...client.positions]
    // One that is worked on for long, as while the disk refuses, keeps kafkajs from fetching others: that is our own doing.
    if (positions.some(([, { busy }]) => busy !== undefined && now - busy > look)) {
      for (const [, position] of positions) position.since = now
      return
    }
    // Nobody is asked while all moves.
    const waiting = positions.filter(([, { busy, since }]) => busy === undefined && now - since > still - look)
    if (waiting.length === 0) return
    const extents = await this.extents().catch(() => undefined)
    if (!extents) return
    const held = new Set(positions.map(([partition]) => partition))
    this.#events.leaderless([...extents].flatMap(([partition, of]) => (!of && held.has(partition) ? [partition] : [])))
    for (const [partition, position] of waiting) {
      const high = extents.get(partition)?.high
      if (position.busy !== undefined) continue
      // Nothing comes of one that has no leader: what comes once it has one is waited for from then on.
      if (high === undefined || high <= position.next) position.since = now
      else if (now - position.since > still) {
        const ms = Math.round(now - position.since)
        client.end.abort(new Error(`partition ${partition} stands at ${position.next} of ${high} for ${ms} ms`))
      }
    }
  }
}

const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })
