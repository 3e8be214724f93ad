/**
 * Topics: how many partitions each has, looked up in the background, so that a topic that is missing keeps none of the
 * others waiting.
 *
 * Invariants
 * - A lookup has a client of its own: one that fails takes nothing from sends that are under way.
 * - What is known stays known until `forget`; it is looked up afresh now and then, because partitions may be added.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Kafka } from 'kafkajs'
import { protocolError } from './kafka.ts'
import { within } from './within.ts'

export type TopicsEvents = {
  /** The topic has so many partitions: said of one that was not known. */
  found(topic: string, partitions: number): void
  /** A lookup failed and is tried again; `missing` where Kafka answered that there is no such topic. `attempts` have failed in a row. */
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
}

const LIMITS: TopicsLimits = {
  attemptTimeout: 10_000,
  backoff: 100,
  maxBackoff: 2_000,
  forgotten: 500,
  refresh: 60_000,
}

export class Topics {
  #connect: () => Kafka
  #events: TopicsEvents
  #limits: TopicsLimits
  #known = new Map<string, { partitions: number; at: number }>()
  #asking = new Set<string>()
  #stopped = new AbortController()

  /** @param connect makes a client; called for each lookup */
  constructor(connect: () => Kafka, events: TopicsEvents, limits = LIMITS) {
    this.#connect = connect
    this.#events = events
    this.#limits = limits
  }

  /** How many partitions the topic has; undefined until that is `found`. */
  partitions(topic: string): number | undefined {
    const known = this.#known.get(topic)
    if (!known || performance.now() - known.at > this.#limits.refresh) this.#ask(topic, 0)
    return known?.partitions
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
        const partitions = await within(attemptTimeout, this.#lookUp(topic), signal)
        const isNew = !this.#known.has(topic)
        this.#known.set(topic, { partitions, at: performance.now() })
        if (isNew) this.#events.found(topic, partitions)
        return
      } catch (error) {
        signal.throwIfAborted()
        const missing = protocolError(error) === 'UNKNOWN_TOPIC_OR_PARTITION'
        this.#events.failed(topic, error as Error, missing, failures + 1)
        await sleep(Math.min(backoff * 2 ** failures, maxBackoff), undefined, { signal })
      }
    }
  }

  async #lookUp(topic: string): Promise<number> {
    const admin = this.#connect().admin()
    try {
      await admin.connect()
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      const count = topics[0]?.partitions.length ?? 0
      if (count === 0) throw new Error(`topic ${topic} has no partitions`)
      return count
    } finally {
      // May hang with the broker that it hangs on, so it is not waited for.
      admin.disconnect().catch(() => {})
    }
  }
}
