/**
 * Answers of several consumers made into one. Each root holds some of the lines of a module and day, so counts add up; what a consumer
 * knows of a run another may know better, since partitions move between them.
 */
import type {
  ContextAnswer,
  DaysAnswer,
  DeadLettersAnswer,
  Gap,
  HistogramAnswer,
  LedgerAnswer,
  LedgerRow,
  LineCount,
  Loss,
  ModuleDay,
  ModuleOverview,
  ReplayAnswer,
  RootClaims,
  RunRow,
  ServicesAnswer,
  StatusAnswer,
  VerifyAnswer,
} from './api-schema.ts'
import { add } from './ledger.ts'

/** An answer, and the name of the consumer that gave it. */
export type Told<T> = { name: string; answer: T }

const MAX_CONTAINERS = 100

/** A file of a consumer, or a line's cursor, among those of several. */
export const qualified = (consumer: string, what: string): string => `${consumer}:${what}`

/** @returns the consumer's name in front of a file or cursor, and what stands behind it; no name where there is none */
export function unqualified(what: string): { consumer: string | undefined; rest: string } {
  // A file has a slash, and no consumer's name has one.
  const [, consumer, rest] = /^([^/:]+):(.*)$/s.exec(what) ?? []
  return consumer === undefined ? { consumer, rest: what } : { consumer, rest: rest! }
}

const sum = (numbers: Iterable<number>): number => Iterator.from(numbers).reduce((a, b) => a + b, 0)
const least = (texts: string[]): string => texts.reduce((a, b) => (b < a ? b : a))
const most = (texts: string[]): string => texts.reduce((a, b) => (b > a ? b : a))

/** Each place of the lists added up. */
function addUp(lists: readonly number[][]): number[] {
  const length = Math.max(...lists.map((list) => list.length))
  return Array.from({ length }, (_, i) => sum(lists.map((list) => list[i] ?? 0)))
}

const partials = (told: readonly Told<{ partial: Gap[] }>[]): Gap[] =>
  told.flatMap(({ name, answer }) => answer.partial.map((gap) => ({ consumer: name, ...gap })))

/** Groups what all have told by a key, in the order in which the first of each comes. */
const grouped = <T, R>(rows: readonly T[], keys: (row: T) => unknown[], merge: (same: T[]) => R): R[] =>
  Array.from(Map.groupBy(rows, (row) => JSON.stringify(keys(row))).values(), merge)

export const mergeServices = (told: Told<ServicesAnswer>[]): ServicesAnswer => ({
  modules: grouped(
    told.flatMap(({ answer }) => answer.modules),
    ({ service, module }) => [service, module],
    (same): ModuleOverview => ({
      service: same[0]!.service,
      module: same[0]!.module,
      ...mergeDates(same),
      files: sum(same.map(({ files }) => files)),
      lines: sum(same.map(({ lines }) => lines)),
      bytes: sum(same.map(({ bytes }) => bytes)),
      lost: sum(same.map(({ lost }) => lost)),
      first: least(same.map(({ first }) => first)),
      last: most(same.map(({ last }) => last)),
      rate: addUp(same.map(({ rate }) => rate)),
      hosts: [...new Set(same.flatMap(({ hosts }) => hosts))].sort(),
      containers: [...new Set(same.flatMap(({ containers }) => containers))].slice(0, MAX_CONTAINERS),
    }),
  ).sort((a, b) => order([a.service, a.module], [b.service, b.module])),
  partial: partials(told),
})

/** Who does not say which its days are, as older ones do not, has those of others among them. */
function mergeDates(same: readonly ModuleOverview[]): Pick<ModuleOverview, 'days' | 'dates'> {
  const dates = [...new Set(same.flatMap(({ dates }) => dates ?? []))].sort()
  return { days: Math.max(dates.length, ...same.map(({ days }) => days)), ...(dates.length > 0 && { dates }) }
}

export const mergeDays = (told: Told<DaysAnswer>[]): DaysAnswer => ({
  days: grouped(
    told.flatMap(({ name, answer }) =>
      answer.days.map((of) => ({
        ...of,
        files: of.files.map((file) => ({ ...file, file: qualified(name, file.file) })),
      })),
    ),
    ({ service, module, day }) => [service, module, day],
    (same): ModuleDay => ({
      service: same[0]!.service,
      module: same[0]!.module,
      day: same[0]!.day,
      files: same.flatMap(({ files }) => files),
      lines: sum(same.map(({ lines }) => lines)),
      bytes: sum(same.map(({ bytes }) => bytes)),
      lost: sum(same.map(({ lost }) => lost)),
      first: least(same.map(({ first }) => first)),
      last: most(same.map(({ last }) => last)),
    }),
  ).sort((a, b) => order([b.day, a.service, a.module], [a.day, b.service, b.module])),
  partial: partials(told),
})

/**
 * Over the range of all; a bucket that falls between the new ones is shared out by how much of it lies in each.
 * @param buckets how many were asked for
 */
export function mergeHistograms(told: Told<HistogramAnswer>[], buckets: number): HistogramAnswer {
  const all = told.map(({ answer }) => answer)
  // Who has no line of them, and was given no range, answers for the moment at which it was asked.
  const some = all.filter(({ series }) => series.length > 0)
  const answers = some.length > 0 ? some : all
  const since = least(answers.map(({ since }) => since))
  const until = most(answers.map(({ until }) => until))
  const same = answers.every((answer) => answer.since === since && answer.until === until)
  const step = same ? answers[0]!.step : (Date.parse(until) - Date.parse(since)) / buckets
  const shared = (answer: HistogramAnswer, counts: number[]): number[] =>
    same ? counts : spread(counts, Date.parse(answer.since) - Date.parse(since), answer.step, step, buckets)
  return {
    ...{ since, until, step },
    series: grouped(
      answers.flatMap((answer) =>
        answer.series.map(({ key, lines, bytes }) => ({
          ...{ key, lines: shared(answer, lines), bytes: shared(answer, bytes) },
        })),
      ),
      ({ key }) => [key],
      (of) => ({
        key: of[0]!.key,
        lines: addUp(of.map(({ lines }) => lines)),
        bytes: addUp(of.map(({ bytes }) => bytes)),
      }),
    ),
    partial: partials(told),
  }
}

/** @param begin where the first of the old buckets begins in the new ones, ms */
function spread(counts: number[], begin: number, width: number, step: number, buckets: number): number[] {
  const result = Array.from({ length: buckets }, () => 0)
  for (const [i, count] of counts.entries()) {
    const from = begin + i * width
    for (let at = Math.floor(from / step); at < buckets && at * step < from + width; at++) {
      const overlap = Math.min(from + width, (at + 1) * step) - Math.max(from, at * step)
      result[at]! += (count * overlap) / width
    }
  }
  return result
}

export const mergeStatus = (told: Told<StatusAnswer>[]): StatusAnswer => ({
  consumers: told.flatMap(({ answer }) => answer.consumers),
  partial: partials(told),
})

const NAMES = ['service', 'module', 'day', 'host'] as const

export function mergeLedgers(told: Told<LedgerAnswer>[]): LedgerAnswer {
  const rows = told.flatMap(({ answer }): (LedgerRow | RunRow)[] => answer.rows)
  const total = addCounts(told.map(({ answer }) => answer.total))
  const partial = partials(told)
  const isRun = (row: LedgerRow | RunRow): row is RunRow => 'run' in row
  if (rows.every(isRun)) return { total, rows: mergeRuns(rows), partial }
  const names = (row: LedgerRow) => NAMES.map((name) => row[name] ?? '')
  const merged = grouped(
    rows.filter((row): row is LedgerRow => !isRun(row)),
    names,
    (same): LedgerRow => ({ ...same[0]!, ...addCounts(same), last: most(same.map(({ last }) => last)) }),
  )
  return { total, rows: merged.sort((a, b) => order(names(a), names(b))), partial }
}

/** @param runs what each knows of the runs that were asked for: of what was handed on, not all know what came of it */
export function mergeVerifications(told: Told<VerifyAnswer>[], runs: readonly RunRow[]): VerifyAnswer {
  return {
    files: sum(told.map(({ answer }) => answer.files)),
    bytes: sum(told.map(({ answer }) => answer.bytes)),
    rebuilt: sum(told.map(({ answer }) => answer.rebuilt)),
    total: addCounts(told.map(({ answer }) => answer.total)),
    removed: sum(told.map(({ answer }) => answer.removed)),
    problems: told.flatMap(({ name, answer }) =>
      answer.problems.map((problem) => ({ ...problem, file: qualified(name, problem.file) })),
    ),
    losses: mergeRuns(runs).flatMap(lossesOf),
    partial: partials(told),
  }
}

const lossesOf = ({ service, module, host, container, run, sources }: RunRow): Loss[] =>
  (['stdout', 'stderr'] as const).flatMap((source) =>
    sources[source].holes.map((hole) => ({ service, module, host, container, run, source, ...hole })),
  )

/** Of each run what is known by whoever read the most of it: its ledger is a function of what was read. */
const mergeRuns = (rows: readonly RunRow[]): RunRow[] =>
  grouped(
    rows,
    ({ run }) => [run],
    (same) => same.reduce((best, row) => (readOf(row) > readOf(best) ? row : best)),
  ).sort((a, b) => order([a.first], [b.first]))

const readOf = ({ sources: { stdout, stderr } }: RunRow): number =>
  sum([stdout, stderr].map(({ lines, written, doubled }) => lines + written + doubled))

function addCounts(counts: readonly LineCount[]): LineCount {
  const lostBy: Record<string, number> = {}
  for (const { lostBy: by } of counts) {
    for (const [reason, lines] of Object.entries(by)) add(lostBy, reason, lines)
  }
  const lines = sum(counts.map(({ lines }) => lines))
  const lost = sum(counts.map(({ lost }) => lost))
  return {
    lines,
    written: sum(counts.map(({ written }) => written)),
    lost,
    // What one lost and another took back.
    lostBy: Object.fromEntries(Object.entries(lostBy).filter(([, lines]) => lines !== 0)),
    claimed: sum(counts.map(({ claimed }) => claimed)),
    doubled: sum(counts.map(({ doubled }) => doubled)),
    ratio: lines === 0 ? 0 : lost / lines,
  }
}

/** Claims of the same root, of which each consumer tells those in its own partitions. */
export const mergeRoots = (claims: readonly RootClaims[]): RootClaims[] =>
  grouped(
    claims,
    ({ root, state }) => [root, state],
    (same) => ({
      ...same[0]!,
      partitions: [...new Set(same.flatMap(({ partitions }) => partitions))].sort((a, b) => a - b),
      lines: sum(same.map(({ lines }) => lines)),
      uncounted: sum(same.map(({ uncounted }) => uncounted)),
    }),
  )

/** @param limit letters at most */
export function mergeDeadLetters(told: Told<DeadLettersAnswer>[], limit: number): DeadLettersAnswer {
  const letters = told
    .flatMap(({ name, answer }) => answer.letters.map((letter) => ({ ...letter, name: qualified(name, letter.name) })))
    .sort((a, b) => order([a.topic], [b.topic]) || a.partition - b.partition || a.offset - b.offset)
  return {
    letters: letters.slice(0, limit),
    limited: letters.length > limit || told.some(({ answer }) => answer.limited),
    dropped: told.flatMap(({ answer }) => answer.dropped),
    bytes: sum(told.map(({ answer }) => answer.bytes)),
    max: sum(told.map(({ answer }) => answer.max)),
    partial: partials(told),
  }
}

/** @param strangers letters of consumers that nobody knows */
export const mergeReplays = (
  told: Told<ReplayAnswer>[],
  missing: Gap[],
  strangers: readonly string[],
): ReplayAnswer => ({
  replayed: told.flatMap(({ name, answer }) =>
    answer.replayed.map((letter) => ({ ...letter, name: qualified(name, letter.name) })),
  ),
  failed: [
    ...told.flatMap(({ name, answer }) =>
      answer.failed.map((letter) => ({ ...letter, name: qualified(name, letter.name) })),
    ),
    ...strangers.map((name) => ({ name, reason: 'no-consumer', message: 'no consumer that is there has that name' })),
  ],
  partial: [...partials(told), ...missing],
})

/** A line's neighbours, as that consumer's. */
export const qualifyContext = (name: string, { lines, index, partial }: ContextAnswer): ContextAnswer => ({
  lines: lines.map((line) => ({ ...line, at: qualified(name, line.at), file: qualified(name, line.file) })),
  index,
  partial: partial.map((gap) => ({ consumer: name, ...gap })),
})

function order(a: readonly string[], b: readonly string[]): number {
  const differs = a.findIndex((text, i) => text !== b[i])
  return differs === -1 ? 0 : a[differs]! < b[differs]! ? -1 : 1
}
