/**
 * One container that prints as fast as it can: how long it takes with each driver, what that costs, and how long after its end
 * the last line is in its file.
 *
 * - Drivers take turns, so that what the machine does meanwhile falls on all of them.
 * - A run's lines are compared byte for byte afterwards: a driver that is fast because it loses some measures nothing.
 * - Runs that are not counted go first: elsewhere than here brokers and daemons are warm. For its first twenty seconds of work a fifth of
 *   what a driver uses is V8's compiling.
 */
import { mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BASE_IMAGE, command, docker, LABEL, removeContainer } from '../test/support/engine.ts'
import { type House, startHouse } from '../test/support/house.ts'
import { compareModule, dayFiles, type Expected, expectedSize, sizeOf } from '../test/support/oracle.ts'
import { type Printed, printed } from '../test/support/printed.ts'
import { pidOf } from '../test/support/process-table.ts'
import { until } from '../test/support/until.ts'
import { accessLog } from './lines.ts'
import { Meter, type Usage } from './meter.ts'
import { consumerProgram } from './program.ts'
import { median, type Row, rounded, type Table } from './report.ts'

const LINES = 2_000_000
const LINE_BYTES = 105
const WARM_RUNS = 5
const ROUNDS = 3

/** How long we look on after a run, for what it still costs when its lines are there: checkpoints, segments that go. */
const AFTERWARDS_MS = 1_000

/** The drivers that take turns. `suffix` tells their figures apart; json-file is what they are compared with. */
const VARIANTS = [
  { name: 'json-file', suffix: '_json_file', logOpts: undefined, consumes: false },
  { name: 'tallyman', suffix: '', logOpts: {}, consumes: true },
  // As on a real host: the files are written on another one. The broker still runs on this one.
  { name: 'tallyman, files elsewhere', suffix: '_host', logOpts: {}, consumes: false },
] as const
type Variant = (typeof VARIANTS)[number]

const PROCESSES = ['dockerd', 'driver', 'broker', 'consumer'] as const
type Process = (typeof PROCESSES)[number]

type Run = Usage<Process> & {
  /** From the container's start to its end, s. */
  wall: number
  /** From the container's end until its last line was in its file, s. */
  lastLine: number | undefined
}

export const oneContainer: Row = {
  async measure(tell) {
    tell('starting Kafka, consumer and plugin')
    await using house = await startHouse('bench', { program: consumerProgram() })
    const lines = printed(accessLog(LINES, LINE_BYTES))
    const input = join(house.folder, 'lines')
    mkdirSync(input)
    writeFileSync(join(input, 'stdout'), lines.stdout)

    const runs = new Map<Variant, Run[]>(VARIANTS.map((variant) => [variant, []]))
    tell('warming up')
    for (let i = 1; i <= WARM_RUNS; i++) await measureRun(house, VARIANTS[1], `${house.id}-warm-${i}`, input, lines)
    for (let round = 1; round <= ROUNDS; round++) {
      for (const [variant, ofVariant] of runs) {
        const run = await measureRun(house, variant, `${house.id}-${round}${variant.suffix}`, input, lines)
        ofVariant.push(run)
        tell(`${round}/${ROUNDS} ${variant.name}: ${run.wall.toFixed(2)} s${lastLineText(run)}`)
      }
    }
    return { table: tableOf(runs), figures: figuresOf(runs) }
  },
}

const lastLineText = ({ lastLine }: Run): string =>
  lastLine === undefined ? '' : `, last line ${lastLine.toFixed(2)} s later`

async function measureRun(house: House, variant: Variant, name: string, input: string, lines: Printed): Promise<Run> {
  const ours = variant.logOpts !== undefined
  const { consumes } = variant
  const { id } = await docker.createContainer({
    name,
    Image: BASE_IMAGE,
    Cmd: ['cat', '/in/stdout'],
    Labels: { [LABEL]: 'generator' },
    HostConfig: {
      NetworkMode: 'none',
      Binds: [`${input}:/in:ro`],
      LogConfig: ours
        ? { Type: house.plugin.name, Config: { service: house.id, module: name, ...variant.logOpts } }
        : { Type: 'json-file', Config: {} },
    },
  })
  try {
    if (!consumes) await house.consumer.stop()
    // Nobody is to write back what the run before left.
    await command('sync')
    const dockerd = pidOf('dockerd')
    if (dockerd === undefined) throw new Error('dockerd does not run on this machine')
    const meter = new Meter<Process>({
      dockerd: [dockerd],
      driver: [house.plugin.pid],
      broker: await house.kafka.pids(),
      consumer: consumes ? [house.consumer.pid] : [],
    })
    const container = docker.getContainer(id)
    await container.start()
    const { StatusCode } = await container.wait()
    if (StatusCode !== 0) throw new Error(`${name} ended with ${StatusCode}`)
    const folder = join(house.root, house.id, name)
    const expected: Expected[] = [{ container: name, printed: lines }]
    const landed = () =>
      until(
        () => `${folder} holds too few bytes: ${sizeOf(folder)}; the consumer said:\n${house.consumer.lastWords}`,
        () => sizeOf(folder) >= expectedSize(expected),
      )
    if (ours && consumes) await landed()
    if (ours) await until('the journal is shipped', () => house.plugin.shipped)
    await sleep(AFTERWARDS_MS)
    const usage = meter.read()
    const { State } = await container.inspect()
    if (!consumes) await house.consumer.start()
    if (ours) {
      await landed()
      compareModule(folder, expected)
    }
    return {
      ...usage,
      wall: (timeOf(State.FinishedAt) - timeOf(State.StartedAt)) / 1000,
      // The time of the last write stands in the file itself, more exactly than by asking again and again.
      lastLine: ours && consumes ? (lastWrite(folder) - timeOf(State.FinishedAt)) / 1000 : undefined,
    }
  } finally {
    await removeContainer(id)
  }
}

/** Docker writes nanoseconds. In ms since 1970. */
function timeOf(stamp: string): number {
  const [seconds, fraction] = stamp.replace(/Z$/, '').split('.')
  return Date.parse(`${seconds}Z`) + Number(`0.${fraction ?? 0}`) * 1000
}

const lastWrite = (folder: string): number => Math.max(...dayFiles(folder).map((file) => statSync(file).mtimeMs))

const millions = LINES / 1_000_000

function tableOf(runs: Map<Variant, Run[]>): Table {
  return {
    title: `One container, ${LINES.toLocaleString('en')} lines of ${LINE_BYTES} bytes: medians of ${ROUNDS}. CPU in s for a million lines, peak RSS in MB.`,
    columns: ['wall s', 'last line s', ...PROCESSES, 'machine', 'driver MB', 'consumer MB'],
    rows: [...runs].map(([{ name, logOpts, consumes }, ofVariant]) => [
      name,
      median(ofVariant.map((run) => run.wall)),
      consumes ? median(ofVariant.map((run) => run.lastLine!)) : undefined,
      ...PROCESSES.map((process) =>
        (logOpts && (consumes || process !== 'consumer')) || process === 'dockerd'
          ? median(ofVariant.map((run) => run.cpuSeconds[process])) / millions
          : undefined,
      ),
      median(ofVariant.map((run) => run.cpuSeconds.machine)) / millions,
      logOpts && median(ofVariant.map((run) => run.peakMegabytes.driver)),
      consumes ? median(ofVariant.map((run) => run.peakMegabytes.consumer)) : undefined,
    ]),
  }
}

function figuresOf(runs: Map<Variant, Run[]>): Record<string, number> {
  const figures: Record<string, number> = { lines: LINES, line_bytes: LINE_BYTES, rounds: ROUNDS }
  const wall = (ofVariant: Run[]) => median(ofVariant.map((run) => run.wall))
  const jsonFile = wall(runs.get(VARIANTS[0])!)
  for (const [{ suffix, logOpts, consumes }, ofVariant] of runs) {
    const put = (key: string, of: (run: Run) => number) => {
      figures[`${key}${suffix}`] = rounded(median(ofVariant.map(of)))
    }
    const perMillion = (process: Process | 'machine') =>
      put(`${process}_cpu_s_per_million`, (run) => run.cpuSeconds[process] / millions)
    put('wall_s', (run) => run.wall)
    perMillion('dockerd')
    perMillion('machine')
    if (!logOpts) continue
    figures[`wall_ratio_json_file${suffix}`] = rounded(wall(ofVariant) / jsonFile)
    if (consumes) put('last_line_s', (run) => run.lastLine!)
    perMillion('broker')
    for (const process of consumes ? (['driver', 'consumer'] as const) : (['driver'] as const)) {
      perMillion(process)
      put(`${process}_peak_rss_mb`, (run) => run.peakMegabytes[process])
    }
  }
  return figures
}
