/**
 * Topics: how many partitions each has, and to which of them nobody can send at present, looked up in the background, so that a topic
 * that is missing keeps none of the others waiting.
 *
 * Invariants
 * - A lookup has a client of its own: one that fails takes nothing from sends that are under way.
 * - What is known stays known until `forget`; it is looked up afresh now and then, because partitions may be added, and often while some
 *   have no leader.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Kafka, PartitionMetadata } from 'kafkajs'
import { protocolError } from './kafka.ts'
import { Sockets } from './sockets.ts'
import { within } from './within.ts'

export type TopicsEvents = {
  /** The topic has so many partitions: said of one that was not known. */
  found(topic: string, partitions: number): void
  /** Others than before are the partitions that have no leader, or whose leader takes nothing. */
  leaderless(topic: string, partitions: ReadonlySet<number>): void
  /** A lookup failed and is tried again; `missing` where Kafka answered that there is no such topic for us. `attempts` have failed in a row. */
  failed(topic: string, error: Error, missing: boolean, attempts: number): void
}

export type TopicsLimits = {
  /** A lookup that has not ended after this long is given up, ms. */
  attemptTimeout: number
  /** Pause after the first failure in a row, doubled with each further one up to `maxBackoff`, ms. */
  backoff: number
  maxBackoff: number
  /** Pause before a topic is looked up that Kafka had and then refused, ms. */
  forgotten: number
  /** What is known is looked up afresh after this long, ms. */
  refresh: number
  /** And after so long while partitions have no leader, ms. */
  leaderless: number
}

/** Answers of the protocol about the topic that was asked for, and no other. */
const MISSING = new Set(['UNKNOWN_TOPIC_OR_PARTITION', 'TOPIC_AUTHORIZATION_FAILED', 'INVALID_TOPIC_EXCEPTION'])

type Known = { partitions: number; leaderless: ReadonlySet<number>; at: number }

const NONE: ReadonlySet<number> = new Set()

const LIMITS: TopicsLimits = {
  attemptTimeout: 10_000,
  backoff: 100,
  maxBackoff: 2_000,
  forgotten: 500,
  refresh: 60_000,
  leaderless: 1_000,
}

export class Topics {
  #connect: (sockets: Sockets) => Kafka
  #events: TopicsEvents
  #limits: TopicsLimits
  #known = new Map<string, Known>()
  #asking = new Set<string>()
  #stopped = new AbortController()

  /** @param connect makes a client that has its connections from these; called for each lookup */
  constructor(connect: (sockets: Sockets) => Kafka, events: TopicsEvents, limits = LIMITS) {
    this.#connect = connect
    this.#events = events
    this.#limits = limits
  }

  /** How many partitions the topic has; undefined until that is `found`. */
  partitions(topic: string): number | undefined {
    const known = this.#known.get(topic)
    const { refresh, leaderless } = this.#limits
    const lasting = known && known.leaderless.size > 0 ? leaderless : refresh
    if (!known || performance.now() - known.at > lasting) this.#ask(topic, 0)
    return known?.partitions
  }

  /** Partitions of a topic to which nothing can be sent at present. */
  leaderless(topic: string): ReadonlySet<number> {
    return this.#known.get(topic)?.leaderless ?? NONE
  }

  /** Nobody takes records for these partitions, or they are not there any more: nothing is sent to them until it is known which. */
  lost(topic: string, partitions: Iterable<number>): void {
    const known = this.#known.get(topic)
    if (known) this.#lead(topic, known, new Set([...known.leaderless, ...partitions]))
    this.#ask(topic, this.#limits.forgotten)
  }

  #lead(topic: string, known: Known, leaderless: ReadonlySet<number>): void {
    const before = known.leaderless
    known.leaderless = leaderless
    if (leaderless.symmetricDifference(before).size > 0) this.#events.leaderless(topic, leaderless)
  }

  /** Kafka does not have the topic, or the partition, as it was known: it is unknown until it is found again. */
  forget(topic: string): void {
    this.#known.delete(topic)
    this.#ask(topic, this.#limits.forgotten)
  }

  stop(): void {
    this.#stopped.abort(new Error('the lookup was stopped'))
  }

  #ask(topic: string, delay: number): void {
    if (this.#asking.has(topic) || this.#stopped.signal.aborted) return
    this.#asking.add(topic)
    this.#find(topic, delay)
      // Only a stop ends it without an answer.
      .catch(() => {})
      .finally(() => this.#asking.delete(topic))
  }

  async #find(topic: string, delay: number): Promise<void> {
    const { signal } = this.#stopped
    const { attemptTimeout, backoff, maxBackoff } = this.#limits
    if (delay > 0) await sleep(delay, undefined, { signal })
    for (let failures = 0; ; failures++) {
      try {
        const found = await within(attemptTimeout, this.#lookUp(topic), signal)
        const before = this.#known.get(topic)
        const known: Known = { partitions: found.length, leaderless: before?.leaderless ?? NONE, at: performance.now() }
        this.#known.set(topic, known)
        if (!before) this.#events.found(topic, found.length)
        const leaderless = found.filter(({ leader }) => leader < 0).map(({ partitionId }) => partitionId)
        this.#lead(topic, known, new Set(leaderless))
        return
      } catch (error) {
        signal.throwIfAborted()
        const missing = MISSING.has(protocolError(error) ?? '')
        this.#events.failed(topic, error as Error, missing, failures + 1)
        await sleep(Math.min(backoff * 2 ** failures, maxBackoff), undefined, { signal })
      }
    }
  }

  async #lookUp(topic: string): Promise<Pick<PartitionMetadata, 'partitionId' | 'leader'>[]> {
    const sockets = new Sockets()
    const admin = this.#connect(sockets).admin()
    try {
      await admin.connect()
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      const partitions = topics[0]?.partitions ?? []
      if (partitions.length === 0) throw new Error(`topic ${topic} has no partitions`)
      return partitions
    } finally {
      // May hang with the broker that it hangs on, so it is not waited for.
      admin.disconnect().catch(() => {})
      sockets.cut()
    }
  }
}
