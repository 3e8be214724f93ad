/** What there is: modules and their days, as the manifests list them, and their volume, as the index does. No log file is opened. */
import { setImmediate as turn } from 'node:timers/promises'
import type { Access } from './access.ts'
import type {
  DaysAnswer,
  DaysQuery,
  Gap,
  HistogramAnswer,
  HistogramQuery,
  ModuleOverview,
  ServicesAnswer,
  ServicesQuery,
} from './api-schema.ts'
import type { Names } from './index-log.ts'
import type { LedgerState } from './ledger.ts'
import { wantedOf } from './lines.ts'
import type { Manifest, Manifests } from './manifests.ts'
import type { Picked, RowCache, Rows, Wanted } from './row-cache.ts'
import { moduleSelector } from './selection.ts'

const RATE_MINUTES = 60
const MINUTE_MS = 60_000
const MOST_CONTAINERS = 100

export type OverviewSources = {
  rows: RowCache
  manifests: Manifests
  ledger: LedgerState
}

const iso = (ms: number): string => new Date(ms).toISOString()

const keyOf = ({ service, module }: { service: string; module: string }): string => JSON.stringify([service, module])

/** @param now ms since 1970 */
export async function services(
  { rows, manifests, ledger }: OverviewSources,
  query: ServicesQuery,
  may: Access['may'],
  now: number,
): Promise<ServicesAnswer> {
  const wanted = moduleSelector(query, may)
  const partial: Gap[] = []
  const days = Map.groupBy(manifests.list({ wanted }), keyOf)
  const rates = await ratesOf(rows, wanted, now, partial)
  const hosts = Map.groupBy(ledger.totals.values().filter(wanted), keyOf)
  const runs = Map.groupBy(ledger.runs.values().filter(wanted), keyOf)
  const modules = Array.from(days, ([key, of]): ModuleOverview => {
    const latest = (runs.get(key) ?? []).sort((a, b) => b.last - a.last)
    return {
      ...{ service: of[0]!.service, module: of[0]!.module },
      ...daysOf(of),
      ...{ files: sum(of, ({ files }) => files.length) },
      ...{ lines: sum(of, ({ lines }) => lines), bytes: sum(of, ({ bytes }) => bytes) },
      lost: sum(of, ({ ledger }) => ledger.lost),
      first: iso(Math.min(...of.map(({ first }) => first))),
      last: iso(Math.max(...of.map(({ last }) => last))),
      rate: rates.get(key) ?? new Array(RATE_MINUTES).fill(0),
      hosts: [...new Set(hosts.get(key)?.map(({ host }) => host))].sort(),
      containers: [...new Set(latest.map(({ container }) => container))].slice(0, MOST_CONTAINERS),
    }
  })
  return { modules: modules.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1)), partial }
}

function daysOf(of: readonly Manifest[]): { days: number; dates: string[] } {
  const dates = [...new Set(of.map(({ day }) => day))].sort()
  return { days: dates.length, dates }
}

const sum = (of: readonly Manifest[], number: (manifest: Manifest) => number): number =>
  of.reduce((sum, manifest) => sum + number(manifest), 0)

/** Lines of each of the last minutes, by module. */
async function ratesOf(
  rows: RowCache,
  names: Wanted['names'],
  now: number,
  partial: Gap[],
): Promise<Map<string, number[]>> {
  const since = now - RATE_MINUTES * MINUTE_MS
  const rates = new Map<string, Spread>()
  const wanted = { since, until: now, names, stdout: true, stderr: true }
  for await (const { rows: of, picked } of pickedOf(rows, wanted, partial)) {
    const keys = of.names.map(keyOf)
    for (const i of picked) {
      const key = keys[of.name[i]!]!
      let rate = rates.get(key)
      if (!rate) {
        rate = new Spread(since, MINUTE_MS, RATE_MINUTES)
        rates.set(key, rate)
      }
      rate.add(of.tmin[i]!, of.tmax[i]!, of.lines[i]!)
    }
  }
  return new Map(Array.from(rates, ([key, { buckets }]) => [key, buckets.map(Math.round)]))
}

/** The days of the selected modules, the newest first. */
export function days({ manifests }: OverviewSources, query: DaysQuery, may: Access['may']): DaysAnswer {
  const list = manifests.list({
    wanted: moduleSelector(query, may),
    ...(query.since !== undefined && { since: query.since }),
    ...(query.until !== undefined && { until: query.until }),
  })
  const days = Array.from(list, ({ service, module, day, files, lines, bytes, ledger, first, last }) => ({
    ...{ service, module, day },
    files: files.map(({ file, bytes, compressed }) => ({ file, bytes, ...(compressed && { compressed }) })),
    ...{ lines, bytes, lost: ledger.lost, first: iso(first), last: iso(last) },
  }))
  return {
    days: days.sort((a, b) => (a.day === b.day ? (keyOf(a) < keyOf(b) ? -1 : 1) : a.day > b.day ? -1 : 1)),
    partial: [],
  }
}

/** Lines and bytes over time. A row that spans several buckets is spread over them by how much of its time is in each. */
export async function histogram(
  { rows }: OverviewSources,
  query: HistogramQuery,
  may: Access['may'],
  now: number,
): Promise<HistogramAnswer> {
  const partial: Gap[] = []
  const wanted = wantedOf(query, may)
  const found: Picked[] = []
  let [first, last] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for await (const part of pickedOf(rows, wanted, partial)) {
    found.push(part)
    for (const i of part.picked) {
      first = Math.min(first, part.rows.tmin[i]!)
      last = Math.max(last, part.rows.tmax[i]!)
    }
  }
  if (first > last) first = last = now
  const since = query.since === undefined ? first : wanted.since
  // The last moment is left out of a range.
  const until = Math.max(query.until === undefined ? last + 1 : wanted.until, since + 1)
  const step = (until - since) / query.buckets
  const series = new Map<string, { lines: Spread; bytes: Spread }>()
  const add = (key: string, of: Rows, i: number, lines: number): void => {
    let into = series.get(key)
    if (!into) {
      into = { lines: new Spread(since, step, query.buckets), bytes: new Spread(since, step, query.buckets) }
      series.set(key, into)
    }
    into.lines.add(of.tmin[i]!, of.tmax[i]!, lines)
    into.bytes.add(of.tmin[i]!, of.tmax[i]!, (of.bytes[i]! * lines) / of.lines[i]!)
  }
  for (const { rows: of, picked } of found) {
    const keys = of.names.map((names) => keyBy(query.by, names))
    for (const i of picked) {
      const stderr = wanted.stderr ? of.stderr[i]! : 0
      const stdout = wanted.stdout ? of.lines[i]! - of.stderr[i]! : 0
      if (query.by !== 'source') add(keys[of.name[i]!]!, of, i, stdout + stderr)
      else {
        if (stdout > 0) add('stdout', of, i, stdout)
        if (stderr > 0) add('stderr', of, i, stderr)
      }
    }
    await turn()
  }
  return {
    ...{ since: iso(since), until: iso(until), step },
    series: Array.from(series, ([key, { lines, bytes }]) => ({
      ...{ key, lines: lines.buckets.map(rounded), bytes: bytes.buckets.map(Math.round) },
    })).sort((a, b) => (a.key < b.key ? -1 : 1)),
    partial,
  }
}

/** Shares of lines, to a thousandth. */
const rounded = (lines: number): number => Math.round(lines * 1000) / 1000

/** Buckets of time, over which a quantity is spread. */
class Spread {
  readonly buckets: number[]
  #since: number
  #step: number

  constructor(since: number, step: number, count: number) {
    this.#since = since
    this.#step = step
    this.buckets = new Array(count).fill(0)
  }

  /** @param from ms since 1970 of the first and, `to`, of the last of what `quantity` counts */
  add(from: number, to: number, quantity: number): void {
    const begin = (from - this.#since) / this.#step
    // A moment has a width of 1 ms.
    const end = (to + 1 - this.#since) / this.#step
    const last = Math.min(Math.ceil(end), this.buckets.length)
    for (let i = Math.max(0, Math.floor(begin)); i < last; i++) {
      const share = (Math.min(end, i + 1) - Math.max(begin, i)) / (end - begin)
      this.buckets[i]! += quantity * share
    }
  }
}

function keyBy(by: HistogramQuery['by'], { service, module, host }: Names): string {
  return { total: 'total', service, module: `${service}/${module}`, host, source: '' }[by]
}

/** The wanted rows, day by day; the event loop has its turn in between. */
async function* pickedOf(rows: RowCache, wanted: Wanted, partial: Gap[]): AsyncGenerator<Picked> {
  for (const day of rows.days) {
    yield* await rows.day(day, wanted, partial)
    await turn()
  }
}
