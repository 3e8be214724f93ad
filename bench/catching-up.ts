/**
 * Catching up: a consumer that finds a backlog in Kafka, alone. What a line costs it from Kafka to the files, ledger, claims, index and
 * checkpoint included, by layout and by how many modules print; and how much memory it takes when the lines compress to nearly nothing.
 *
 * - CPU is that of the whole process from its start to its last checkpoint, system time included.
 * - Each backlog is read once before it counts: pages of a virtual machine's memory that were never used cost their host several times
 *   what writing them costs.
 * - A module's first lines cost more than others: its folder and file are made. So that this is seen as what it is, once a module and
 *   not once a line, many modules have as many lines each as a quiet module has in an hour.
 * - Files are verified after each reading: a consumer that is fast because it loses lines measures nothing.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pino from 'pino'
import type { VerifyAnswer } from '../consumer/api-schema.ts'
import type { Consumer } from '../test/support/consumer.ts'
import { cpuSeconds, peakMegabytes } from '../test/support/process-table.ts'
import { until } from '../test/support/until.ts'
import { kafkaClient } from '../wire/kafka.ts'
import { type Backlog, fill } from './backlog.ts'
import { brokersFor, caughtUp } from './caught-up.ts'
import { accessLog } from './lines.ts'
import { median, type Row, rounded, type Table } from './report.ts'

const LINE_BYTES = 105
const CHUNK_LINES = 2_000
/** As many lines are made up; they are printed over and over. */
const DISTINCT_LINES = 400_000
const ROUNDS = 3
const PARTITIONS = 12

const BACKLOGS = [
  { modules: 1, lines: 8_000_000, formats: ['text', 'raw'] },
  { modules: 20, lines: 8_000_000, formats: ['text', 'raw'] },
  { modules: 200, lines: 8_000_000, formats: ['text', 'raw'] },
  { modules: 2_000, lines: 16_000_000, formats: ['text', 'raw'] },
] as const

/** 2 GB of lines that say the same again and again. */
const REPETITIVE = { modules: 1, lines: 2_048_000, lineBytes: 1_000 }

type Reading = { cpuSeconds: number; megabytes: number }

/** How long we look on when all lines are there: for the checkpoint, which may be two seconds behind. */
const AFTERWARDS_MS = 2_500

export const catchingUp: Row = {
  async measure(tell) {
    await using disposables = new AsyncDisposableStack()
    const brokers = await brokersFor(disposables)
    const kafka = kafkaClient({ brokers, clientId: 'tallyman-bench', logger: pino({ level: 'silent' }) })
    const folder = mkdtempSync(join(tmpdir(), 'tallyman-bench-'))
    disposables.defer(() => rmSync(folder, { recursive: true, force: true }))
    const text = accessLog(DISTINCT_LINES, LINE_BYTES)
    const rows: Table['rows'] = []
    const figures: Record<string, number> = {}
    for (const { modules, lines, formats } of BACKLOGS) {
      const backlog: Backlog = {
        ...{ topic: `bench-${process.pid}-${modules}`, partitions: PARTITIONS, modules, lines },
        ...{ chunkLines: CHUNK_LINES, text, lineBytes: LINE_BYTES },
      }
      tell(`storing ${lines} lines of ${modules} modules`)
      await fill(kafka, backlog)
      await read(brokers, folder, backlog, formats[0])
      const readings = new Map(formats.map((format) => [format, [] as Reading[]]))
      for (let round = 1; round <= ROUNDS; round++) {
        for (const [format, of] of readings) of.push(await read(brokers, folder, backlog, format))
      }
      for (const [format, of] of readings) {
        const perMillion = median(of.map((reading) => reading.cpuSeconds)) / (lines / 1e6)
        const megabytes = Math.max(...of.map((reading) => reading.megabytes))
        tell(
          `${format}, ${modules} modules: ${perMillion.toFixed(3)} s of CPU for a million lines, ${megabytes.toFixed(0)} MB`,
        )
        rows.push([`${format}, ${modules} modules`, perMillion, 1 / perMillion, megabytes])
        figures[`catching_up_cpu_s_per_million_${format}_${modules}`] = rounded(perMillion)
        figures[`catching_up_peak_rss_mb_${format}_${modules}`] = rounded(megabytes)
      }
      await deleteTopic(kafka, backlog.topic)
    }
    for (const format of ['text', 'raw'] as const) {
      const costs = BACKLOGS.map(({ modules }) => figures[`catching_up_cpu_s_per_million_${format}_${modules}`]!)
      const [least, most] = [Math.min(...costs), Math.max(...costs)]
      const spread = (most - least) / (most + least)
      tell(`${format}, from 1 to 2,000 modules: within ${(100 * spread).toFixed(0)} % of the middle`)
      figures[`catching_up_spread_${format}`] = rounded(spread)
    }
    const repetitive: Backlog = {
      ...{ ...REPETITIVE, topic: `bench-${process.pid}-repetitive`, partitions: PARTITIONS, chunkLines: 512 },
      text: Buffer.from(`${'the same again '.repeat(67).slice(0, REPETITIVE.lineBytes)}\n`.repeat(1_024)),
    }
    tell('storing 2 GB that repeat themselves')
    await fill(kafka, repetitive)
    const { cpuSeconds, megabytes } = await read(brokers, folder, repetitive, 'text')
    const millions = REPETITIVE.lines / 1e6
    rows.push(['2 GB of the same line', cpuSeconds / millions, millions / cpuSeconds, megabytes])
    figures['catching_up_peak_rss_mb_repetitive'] = rounded(megabytes)
    await deleteTopic(kafka, repetitive.topic)
    const columns = ['CPU s a million lines', 'million lines a CPU s', 'peak RSS MB']
    return {
      table: { title: `Catching up, lines of ${LINE_BYTES} bytes: medians of ${ROUNDS}.`, columns, rows },
      figures,
    }
  },
}

export async function deleteTopic(kafka: ReturnType<typeof kafkaClient>, topic: string): Promise<void> {
  const admin = kafka.admin()
  await admin.connect()
  await admin.deleteTopics({ topics: [topic] })
  await admin.disconnect()
}

async function read(brokers: string[], folder: string, backlog: Backlog, format: 'text' | 'raw'): Promise<Reading> {
  const root = join(folder, 'root')
  mkdirSync(root)
  try {
    await using consumer = await caughtUp(brokers, root, join(folder, 'consumer.log'), backlog, format)
    await sleep(AFTERWARDS_MS)
    const used = cpuSeconds(consumer.pid)
    const megabytes = peakMegabytes(consumer.pid)
    await until('the checkpoint tells of all lines', () => verify(consumer, backlog.lines))
    return { cpuSeconds: used, megabytes }
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

/** @returns whether so many lines are in the files. @throws Error where the files are not what was read, each line once */
async function verify({ url }: Consumer, lines: number): Promise<boolean> {
  const { problems, total } = (await (await fetch(`${url}/api/v1/verify`)).json()) as VerifyAnswer
  if (problems.length > 0 || total.lost > 0 || total.doubled > 0)
    throw new Error(`the files are not what was stored: ${JSON.stringify({ total, problems: problems.slice(0, 3) })}`)
  return total.written === lines
}
