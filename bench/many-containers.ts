/**
 * Many containers: what the driver costs while they say nothing, and while each prints a little; and how long a line takes from its
 * printing to Kafka's acknowledgement. Figures are of the driver alone: its process, and the histogram that it serves.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { BASE_IMAGE, command, docker, LABEL, removeContainers } from '../test/support/engine.ts'
import { type House, startHouse } from '../test/support/house.ts'
import { ageSeconds } from '../test/support/process-table.ts'
import { until } from '../test/support/until.ts'
import { Meter } from './meter.ts'
import type { Row, Table } from './report.ts'
import { rounded } from './report.ts'

const SECONDS = 20
const AT_A_TIME = 10
const LINES_PER_SECOND = 100
/** How long we wait for what starting containers cost to be over. */
const SETTLE_MS = 3_000

/** `name` tells the figures apart. */
const SCENARIOS = [
  { name: 'idle_50', title: '50 that print nothing', containers: 50, prints: false },
  { name: 'idle_200', title: '200 that print nothing', containers: 200, prints: false },
  { name: '20_at_100', title: `20 at ${LINES_PER_SECOND} lines/s each`, containers: 20, prints: true },
  { name: '200_at_100', title: `200 at ${LINES_PER_SECOND} lines/s each`, containers: 200, prints: true },
] as const

/** A new pipe's size, by F_GETPIPE_SZ: 65,536 unless somebody used up what the kernel grants root. */
const PIPE_SIZE = 'pipe my $r, my $w; print fcntl $r, 1032, 0'

/** Prints lines of 105 bytes, so many a second, until it is stopped. */
const PRINT = `$| = 1; for (;;) { print "x" x 105, "\\n"; select undef, undef, undef, 1 / $ARGV[0] }`

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
    for (const { name, title, containers, prints } of SCENARIOS) {
      const measured = await measure(house, name, containers, prints)
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

async function measure(house: House, name: string, containers: number, prints: boolean): Promise<Measured> {
  const numbers = Array.from({ length: containers }, (_, i) => i)
  const start = async () => {
    for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) {
      const container = await docker.createContainer({
        name: `${house.id}-${name}-${number}`,
        Image: BASE_IMAGE,
        Cmd: prints ? ['perl', '-e', PRINT, String(LINES_PER_SECOND)] : ['sleep', '3600'],
        Labels: { [LABEL]: 'generator' },
        HostConfig: {
          NetworkMode: 'none',
          LogConfig: { Type: house.plugin.name, Config: { service: house.id, module: `${name}-${number}` } },
        },
      })
      await container.start()
    }
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, start))
  try {
    await until('all runs are open', async () => (await house.samples())['tallyman_driver_runs_open'] === containers)
    await sleep(SETTLE_MS)
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
      latency: prints ? quantiles(after, before) : undefined,
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
