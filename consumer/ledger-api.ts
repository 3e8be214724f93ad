/** The ledger as it is asked for: summed up by service, module, day or host, or run by run. */
import type { Access } from './access.ts'
import type { LedgerAnswer, LedgerQuery, LedgerRow, LineCount, RunRow } from './api-schema.ts'
import { add, type LedgerState, lostOf, OLDER, type SourceState, type Totals } from './ledger.ts'
import type { Claimed } from './ledger-topic.ts'

/** A run that has not ended and says nothing for this long is taken for one whose host died. */
const UNFINISHED_MS = 24 * 3_600_000

/** Why lines are lost that a root had claimed which will not come back. */
export const DISOWNED = 'disowned'

const KEYS = {
  service: ['service'],
  module: ['service', 'module'],
  day: ['service', 'module', 'day'],
  host: ['service', 'module', 'host'],
} as const

const iso = (ms: number): string => new Date(ms).toISOString()

type Part = Pick<Totals, 'written' | 'doubled' | 'lost'> & {
  /** Lines that a root has claimed which is away. */
  claimed?: number
}

/** What roots that are away owe, as it adds to the totals. */
export const owedOf = (claims: readonly Claimed[]): (Totals & Part)[] =>
  claims.flatMap(({ state, totals }) =>
    totals.map(({ written, lost, ...totals }) =>
      state === 'claimed'
        ? { ...totals, lost, written: 0, doubled: 0, claimed: written }
        : { ...totals, lost: { ...lost, [DISOWNED]: written }, written: 0, doubled: 0 },
    ),
  )

/** What the days are called that are not kept any more. */
const OLDER_DAYS = 'older'

export function countOf(parts: Iterable<Part>): LineCount {
  const count: LineCount = { lines: 0, written: 0, lost: 0, lostBy: {}, claimed: 0, doubled: 0, ratio: 0 }
  for (const { written, doubled, lost, claimed = 0 } of parts) {
    count.written += written
    count.claimed += claimed
    count.doubled += doubled
    for (const [reason, lines] of Object.entries(lost)) {
      if (lines === 0) continue
      count.lost = Math.min(count.lost + lines, Number.MAX_SAFE_INTEGER)
      add(count.lostBy, reason, lines)
    }
  }
  count.lines = Math.min(count.written + count.lost + count.claimed, Number.MAX_SAFE_INTEGER)
  count.ratio = count.lines === 0 ? 0 : count.lost / count.lines
  return count
}

const asPart = (source: SourceState) => ({ ...source, lost: lostOf(source) })

/** Whether what is asked for holds of something that has these names, and may be told. */
const matches =
  ({ service, module, host }: LedgerQuery, may: Access['may']) =>
  (names: Pick<Totals, 'service' | 'module' | 'host'>): boolean =>
    may(names.service) &&
    (service === undefined || names.service === service) &&
    (module === undefined || names.module === module) &&
    (host === undefined || names.host === host)

/** @param claims of roots that are away. @param may which services the answer may tell of. @param now ms since 1970 */
export function answerLedger(
  state: LedgerState,
  claims: readonly Claimed[],
  query: LedgerQuery,
  may: Access['may'],
  now: number,
): LedgerAnswer {
  const wanted = matches(query, may)
  const totals = [...state.totals.values(), ...owedOf(claims)]
    .filter(wanted)
    .filter(({ day }) => day >= (query.since ?? ''))
  const total = countOf(totals)
  if (query.by === 'run') return { total, rows: runRows(state, wanted, query, now), partial: [] }
  const keys = KEYS[query.by]
  const groups = Map.groupBy(totals, (of) => JSON.stringify(keys.map((key) => of[key])))
  const rows = [...groups.values()].map((group): LedgerRow => {
    const names = Object.fromEntries(keys.map((key) => [key, group[0]![key]]))
    if (names['day'] === OLDER) names['day'] = OLDER_DAYS
    return { ...names, ...countOf(group), last: iso(Math.max(...group.map(({ last }) => last))) }
  })
  const order = (row: LedgerRow) => keys.map((key) => row[key]).join('\0')
  return { total, rows: rows.sort((a, b) => (order(a) < order(b) ? -1 : 1)), partial: [] }
}

function runRows({ runs }: LedgerState, wanted: ReturnType<typeof matches>, query: LedgerQuery, now: number): RunRow[] {
  const since = query.since === undefined ? 0 : Date.parse(query.since)
  return [...runs]
    .filter(([, run]) => wanted(run) && run.last >= since)
    .sort(([, a], [, b]) => a.first - b.first)
    .map(([id, run]) => {
      const { service, module, host, container, first, last, ended } = run
      const source = (of: SourceState) => ({
        numbered: of.high,
        ...countOf([asPart(of)]),
        holes: of.holes.map(({ from, to, reason }) => ({ from, to, reason })),
      })
      const [stdout, stderr] = [source(run.sources[0]), source(run.sources[1])]
      return {
        ...{ run: id, service, module, host, container, first: iso(first), last: iso(last) },
        state: ended ? 'ended' : now - last > UNFINISHED_MS ? 'unfinished' : 'open',
        agrees: [stdout, stderr].every(({ numbered, written, lost }) => written + lost === numbered),
        sources: { stdout, stderr },
      }
    })
}
