/**
 * Many runs: the consumer with 10,000 modules, alone with a backlog. How much of its CPU is the ledger's, and how soon it is ready again
 * on a root that remembers 100,000 runs.
 *
 * - The share is that of the samples of a CPU profile in which the ledger's own files are on the stack, or the producer, which is
 *   nobody else's, or the checkpoint, which is counted whole although half of it is about files; but not where the writer makes new
 *   names durable, which is about nothing else. Left out, on either side, are samples that are no CPU: idle ones, and those that wait for
 *   the disk. What the collector does is in the whole alone, because the profile does not say for whom.
 * - No end comes of the runs that are remembered: those that have ended are forgotten sooner.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { sourceProgram } from '../test/support/consumer.ts'
import { cpuSeconds } from '../test/support/process-table.ts'
import { kafkaClient } from '../wire/kafka.ts'
import { type Backlog, fill } from './backlog.ts'
import { deleteTopic } from './catching-up.ts'
import { brokersFor, caughtUp } from './caught-up.ts'
import { accessLog } from './lines.ts'
import { median, type Row, rounded } from './report.ts'

const LINE_BYTES = 105
const MODULES = 10_000
const CHUNK_LINES = 100
const LINES = 10_000_000
const PAST_RUNS = 100_000
const PARTITIONS = 12
const STARTS = 3

const WRITER = /\/consumer\/writer\.ts$/
const LEDGER = [
  /\/consumer\/(ledger|ledger-topic|ledger-log|checkpoint)\.ts$/,
  /\/wire\/producer\.ts$/,
  /\/kafkajs\/src\/(producer\/|protocol\/requests\/produce\/|protocol\/recordBatch\/v0\/index|protocol\/recordBatch\/record\/v0\/index)/,
]

/** Functions that wait and do nothing meanwhile, by their names. */
const WAITING = ['(idle)', 'fsync', 'fdatasync', 'syncFileSystem']

/** As `--cpu-prof` writes it, in the part that is read here. */
type Profile = {
  nodes: { id: number; callFrame: { functionName: string; url: string }; children?: number[] }[]
  samples: number[]
  timeDeltas: number[]
}

export const manyRuns: Row = {
  async measure(tell) {
    await using disposables = new AsyncDisposableStack()
    const brokers = await brokersFor(disposables)
    const kafka = kafkaClient({ brokers, clientId: 'tallyman-bench', logger: pino({ level: 'silent' }) })
    const folder = mkdtempSync(join(tmpdir(), 'tallyman-bench-'))
    disposables.defer(() => rmSync(folder, { recursive: true, force: true }))
    const log = join(folder, 'consumer.log')
    const shared = { partitions: PARTITIONS, modules: MODULES, lineBytes: LINE_BYTES }
    const text = accessLog(400_000, LINE_BYTES)

    const busy: Backlog = {
      ...{ ...shared, topic: `bench-${process.pid}-runs`, lines: LINES, chunkLines: CHUNK_LINES, text },
    }
    tell(`storing ${LINES} lines of ${MODULES} runs`)
    await fill(kafka, busy)
    const root = join(folder, 'root')
    const profiles = join(folder, 'profiles')
    mkdirSync(root)
    {
      const program = sourceProgram('--cpu-prof', `--cpu-prof-dir=${profiles}`)
      await using consumer = await caughtUp(brokers, root, log, busy, 'text', program)
      await consumer.stop()
    }
    const [profile] = readdirSync(profiles)
    const share = ledgerShare(JSON.parse(readFileSync(join(profiles, profile!), 'utf8')))
    tell(`the ledger takes ${(100 * share).toFixed(1)} % of the CPU with ${MODULES} runs`)
    rmSync(root, { recursive: true })
    await deleteTopic(kafka, busy.topic)

    const past: Backlog = {
      ...{ ...shared, topic: `bench-${process.pid}-past`, lines: PAST_RUNS, chunkLines: 1, text, runEach: true },
    }
    tell(`storing ${PAST_RUNS} runs of a line each`)
    await fill(kafka, past)
    mkdirSync(root)
    await using consumer = await caughtUp(brokers, root, log, past, 'text')
    await consumer.stop()
    const seconds: number[] = []
    const cpu: number[] = []
    for (let i = 0; i < STARTS; i++) {
      const begun = performance.now()
      await consumer.start()
      seconds.push((performance.now() - begun) / 1000)
      cpu.push(cpuSeconds(consumer.pid))
      await consumer.stop()
    }
    const megabytes = statSync(join(root, '.tallyman/checkpoint')).size / 1e6
    const [ready, used] = [median(seconds), median(cpu)]
    tell(
      `ready after ${ready.toFixed(2)} s and ${used.toFixed(2)} s of CPU, with a checkpoint of ${megabytes.toFixed(0)} MB`,
    )
    await deleteTopic(kafka, past.topic)
    return {
      table: {
        title: `${MODULES.toLocaleString('en')} modules: the ledger's share, and starting with ${PAST_RUNS.toLocaleString('en')} runs; medians of ${STARTS}.`,
        columns: ['ledger, % of the CPU', 'ready s', 'CPU s until then', 'checkpoint MB'],
        rows: [['tallyman', 100 * share, ready, used, megabytes]],
      },
      figures: {
        ledger_cpu_percent_10000_runs: rounded(100 * share),
        ...{ start_ready_s_100000_runs: rounded(ready), start_cpu_s_100000_runs: rounded(used) },
        checkpoint_mb_100000_runs: rounded(megabytes),
      },
    }
  },
}

function ledgerShare({ nodes, samples, timeDeltas }: Profile): number {
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)))
  const isLedger = (id: number): boolean => {
    let found = false
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const { url } = byId.get(at)!.callFrame
      if (WRITER.test(url)) return false
      found ||= LEDGER.some((pattern) => pattern.test(url))
    }
    return found
  }
  const ledger = new Map(nodes.map(({ id }) => [id, isLedger(id)]))
  let [all, of] = [0, 0]
  for (const [i, id] of samples.entries()) {
    if (WAITING.includes(byId.get(id)!.callFrame.functionName)) continue
    all += timeDeltas[i]!
    if (ledger.get(id)) of += timeDeltas[i]!
  }
  return of / all
}
