/**
 * What the thread for shipping counts, and how it finds Kafka: in a registry of its own, handed over as text when somebody asks.
 *
 * Invariant: nothing here serves anything. A web server costs the thread that imports it some megabytes.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Acknowledged, JournalState } from './shipper.ts'

/** Whether Kafka takes lines, and since when, ms since 1970. */
export type Health = { kafka: 'reached' | 'away' | 'not asked yet'; since: number }

/** Containers come and go; what is counted by them is bounded by this. */
export const MAX_CONTAINERS = 1_000

/** Seconds from a line's own time to the acknowledgement of the send that carried it. */
const LATENCY_BUCKETS = [
  0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600,
]

/** Resolution of an event loop's delay, ms: a finer one wakes an idle driver more often than all else. */
export const LOOP_DELAY_MS = 100

/** What the thread for shipping counts. */
export class ShippingMetrics {
  health: Health = { kafka: 'not asked yet', since: Date.now() }
  #registry = new Registry()
  #metric = { registers: [this.#registry] }
  #numbered = new Counter({
    name: 'tallyman_driver_lines_in_total',
    help: 'Lines that were read from the journals and numbered. What waits for Kafka there is not read yet.',
    ...this.#metric,
  })
  #lines = new Counter({
    name: 'tallyman_driver_lines_shipped_total',
    help: 'Lines that Kafka has acknowledged.',
    ...this.#metric,
  })
  #bytes = new Counter({
    name: 'tallyman_driver_bytes_shipped_total',
    help: 'Bytes of chunks that Kafka has acknowledged, before compression.',
    ...this.#metric,
  })
  #lost = new Counter({
    name: 'tallyman_driver_lines_lost_total',
    help: 'Lines that were given up, by reason.',
    labelNames: ['reason'],
    ...this.#metric,
  })
  #containerLost = new Counter({
    name: 'tallyman_driver_container_lines_lost_total',
    help: `The same by container, of the ${MAX_CONTAINERS} that lost lines last.`,
    labelNames: ['container', 'reason'],
    ...this.#metric,
  })
  /** Labels that are counted by, those whose last loss was longest ago first. */
  #containers = new Map<string, { container: string; reason: string }>()
  #skipped = new Counter({
    name: 'tallyman_driver_bytes_skipped_total',
    help: 'Bytes of the journal that were no frames of dockerd.',
    ...this.#metric,
  })
  #sends = new Counter({
    name: 'tallyman_driver_sends_total',
    help: 'Sends that Kafka has acknowledged.',
    ...this.#metric,
  })
  #failures = new Counter({
    name: 'tallyman_driver_send_failures_total',
    help: 'Sends that failed and were tried again.',
    ...this.#metric,
  })
  #latency = new Histogram({
    name: 'tallyman_driver_ack_latency_seconds',
    help: "From the times of a chunk's first and last line to its acknowledgement by Kafka.",
    buckets: LATENCY_BUCKETS,
    ...this.#metric,
  })

  /** @param state how the journals stand when somebody asks */
  constructor(state: () => JournalState) {
    const gauge = (name: string, help: string, value: (state: JournalState) => number) =>
      new Gauge({
        name: `tallyman_driver_${name}`,
        help,
        collect() {
          this.set(value(state()))
        },
        ...this.#metric,
      })
    gauge('journal_bytes', 'Bytes of all journals.', ({ bytes }) => bytes)
    gauge('journal_unshipped_bytes', 'Bytes that Kafka has not acknowledged.', ({ unshippedBytes }) => unshippedBytes)
    gauge(
      'journal_oldest_unshipped_seconds',
      'How long the oldest unshipped line has waited.',
      (s) => s.oldestUnshipped,
    )
    gauge('runs_shipping', 'Runs that are open or not shipped to their end.', ({ runs }) => runs)
    const loopDelay = monitorEventLoopDelay({ resolution: LOOP_DELAY_MS })
    loopDelay.enable()
    new Gauge({
      name: 'tallyman_driver_shipping_loop_delay_seconds',
      help: "How late the event loop of the thread for shipping was since the last scrape, by quantile. The main thread's is nodejs_eventloop_lag.",
      labelNames: ['quantile'],
      collect() {
        // What is measured are whole periods.
        for (const quantile of [0.5, 0.99, 1])
          this.set({ quantile }, Math.max(0, loopDelay.percentile(quantile * 100) / 1e9 - LOOP_DELAY_MS / 1e3))
        loopDelay.reset()
      },
      ...this.#metric,
    })
    for (const reason of ['journal-full', 'too-large', 'disk', 'damaged']) this.#lost.inc({ reason }, 0)
  }

  acknowledged({ lines, bytes, times }: Acknowledged): void {
    this.#lines.inc(lines)
    this.#bytes.inc(bytes)
    this.#sends.inc()
    const now = Date.now()
    for (const time of times) this.#latency.observe(Math.max(0, now - time) / 1000)
    if (this.health.kafka !== 'reached') this.health = { kafka: 'reached', since: now }
  }

  /** A send failed and is tried again. */
  failed(): void {
    this.#failures.inc()
    this.away()
  }

  /** Kafka takes nothing of what goes to our own topic. */
  away(): void {
    if (this.health.kafka !== 'away') this.health = { kafka: 'away', since: Date.now() }
  }

  numbered(lines: number): void {
    this.#numbered.inc(lines)
  }

  lost(container: string, reason: string, lines: number): void {
    this.#lost.inc({ reason }, lines)
    const labels = { container, reason }
    this.#containerLost.inc(labels, lines)
    const key = `${container} ${reason}`
    this.#containers.delete(key)
    this.#containers.set(key, labels)
    const [oldest] = this.#containers
    if (!oldest || this.#containers.size <= MAX_CONTAINERS) return
    this.#containers.delete(oldest[0])
    this.#containerLost.remove(oldest[1])
  }

  skipped(bytes: number): void {
    this.#skipped.inc(bytes)
  }

  text(): Promise<string> {
    return this.#registry.metrics()
  }
}
