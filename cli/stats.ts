/** `tallyman stats`: how many lines, and how many bytes, by service, module, host or source, and over time, with bars. */
import type { HistogramAnswer } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { inColour, moduleColour, STYLES, useColours } from './colours.ts'
import { EXIT } from './errors.ts'
import { sayGaps } from './history.ts'
import { apart, fromEach } from './merge.ts'
import { queryOf, type SelectionOptions, serversFor } from './selection.ts'
import { bar, bytes, number, table } from './table.ts'
import { print, say } from './terminal.ts'
import { localTime } from './time.ts'

export type By = 'service' | 'module' | 'host' | 'source' | 'hour'
export type StatsOptions = Omit<SelectionOptions, 'output' | 'highlight'> & { by?: By }

type Sum = { lines: number; bytes: number }

const HOUR = 3_600_000
const DEFAULT_SPAN = 24 * HOUR
/** More rows than a screen has tell nobody anything: from here on they are days. */
const MOST_HOURS = 72
const BAR = 32

export async function stats(targets: string[], options: StatsOptions): Promise<void> {
  const servers = await apart(await serversFor(options))
  const now = Date.now()
  const { since: from, until: to, ...query } = queryOf(targets, { ...options, output: 'text' }, now)
  const until = to === undefined ? now : Date.parse(to as string)
  const since = from === undefined ? until - DEFAULT_SPAN : Date.parse(from as string)
  const step = until - since > MOST_HOURS * HOUR ? 24 * HOUR : HOUR
  const begin = Math.floor(since / step) * step
  const buckets = Math.max(1, Math.ceil((until - begin) / step))
  const range = { since: new Date(begin).toISOString(), until: new Date(begin + buckets * step).toISOString(), buckets }
  const histogram = async (by: string): Promise<HistogramAnswer[]> => {
    const answers = await fromEach(servers, (server) =>
      ask<HistogramAnswer>(server, 'api/v1/histogram', { query: { ...query, ...range, by } }),
    )
    for (const { server, answer } of answers) sayGaps(server, answer.partial)
    return answers.map(({ answer }) => answer)
  }
  const wanted: By[] = options.by === undefined ? ['module', 'hour'] : [options.by]
  const sections = await Promise.all(
    wanted.map(async (by) => ({
      by: by === 'hour' && step > HOUR ? 'day' : by,
      rows: by === 'hour' ? overTime(await histogram('total')) : byKey(await histogram(by)),
    })),
  )
  if (options.json) {
    return print(
      `${JSON.stringify({ ...range, ...Object.fromEntries(sections.map(({ by, rows }) => [by, Object.fromEntries(rows)])) }, undefined, 2)}\n`,
    )
  }
  const total = [...sections[0]!.rows.values()].reduce((sum, { lines }) => sum + lines, 0)
  if (total === 0) {
    say(`no lines between ${localTime(range.since)} and ${localTime(range.until)}`)
    process.exitCode ??= EXIT.BAD
    return
  }
  const colours = useColours(options.color, process.stdout, process.env)
  await print(`${localTime(range.since)} to ${localTime(range.until)}\n`)
  for (const { by, rows } of sections) await print(`\n${section(by, rows, colours)}\n`)
}

function byKey(answers: HistogramAnswer[]): Map<string, Sum> {
  const sums = new Map<string, Sum>()
  for (const { series } of answers) {
    for (const { key, lines, bytes } of series) add(sums, key, total(lines), total(bytes))
  }
  return new Map([...sums].sort(([, a], [, b]) => b.lines - a.lines))
}

function overTime(answers: HistogramAnswer[]): Map<string, Sum> {
  const sums = new Map<string, Sum>()
  for (const { since, step, series } of answers) {
    for (const { lines, bytes } of series) {
      for (const [i, count] of lines.entries()) {
        add(sums, new Date(Date.parse(since) + i * step).toISOString(), count, bytes[i]!)
      }
    }
  }
  return sums
}

const total = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0)

function add(sums: Map<string, Sum>, key: string, lines: number, bytes: number): void {
  const sum = sums.get(key) ?? { lines: 0, bytes: 0 }
  sums.set(key, { lines: sum.lines + lines, bytes: sum.bytes + bytes })
}

function section(by: string, rows: Map<string, Sum>, colours: boolean): string {
  const timed = by === 'hour' || by === 'day'
  const most = Math.max(...[...rows.values()].map(({ lines }) => lines))
  const cells = [...rows].map(([key, sum]) => {
    const drawn = bar(sum.lines, most, BAR)
    const name = timed
      ? localTime(key)
          .slice(0, by === 'day' ? 10 : 16)
          .replace('T', ' ')
      : key
    const colour = timed ? STYLES.info : moduleColour(key)
    return [
      name,
      colours ? inColour(colour, drawn) : drawn,
      number(Math.round(sum.lines)),
      bytes(Math.round(sum.bytes)),
    ]
  })
  return table([by, '', 'lines', 'bytes'], cells, 2, colours)
}
