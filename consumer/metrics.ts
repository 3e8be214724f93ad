/** What the operator sees of the consumer: Prometheus metrics, made up when somebody looks, but for the latency. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { LineCount } from './api-schema.ts'
import type { Counts } from './landing.ts'
import { EXPIRED, GAP } from './ledger.ts'
import { DISOWNED } from './ledger-api.ts'

/** Resolution of the event loop's delay, ms: a finer one wakes an idle consumer more often than all else. */
const LOOP_DELAY_MS = 100

/** Seconds from a line's own time to its bytes in the file. */
const LATENCY_BUCKETS = [0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600]

const COUNTED: readonly [keyof Counts, name: string, help: string][] = [
  ['records', 'records_total', 'Records that were read.'],
  ['lines', 'lines_written_total', 'Lines that were written to files.'],
  ['doubled', 'lines_doubled_total', 'Lines that came a second time and were dropped.'],
  ['misdated', 'lines_misdated_total', 'Lines whose own day is not kept: they stand in that of their arrival.'],
  ['undecodable', 'records_undecodable_total', 'Records that could not be decoded and are kept as dead letters.'],
]

/** Why lines are lost, as far as that is known beforehand: 0 from the beginning, so that the first loss is seen to be one. */
const REASONS = [GAP, EXPIRED, DISOWNED, 'journal-full', 'disk', 'too-large', 'damaged']

export class Metrics {
  readonly registry = new Registry()
  #latency: Histogram

  /**
   * @param counts what has landed since the daemon started
   * @param lag records that are not read yet, by partition
   * @param ledger what came of all lines that the ledger knows
   */
  constructor(
    counts: () => Counts,
    lag: () => Iterable<[partition: number, records: number]>,
    ledger: () => Pick<LineCount, 'lostBy' | 'ratio'>,
  ) {
    const registers = [this.registry]
    collectDefaultMetrics({ register: this.registry, eventLoopMonitoringPrecision: LOOP_DELAY_MS })
    for (const [key, name, help] of COUNTED) this.figure(name, help, () => counts()[key])
    new Gauge({
      name: 'tallyman_lag_records',
      help: 'Records that Kafka has and no file yet, as of the last fetch.',
      labelNames: ['partition'],
      registers,
      collect() {
        this.reset()
        for (const [partition, records] of lag()) this.set({ partition }, records)
      },
    })
    new Gauge({
      name: 'tallyman_lines_lost_total',
      help: 'Lines that were numbered and never came, by reason. One that comes late is taken back.',
      labelNames: ['reason'],
      registers,
      collect() {
        this.reset()
        for (const reason of REASONS) this.set({ reason }, 0)
        for (const [reason, lines] of Object.entries(ledger().lostBy)) this.set({ reason }, lines)
      },
    })
    new Gauge({
      name: 'tallyman_loss_ratio',
      help: 'Lines lost by lines numbered.',
      registers,
      collect() {
        this.set(ledger().ratio)
      },
    })
    this.#latency = new Histogram({
      name: 'tallyman_latency_seconds',
      help: "From the time of a chunk's first line to its bytes in the file.",
      buckets: LATENCY_BUCKETS,
      registers,
    })
  }

  /** Adds a figure that is read when somebody looks; the name of one that only grows ends in `_total`. */
  figure(name: string, help: string, read: () => number): void {
    const Kind = name.endsWith('_total') ? Counter : Gauge
    new Kind({
      name: `tallyman_${name}`,
      help,
      registers: [this.registry],
      collect() {
        this.reset()
        this.inc(read())
      },
    })
  }

  /** Chunks are in their files. @param times of their first lines, ms since 1970 */
  landed(times: readonly number[]): void {
    const now = Date.now()
    for (const time of times) this.#latency.observe(Math.max(0, now - time) / 1000)
  }
}
