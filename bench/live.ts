/**
 * Live: what the consumer costs while lines come at the pace of people's containers, how long after its printing a line can be read
 * in its file, and what it costs when many read along. The whole way: container, dockerd, driver, Kafka, consumer, file.
 *
 * A line's time is when dockerd read it from the container's pipe, to the millisecond; its end is when somebody who follows the file has it.
 */
import { get, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stream } from '../cli/api.ts'
import { unpackZstd } from '../cli/zstd.ts'
import type { TailEvent } from '../consumer/api-schema.ts'
import { BATCHES } from '../consumer/event-decoder.ts'
import { removeContainers } from '../test/support/engine.ts'
import { type House, startHouse } from '../test/support/house.ts'
import { dayFiles } from '../test/support/oracle.ts'
import { cpuSeconds } from '../test/support/process-table.ts'
import { until } from '../test/support/until.ts'
import { Arrivals } from './arrivals.ts'
import { figureOf } from './caught-up.ts'
import { startGenerator } from './generator.ts'
import { consumerProgram } from './program.ts'
import { type Row, rounded, type Table } from './report.ts'

const SECONDS = 20
/** How long we wait for what starting containers cost to be over. */
const SETTLE_MS = 5_000
/** Lines come, and are followed, for so long before anything is counted: what is run often, V8 compiles in the first half minute, on threads of the same process. */
const WARM_MS = 30_000
const READERS = 20

type Scenario = { name: string; title: string; containers: number; atOnce: number; perSecond: number; readers?: number }

/** `name` tells the figures apart. */
const SCENARIOS: Scenario[] = [
  { name: 'idle', title: 'nobody prints', containers: 0, atOnce: 0, perSecond: 0 },
  { name: '1_at_200', title: '1 at 200 lines/s', containers: 1, atOnce: 1, perSecond: 200 },
  { name: '1_at_2000', title: '1 at 2,000 lines/s', containers: 1, atOnce: 10, perSecond: 200 },
  { name: '20_at_100', title: '20 at 100 lines/s each', containers: 20, atOnce: 1, perSecond: 100 },
  { name: '1_at_50000', title: '1 at 50,000 lines/s', containers: 1, atOnce: 250, perSecond: 200 },
  { name: '1_at_20000', title: '1 at 20,000 lines/s', containers: 1, atOnce: 100, perSecond: 200 },
  {
    name: '20_readers',
    title: `the same, ${READERS} readers`,
    containers: 1,
    atOnce: 100,
    perSecond: 200,
    readers: READERS,
  },
]

type Measured = {
  /** Of a core, in percent. */
  cpu: number
  linesPerSecond: number
  latency: ((quantile: number) => number) | undefined
  /** The part of the lines that the slowest reader got meanwhile; what it gets is merged by time, a little later. */
  keptUp: number
}

export const live: Row = {
  async measure(tell) {
    const rows: Table['rows'] = []
    const figures: Record<string, number> = {}
    const measure = async (house: House, scenario: Scenario): Promise<Measured> => {
      const measured = await measureScenario(house, scenario)
      const { cpu, linesPerSecond, latency } = measured
      const [p50, p99] = [latency?.(0.5), latency?.(0.99)]
      tell(`${scenario.title}: ${cpu.toFixed(2)} % of a core, p50 ${p50} ms, p99 ${p99} ms`)
      rows.push([
        scenario.title,
        cpu,
        linesPerSecond,
        linesPerSecond > 0 ? (cpu / 100 / linesPerSecond) * 1e6 : undefined,
        p50,
        p99,
      ])
      figures[`consumer_cpu_percent_${scenario.name}`] = rounded(cpu)
      if (p50 !== undefined) figures[`latency_p50_ms_${scenario.name}`] = p50
      if (p99 !== undefined) figures[`latency_p99_ms_${scenario.name}`] = p99
      return measured
    }
    tell('starting Kafka, consumer and plugin')
    {
      await using house = await startHouse('bench-live', { program: consumerProgram() })
      const [watched] = await startAll(house, 'warming', { containers: 20, atOnce: 1, perSecond: 100 })
      const gone = new AbortController()
      followAll(house, watched!, READERS, gone.signal)
      await sleep(WARM_MS)
      gone.abort()
      await removeContainers('generator')
      const perLine = new Map<string, number>()
      for (const scenario of SCENARIOS) {
        const { cpu, linesPerSecond, keptUp } = await measure(house, scenario)
        perLine.set(scenario.name, cpu / linesPerSecond)
        if (scenario.readers !== undefined) figures['readers_kept_up'] = rounded(keptUp)
        if (keptUp < 0.9) tell(`the slowest reader got only ${(100 * keptUp).toFixed(0)} % of the lines meanwhile`)
      }
      figures['readers_cpu_ratio'] = rounded(perLine.get('20_readers')! / perLine.get('1_at_20000')!)
    }
    {
      await using house = await startHouse('bench-live', { brokers: 3, program: consumerProgram() })
      await measure(house, { ...SCENARIOS[0]!, name: 'idle_3_brokers', title: 'nobody prints, 3 brokers' })
    }
    const columns = ['consumer, % of a core', 'lines/s', 'CPU s a million lines', 'p50 ms', 'p99 ms']
    return { table: { title: `Live, over ${SECONDS} s each; from printing to reading.`, columns, rows }, figures }
  },
}

async function measureScenario(
  house: House,
  { name, containers, atOnce, perSecond, readers = 0 }: Scenario,
): Promise<Measured> {
  const [watched] = await startAll(house, name, { containers, atOnce, perSecond })
  const gone = new AbortController()
  try {
    if (watched === undefined) {
      await sleep(SETTLE_MS)
      return { cpu: await cpuPercent(house), linesPerSecond: 0, latency: undefined, keptUp: 1 }
    }
    const folder = join(house.root, house.id, watched)
    await until('the first line is in its file', () => dayFiles(folder).length > 0)
    const arrivals = new Arrivals(dayFiles(folder)[0]!)
    const reading = followAll(house, watched, readers, gone.signal)
    await sleep(SETTLE_MS)
    arrivals.reset()
    for (const reader of reading) reader.reset()
    const before = await linesWritten(house)
    const cpu = await cpuPercent(house)
    const after = await linesWritten(house)
    const latency = await arrivals.stop()
    const keptUp = Math.min(1, ...reading.map((reader) => reader.keptUp(after - before)))
    return { cpu, linesPerSecond: (after - before) / SECONDS, latency, keptUp }
  } finally {
    gone.abort()
    await removeContainers('generator')
  }
}

/** @returns the modules that the containers print to */
async function startAll(
  house: House,
  name: string,
  { containers, atOnce, perSecond }: Pick<Scenario, 'containers' | 'atOnce' | 'perSecond'>,
): Promise<string[]> {
  const modules = Array.from({ length: containers }, (_, i) => `${name}-${i}`)
  await Promise.all(modules.map((module) => startGenerator(house, module, atOnce, perSecond)))
  return modules
}

/** So many readers of a module. The first does all that `tallyman tail` does; twenty of it would need a core. */
const followAll = ({ consumer: { url } }: House, module: string, readers: number, signal: AbortSignal): Reader[] =>
  Array.from({ length: readers }, (_, i) => (i === 0 ? decode : count)(url, module, signal))

/** What the consumer uses over SECONDS. */
async function cpuPercent(house: House): Promise<number> {
  const before = cpuSeconds(house.consumer.pid)
  await sleep(SECONDS * 1000)
  return ((cpuSeconds(house.consumer.pid) - before) / SECONDS) * 100
}

const linesWritten = (house: House): Promise<number> => figureOf(house.consumer, 'lines_written_total')

/** What somebody has got who follows a module. */
class Reader {
  lines = 0
  missed = false
  #before = 0

  reset(): void {
    this.#before = this.lines
  }

  /** The part of so many lines that it got since `reset`; none where it was told that it missed some. */
  keptUp(lines: number): number {
    return this.missed ? 0 : (this.lines - this.#before) / lines
  }
}

type Follow = (url: string, module: string, signal: AbortSignal) => Reader

/** Reads as `tallyman tail` does, by the same code. */
const decode: Follow = (url, module, signal) => {
  const reader = new Reader()
  const read = async (): Promise<void> => {
    const server = { name: 'the consumer', url: new URL(url) }
    for await (const events of stream<TailEvent>(server, 'api/v1/tail', { query: { module }, signal })) {
      for (const { type } of events) {
        if (type === 'line') reader.lines++
        reader.missed ||= type === 'missed'
      }
    }
  }
  read().catch(() => {})
  return reader
}

/** Asks as `tallyman tail` does and unpacks what it is sent, but counts newlines. */
const count: Follow = (url, module, signal) => {
  const reader = new Reader()
  const [newline, event, missed] = ['\n', '{"type":"', '{"type":"missed"'].map((text) => Buffer.from(text)) as Buffers
  const read = async (answer: IncomingMessage): Promise<void> => {
    for await (const piece of unpackZstd(answer)) {
      reader.lines += occurrences(piece, newline) - occurrences(piece, event)
      reader.missed ||= piece.includes(missed)
    }
  }
  const options = { signal, headers: { accept: BATCHES, 'accept-encoding': 'zstd' } }
  get(`${url}/api/v1/tail?module=${module}`, options, (answer) => void read(answer).catch(() => {})).on(
    'error',
    () => {},
  )
  return reader
}

type Buffers = [newline: Buffer, event: Buffer, missed: Buffer]

function occurrences(bytes: Buffer, of: Buffer): number {
  let count = 0
  for (let at = bytes.indexOf(of); at !== -1; at = bytes.indexOf(of, at + of.length)) count++
  return count
}
