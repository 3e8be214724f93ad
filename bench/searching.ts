/**
 * Searching: two gigabytes of a day, by the consumer's HTTP API and by ripgrep itself on the same files; and how soon five minutes out
 * of them begin to be answered.
 *
 * Both take turns, and each has read all of the files once before it counts: they are in the page cache.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pino from 'pino'
import type { SearchEvent } from '../consumer/api-schema.ts'
import { kafkaClient } from '../wire/kafka.ts'
import { type Backlog, fill, SERVICE } from './backlog.ts'
import { brokersFor, caughtUp } from './caught-up.ts'
import { accessLog } from './lines.ts'
import { median, type Row, rounded } from './report.ts'

const LINE_BYTES = 105
/** 2 GB of `text`, of 20 hours. */
const LINES = 14_000_000
const HOURS = 20
const MODULES = 20
const ROUNDS = 5
/** Stands in one of 400,000 lines, so 35 times in all. */
const PATTERN = ' 123456 '
const FIVE_MINUTES_MS = 300_000

const execute = promisify(execFile)

export const searching: Row = {
  async measure(tell) {
    await using disposables = new AsyncDisposableStack()
    const brokers = await brokersFor(disposables)
    const kafka = kafkaClient({ brokers, clientId: 'tallyman-bench', logger: pino({ level: 'silent' }) })
    const folder = mkdtempSync(join(tmpdir(), 'tallyman-bench-'))
    disposables.defer(() => rmSync(folder, { recursive: true, force: true }))
    const root = join(folder, 'root')
    mkdirSync(root)
    const backlog: Backlog = {
      ...{ topic: `bench-${process.pid}-search`, partitions: 12, modules: MODULES, lines: LINES, chunkLines: 100 },
      ...{ linesPerSecond: LINES / (HOURS * 3600), text: accessLog(400_000, LINE_BYTES), lineBytes: LINE_BYTES },
    }
    tell(`storing ${LINES} lines`)
    await fill(kafka, backlog)
    tell('landing them')
    const consumer = disposables.use(await caughtUp(brokers, root, join(folder, 'consumer.log'), backlog, 'text'))
    const seconds: Record<'rg' | 'api', number[]> = { rg: [], api: [] }
    for (let round = 0; round <= ROUNDS; round++) {
      const [rg, rgHits] = await timed(() => ripgrep(join(root, SERVICE)))
      const [api, apiHits] = await timed(() => search(consumer.url))
      if (rgHits !== apiHits || apiHits === 0) throw new Error(`ripgrep finds ${rgHits} lines, the consumer ${apiHits}`)
      if (round === 0) continue
      seconds.rg.push(rg)
      seconds.api.push(api)
      tell(`${round}/${ROUNDS} rg ${rg.toFixed(2)} s, API ${api.toFixed(2)} s`)
    }
    const first: number[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const since = Date.now() - (0.2 + 0.6 * (round / ROUNDS)) * HOURS * 3_600_000
      const [answered] = await timed(() => firstLine(consumer.url, since))
      first.push(answered)
    }
    const [rg, api, five] = [median(seconds.rg), median(seconds.api), median(first) * 1000]
    return {
      table: {
        title: `Searching ${((LINES * (LINE_BYTES + 40)) / 1e9).toFixed(1)} GB of a day: medians of ${ROUNDS}.`,
        columns: ['s', 'by rg', 'first line of five minutes, ms'],
        rows: [
          ['rg', rg, 1, undefined],
          ['HTTP API', api, api / rg, five],
        ],
      },
      figures: {
        ...{ search_s_rg: rounded(rg), search_s: rounded(api), search_ratio_rg: rounded(api / rg) },
        first_line_ms_five_minutes: rounded(five),
      },
    }
  },
}

/** @returns how long it took, s, and what came of it */
async function timed<T>(work: () => Promise<T>): Promise<[seconds: number, outcome: T]> {
  const began = performance.now()
  const outcome = await work()
  return [(performance.now() - began) / 1000, outcome]
}

/** @returns how many lines match */
async function ripgrep(folder: string): Promise<number> {
  const args = [
    '-a',
    '-E',
    'none',
    '--no-config',
    '--no-ignore',
    '--hidden',
    '-N',
    '--no-filename',
    '-F',
    '-e',
    PATTERN,
  ]
  const { stdout } = await execute('rg', [...args, folder])
  return stdout.split('\n').filter(Boolean).length
}

async function search(url: string): Promise<number> {
  const query = new URLSearchParams({ pattern: PATTERN, fixed: 'true', limit: '1000' })
  const events = (await (await fetch(`${url}/api/v1/search?${query}`)).text()).split('\n').filter(Boolean)
  return events.filter((event) => (JSON.parse(event) as SearchEvent).type === 'line').length
}

/** Resolves when the first line of five minutes has come. */
async function firstLine(url: string, since: number): Promise<void> {
  const range = { since: new Date(since).toISOString(), until: new Date(since + FIVE_MINUTES_MS).toISOString() }
  const { body } = await fetch(`${url}/api/v1/lines?${new URLSearchParams(range)}`)
  let answer = ''
  for await (const piece of body!.pipeThrough(new TextDecoderStream())) {
    answer += piece
    if (answer.includes('"type":"line"')) return
  }
  throw new Error(`no line of these five minutes came: ${answer.slice(0, 200)}`)
}
