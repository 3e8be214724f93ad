/**
 * Many containers: what the driver costs while they say nothing, and while each prints a little; and how long a line takes from its
 * printing to Kafka's acknowledgement. Figures are of the driver alone: its process, and the histogram that it serves.
 */
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { command, removeContainers } from '../test/support/engine.ts'
import { type House, startHouse } from '../test/support/house.ts'
import { ageSeconds } from '../test/support/process-table.ts'
import { until } from '../test/support/until.ts'
import { startGenerator } from './generator.ts'
import { Meter } from './meter.ts'
import type { Row, Table } from './report.ts'
import { rounded } from './report.ts'

const SECONDS = 20
const AT_A_TIME = 10
const LINES_PER_SECOND = 100
/**
 * How long we wait for what starting costs to be over: the containers', and the driver's, which is young: for the first half minute
 * in which it has something to do V8 is busy compiling it, on threads of the same process.
 */
const SETTLE_MS = { quiet: 3_000, printing: 30_000 }

/**
 * `name` tells the figures apart. Two hundred print ten lines at a time: processes that wake up 20,000 times a second in all use up two
 * cores, with what dockerd does for each time, whatever the driver.
 */
const SCENARIOS = [
  { name: 'idle_50', title: '50 that print nothing', containers: 50, atOnce: 0 },
  { name: 'idle_200', title: '200 that print nothing', containers: 200, atOnce: 0 },
  { name: '20_at_100', title: `20 at ${LINES_PER_SECOND} lines/s each`, containers: 20, atOnce: 1 },
  { name: '200_at_100', title: `200 at ${LINES_PER_SECOND} lines/s each, ten at a time`, containers: 200, atOnce: 10 },
]
type Scenario = (typeof SCENARIOS)[number]

/** A new pipe's size, by F_GETPIPE_SZ: 65,536 unless somebody used up what the kernel grants root. */
const PIPE_SIZE = 'pipe my $r, my $w; print fcntl $r, 1032, 0'

type Measured = {
  /** Of a core, in percent. */
  cpu: number
  megabytes: number
  linesPerSecond: number
  latency: ((quantile: number) => number) | undefined
  /** Of a new pipe in one of the containers. */
  pipeBytes: number
  /** From the start of a driver to its first answer, with all these runs to take up again, s. */
  startSeconds: number
}

export const manyContainers: Row = {
  async measure(tell) {
    tell('starting Kafka, consumer and plugin')
    await using house = await startHouse('bench-many')
    const rows: Table['rows'] = []
    const figures: Record<string, number> = {}
    for (const scenario of SCENARIOS) {
      const { name, title } = scenario
      const measured = await measure(house, scenario)
      const { cpu, megabytes, linesPerSecond, latency } = measured
      tell(`${title}: ${cpu.toFixed(2)} % of a core, ${megabytes.toFixed(0)} MB`)
      const [p50, p99] = [latency?.(0.5), latency?.(0.99)]
      rows.push([title, cpu, megabytes, linesPerSecond, p50, p99])
      figures[`driver_cpu_percent_${name}`] = rounded(cpu)
      figures[`driver_peak_rss_mb_${name}`] = rounded(megabytes)
      figures[`pipe_bytes_${name}`] = measured.pipeBytes
      figures[`start_s_${name}`] = rounded(measured.startSeconds)
      if (p50 !== undefined) figures[`ack_latency_p50_ms_${name}`] = rounded(p50)
      if (p99 !== undefined) figures[`ack_latency_p99_ms_${name}`] = rounded(p99)
    }
    const columns = ['driver, % of a core', 'driver MB', 'lines/s', 'ack p50 ms', 'ack p99 ms']
    return { table: { title: `Many containers, over ${SECONDS} s each.`, columns, rows }, figures }
  },
}

async function measure(house: House, { name, containers, atOnce }: Scenario): Promise<Measured> {
  const modules = Array.from({ length: containers }, (_, i) => `${name}-${i}`)
  await Readable.from(modules).forEach(
    async (module: string) => {
      await startGenerator(house, module, atOnce, LINES_PER_SECOND / atOnce)
    },
    { concurrency: AT_A_TIME },
  )
  try {
    await until('all runs are open', async () => (await house.samples())['tallyman_driver_runs_open'] === containers)
    await sleep(atOnce > 0 ? SETTLE_MS.printing : SETTLE_MS.quiet)
    const before = await house.samples()
    const meter = new Meter({ driver: [house.plugin.pid] })
    await sleep(SECONDS * 1000)
    const usage = meter.read()
    const after = await house.samples()
    const of = (sample: string) => after[sample]! - (before[sample] ?? 0)
    const pipeBytes = Number(await command('docker', 'exec', `${house.id}-${name}-0`, 'perl', '-e', PIPE_SIZE))
    const startSeconds = await restart(house)
    return {
      cpu: (usage.cpuSeconds.driver / SECONDS) * 100,
      megabytes: usage.peakMegabytes.driver,
      linesPerSecond: of('tallyman_driver_lines_shipped_total') / SECONDS,
      latency: atOnce > 0 ? quantiles(after, before) : undefined,
      pipeBytes,
      startSeconds,
    }
  } finally {
    await removeContainers('generator')
  }
}

/** Kills the driver. @returns how old its successor is when it answers, s */
async function restart(house: House): Promise<number> {
  await house.plugin.killed()
  return ageSeconds(house.plugin.pid)
}

/** Quantiles of what was observed between two readings, ms; within a bucket they are interpolated. */
function quantiles(after: Record<string, number>, before: Record<string, number>): (quantile: number) => number {
  const buckets = Object.entries(after)
    .flatMap(([name, count]) => {
      const bound = /^tallyman_driver_ack_latency_seconds_bucket\{le="([^"]+)"\}$/.exec(name)?.[1]
      return bound === undefined
        ? []
        : [{ bound: Number(bound.replace('+Inf', 'Infinity')) * 1000, count: count - (before[name] ?? 0) }]
    })
    .sort((a, b) => a.bound - b.bound)
  return (quantile) => {
    const rank = quantile * buckets.at(-1)!.count
    const at = buckets.findIndex(({ count }) => count >= rank)
    const below = buckets[at - 1] ?? { bound: 0, count: 0 }
    const { bound, count } = buckets[at]!
    // Beyond the last bound nothing is known but that it is beyond.
    const upper = Number.isFinite(bound) ? bound : below.bound
    return below.bound + ((upper - below.bound) * (rank - below.count)) / (count - below.count)
  }
}
