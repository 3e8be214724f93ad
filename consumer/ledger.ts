/**
 * The ledger: which numbers of each run are written, so that every line is written once, and how many were not, so that the loss
 * is a figure.
 *
 * Per run and source a high-water mark h and a list of holes below it. Line n:
 *   n > h          it is new; h+1 … n−1 become a hole
 *   n in a hole    it is late; the hole shrinks, and it is lost no more
 *   else           a copy of what is written: dropped, and counted as doubled
 *
 * Invariants
 * - It is a pure function of a partition's records, in their order: another root that reads the same records comes to the same runs.
 *   Totals are a root's own, and add up over the roots: what one counted as lost another may take back, so they can fall below zero.
 * - Of every source: written + lost = h. Lost are the numbers in holes, and those in holes that are closed for good.
 * - At most MAX_HOLES holes a source: older ones are closed for good, and what comes for them later is dropped.
 * - A run that has ended is remembered until MAX_ENDED others have ended after it, because its last records may
 *   come a second time. What it came to stays in the totals of its service, module, day and host.
 * - A run that never ends, because its host died, is remembered for as long as its days are kept, and beyond that while it is among the
 *   MAX_SILENT that were heard of last. Forgotten sooner, it would come back, with a host that was mended, as a run whose first lines
 *   are all missing.
 */
import { type Chunk, countStderr, type LostRange, OTHER_REASON, type Source, STDERR, STDOUT } from '../wire/chunk.ts'
import { runId } from './origin.ts'

/** Numbers that are missing: why, and of which day's total they were taken. */
export type Hole = { from: number; to: number; reason: string; day: string }

/**
 * What is known of one source of a run. `closed`: lost for good, by reason. `expired`: Kafka has dropped records of its partition,
 * and none of its lines came since.
 */
export type SourceState = {
  high: number
  written: number
  doubled: number
  holes: Hole[]
  closed: Record<string, number>
  expired?: true
}

export type RunState = {
  /** Where its records are. */
  partition: number
  service: string
  module: string
  host: string
  container: string
  sources: [SourceState, SourceState]
  /** Times of its first and its last line, ms since 1970. */
  first: number
  last: number
  /** When the newest of its records was appended, ms since 1970; up to HEARD_MS less. */
  heard?: number
  ended: boolean
}

/** What came of the lines of a service's module, of a day and a host. */
export type Totals = {
  service: string
  module: string
  day: string
  host: string
  written: number
  doubled: number
  lost: Record<string, number>
  /** Time of the last line, ms since 1970. */
  last: number
}

/** The day of totals that sum up all days that are not kept any more: they come before all others. */
export const OLDER = ''

/** Why a number is missing of which no driver said that it gave it up. */
export const GAP = 'gap'
/** Why they are missing where Kafka dropped records before they were read. */
export const EXPIRED = 'expired'

/** Of a run that was remembered before partitions were. */
export const NO_PARTITION = -1

const MAX_HOLES = 256
/** As many reasons of senders are told apart in one count; lines of further ones are counted as OTHER_REASON. */
const MAX_REASONS = 32
const MAX_ENDED = 10_000
const MAX_SILENT = 10_000
/** What is no counter is told the checkpoint with all else of a run, so it changes seldom: a day is enough for what counts in days. */
const HEARD_MS = 86_400_000

type Named = Pick<Totals, 'service' | 'module' | 'host'>

export type LedgerState = { runs: Map<string, RunState>; totals: Map<string, Totals> }

/** A copy that goes on by itself. By hand: of a root with many modules `structuredClone` takes ten times as long. */
export const copyOf = ({ runs, totals }: LedgerState): LedgerState => ({
  runs: new Map(Array.from(runs, ([id, run]) => [id, copyOfRun(run)!])),
  totals: new Map(Array.from(totals, ([key, of]) => [key, { ...of, lost: { ...of.lost } }])),
})

/** Counters of runs, or of totals, and nothing else of them: of each of `keys` so many numbers in `rows`, one behind the other. */
export type Counters = { keys: string[]; rows: Float64Array }

/**
 * Changes since a moment; `undefined` for what is forgotten. Of nearly all that changes only counters do: of those that many lines come
 * for, each time, and so they are told apart.
 */
export type LedgerChanges = LedgerCounters & {
  runs: [run: string, state: RunState | undefined][]
  totals: [key: string, totals: Totals | undefined][]
}
export type LedgerCounters = { runCounters?: Counters; totalCounters?: Counters }

/** How many counters a run has, and how many totals have. */
export const RUN_COUNTERS = 6
export const TOTAL_COUNTERS = 2

const countersOf = <T>(states: ReadonlyMap<string, T>, keys: string[], width: number, write: Row<T>): Counters => {
  const rows = new Float64Array(width * keys.length)
  for (const [i, key] of keys.entries()) write(states.get(key)!, rows, width * i)
  return { keys, rows }
}

/** What goes between an object and the place of its counters. */
type Row<T> = (of: T, rows: Float64Array, at: number) => void

const writeRun: Row<RunState> = ({ first, last, sources: [stdout, stderr] }, rows, at) => {
  rows[at] = first
  rows[at + 1] = last
  rows[at + 2] = stdout.high
  rows[at + 3] = stdout.written
  rows[at + 4] = stderr.high
  rows[at + 5] = stderr.written
}

const readRun: Row<RunState> = (run, rows, at) => {
  const [stdout, stderr] = run.sources
  run.first = rows[at]!
  run.last = rows[at + 1]!
  stdout.high = rows[at + 2]!
  stdout.written = rows[at + 3]!
  stderr.high = rows[at + 4]!
  stderr.written = rows[at + 5]!
}

const writeTotals: Row<Totals> = ({ written, last }, rows, at) => {
  rows[at] = written
  rows[at + 1] = last
}

const readTotals: Row<Totals> = (totals, rows, at) => {
  totals.written = rows[at]!
  totals.last = rows[at + 1]!
}

/** Enters counters into a copy of the ledger's state, in which all of their keys are. */
export function enterCounters(state: LedgerState, { runCounters, totalCounters }: LedgerCounters): void {
  if (runCounters) readRows(state.runs, runCounters, RUN_COUNTERS, readRun)
  if (totalCounters) readRows(state.totals, totalCounters, TOTAL_COUNTERS, readTotals)
}

function readRows<T>(states: ReadonlyMap<string, T>, { keys, rows }: Counters, width: number, read: Row<T>): void {
  for (const [i, key] of keys.entries()) read(states.get(key)!, rows, width * i)
}

/** Totals with their key; `counted`: that counters of them have changed is noted. */
type Sum = { key: string; totals: Totals; counted: boolean }

/** A run with its id, the day that a chunk of it was of last, and the totals of that day; `counted` as of these. */
type Tally = { id: string; run: RunState; day: string | undefined; sum: Sum | undefined; counted: boolean }

export class Ledger {
  readonly state: LedgerState
  #ended = new Set<string>()
  /** Up to which offset a run that is new may have begun before what Kafka dropped, by partition. */
  #expired: Map<number, number>
  #changedRuns = new Set<string>()
  #changedTotals = new Set<string>()
  /** Those of which counters have changed; where they are among the others as well, more than these. */
  #countedRuns: Tally[] = []
  #countedTotals: Sum[] = []
  #floor = OLDER
  /** Of the runs that were entered: a chunk of one costs a single look-up. */
  #tallies = new Map<string, Tally>()
  /** By their key. */
  #sums = new Map<string, Sum>()
  #entered: Tally | undefined

  /**
   * @param state as a checkpoint kept it: runs by their id in hex, totals by their key
   * @param expired partitions of which Kafka has dropped records before they were read, and how far their logs went by then
   */
  constructor(
    state: LedgerState = { runs: new Map(), totals: new Map() },
    expired: Iterable<[partition: number, to: number]> = [],
  ) {
    this.state = state
    this.#expired = new Map(expired)
    for (const [run, { ended }] of state.runs) if (ended) this.#ended.add(run)
  }

  /**
   * Enters a chunk.
   * @param day which day's total its losses and copies go to: that of its first line
   * @param partition where its record is
   * @param appended when that was appended, ms since 1970
   * @param offset which it is
   * @param id its run's, in hex
   * @returns which lines are to be written: all (`undefined`), or those whose byte is 1
   */
  enter(
    chunk: Chunk,
    day: string,
    partition: number,
    appended = 0,
    offset = 0,
    id = runId(chunk.run),
  ): Uint8Array | undefined {
    let tally = this.#tallies.get(id)
    if (!tally) {
      const run = this.state.runs.get(id) ?? this.#begin(id, chunk, partition, offset)
      tally = { id, run, day: undefined, sum: undefined, counted: false }
      this.#tallies.set(id, tally)
    }
    const { run } = tally
    if (run.partition !== partition) this.#changedRuns.add(id)
    run.partition = partition
    if (run.heard === undefined || appended - run.heard >= HEARD_MS) {
      run.heard = appended
      this.#changedRuns.add(id)
    }
    this.#entered = tally
    if (!tally.counted) {
      tally.counted = true
      this.#countedRuns.push(tally)
    }
    let last = 0
    if (chunk.lines > 0) {
      if (run.first === 0) run.first = Number(chunk.t0 / 1_000_000n)
      // A chunk of what waited through an outage can span hours.
      last = Number((chunk.t0 + BigInt(chunk.dt[chunk.lines - 1]!)) / 1_000_000n)
      run.last = Math.max(run.last, last)
    }
    // By the run's own names, which its first chunk said: what is taken back must come off where it was put on.
    const changing = (of: string) => {
      this.#changedRuns.add(id)
      return this.#changing(run, of)
    }
    const totals = this.#counting(tally, day)
    if (last > totals.last) totals.last = last
    const entry = new Entry(run, day, changing)
    for (const range of chunk.lost) entry.lost(range)
    const wanted = entry.lines(chunk)
    if (chunk.end) {
      for (const source of [STDOUT, STDERR] as const) entry.missing(source, chunk.end[source], GAP)
      this.#end(id, run)
    }
    return wanted
  }

  /** So many lines of a chunk that was entered stand in a file of the day. */
  wrote(chunk: Chunk, day: string, lines: number): void {
    const { service, module, host } = chunk
    const tally = this.#entered
    const lately = tally?.run.service === service && tally.run.module === module && tally.run.host === host
    const totals = lately ? this.#counting(tally, day) : this.#counted(this.#sum({ service, module, host }, day))
    totals.written += lines
  }

  /** What was entered since the last call, for the checkpoint. Copies: what is entered from now on is not in them. */
  takeChanges(): LedgerChanges {
    const { runs, totals } = this.state
    const countedRuns = keysOf(this.#countedRuns, ({ id }) => id, this.#changedRuns)
    const countedTotals = keysOf(this.#countedTotals, ({ key }) => key, this.#changedTotals)
    const changes: LedgerChanges = {
      runs: Array.from(this.#changedRuns, (run) => [run, copyOfRun(runs.get(run))]),
      totals: Array.from(this.#changedTotals, (key) => {
        const of = totals.get(key)
        return [key, of && { ...of, lost: { ...of.lost } }]
      }),
      runCounters: countersOf(runs, countedRuns, RUN_COUNTERS, writeRun),
      totalCounters: countersOf(totals, countedTotals, TOTAL_COUNTERS, writeTotals),
    }
    this.#changedRuns.clear()
    this.#changedTotals.clear()
    this.#countedRuns = []
    this.#countedTotals = []
    return changes
  }

  /**
   * Sums up the totals of days before `floor`, one for each service, module and host: what came of their lines is not forgotten, and
   * does not grow with the days.
   */
  fold(floor: string): void {
    this.#floor = floor
    this.#sums.clear()
    this.#tallies.clear()
    for (const [key, of] of this.state.totals) {
      if (of.day === OLDER || of.day >= floor) continue
      this.state.totals.delete(key)
      this.#changedTotals.add(key)
      const sum = this.#changing(of, OLDER)
      if (of.last > sum.last) sum.last = of.last
      sum.written += of.written
      sum.doubled += of.doubled
      for (const [reason, lines] of Object.entries(of.lost)) add(sum.lost, reason, lines)
    }
  }

  /**
   * Forgets runs that never ended and were not heard of since, but for the `most` of them that were heard of last. What they came to
   * stays in the totals.
   * @param since ms since 1970, as records are appended
   * @returns those that are forgotten
   */
  forgetSilent(since: number, most = MAX_SILENT): string[] {
    const silent = Array.from(this.state.runs, ([id, run]) => ({ id, ended: run.ended, heard: run.heard ?? run.last }))
      .filter(({ ended, heard }) => !ended && heard < since)
      .sort((a, b) => b.heard - a.heard)
      .slice(most)
    for (const { id } of silent) this.#forget(id)
    return silent.map(({ id }) => id)
  }

  /** Totals of which more is about to change than counters. */
  #changing(of: Named, day: string): Totals {
    const { key, totals } = this.#sum(of, day)
    this.#changedTotals.add(key)
    return totals
  }

  /** Those of a run and a day, of which counters are about to change. */
  #counting(tally: Tally, day: string): Totals {
    if (tally.day !== day) {
      tally.day = day
      tally.sum = this.#sum(tally.run, day)
    }
    return this.#counted(tally.sum!)
  }

  #counted(sum: Sum): Totals {
    if (!sum.counted) {
      sum.counted = true
      this.#countedTotals.push(sum)
    }
    return sum.totals
  }

  #sum({ service, module, host }: Named, ofDay: string): Sum {
    const day = ofDay < this.#floor ? OLDER : ofDay
    const key = JSON.stringify([day, service, module, host])
    let sum = this.#sums.get(key)
    if (!sum) {
      const totals = this.state.totals.get(key) ?? this.#begun(key, { service, module, day, host })
      sum = { key, totals, counted: false }
      this.#sums.set(key, sum)
    }
    return sum
  }

  #begun(key: string, of: Named & { day: string }): Totals {
    const totals: Totals = { ...of, written: 0, doubled: 0, lost: {}, last: 0 }
    this.state.totals.set(key, totals)
    this.#changedTotals.add(key)
    return totals
  }

  /**
   * Kafka has dropped records of the partition before they were read: what is missing of its runs from here on is missing for that, until
   * a line of theirs comes.
   * @param to the offset of the log's end
   */
  expire(partition: number, to: number): void {
    this.behead(partition, to)
    for (const [id, run] of this.state.runs) {
      if (run.partition !== partition || run.ended) continue
      for (const source of run.sources) source.expired = true
      this.#changedRuns.add(id)
    }
  }

  /**
   * Kafka has dropped records of the partition that are not entered here: what is missing of a run that is heard of for the first time is
   * missing for that. But not once the log has ended that there is now: one that was silent for as long as Kafka keeps records is
   * taken for one that begins.
   * @param to the offset of that end
   */
  behead(partition: number, to: number): void {
    this.#expired.set(partition, Math.max(to, this.#expired.get(partition) ?? 0))
  }

  /** Puts `runs` in the place of all that is known of a partition's: what another root came to that read it meanwhile. */
  adopt(partition: number, runs: ReadonlyMap<string, RunState>): void {
    for (const [id, run] of this.state.runs) {
      if (run.partition !== partition || runs.has(id)) continue
      this.#ended.delete(id)
      this.#forget(id)
    }
    for (const [id, run] of runs) {
      this.state.runs.set(id, run)
      this.#tallies.delete(id)
      this.#changedRuns.add(id)
      if (run.ended) this.#end(id, run)
      else this.#ended.delete(id)
    }
  }

  /**
   * Kafka has dropped the records that would bring a run up to these numbers: they are missing for that, until some of them come.
   * @param of whose they are, the day that they count to, and about when they were printed, ms since 1970
   * @returns how many they are
   */
  lose(
    id: string,
    partition: number,
    { day, last, ...of }: Named & { container: Pick<Chunk['container'], 'name'>; day: string; last: number },
    high: readonly [stdout: number, stderr: number],
    ended: boolean,
  ): number {
    const run = this.state.runs.get(id) ?? this.#begin(id, of, partition)
    if (run.first === 0) run.first = run.last = last
    run.heard ??= last
    const entry = new Entry(run, day, (of) => this.#changing(run, of))
    let lines = 0
    for (const source of [STDOUT, STDERR] as const) {
      lines += Math.max(0, high[source] - run.sources[source].high)
      entry.missing(source, high[source], EXPIRED)
    }
    this.#changedRuns.add(id)
    if (ended) this.#end(id, run)
    return lines
  }

  #begin(
    id: string,
    { service, module, host, container }: Named & { container: Pick<Chunk['container'], 'name'> },
    partition: number,
    offset = 0,
  ): RunState {
    const source = (): SourceState => ({
      ...{ high: 0, written: 0, doubled: 0, holes: [], closed: {} },
      ...(offset < (this.#expired.get(partition) ?? 0) && { expired: true }),
    })
    const run: RunState = {
      ...{ partition, service, module, host, container: container.name },
      sources: [source(), source()],
      first: 0,
      last: 0,
      ended: false,
    }
    this.state.runs.set(id, run)
    this.#changedRuns.add(id)
    return run
  }

  #end(id: string, run: RunState): void {
    run.ended = true
    this.#changedRuns.add(id)
    this.#ended.add(id)
    for (const oldest of this.#ended) {
      if (this.#ended.size <= MAX_ENDED) break
      this.#ended.delete(oldest)
      this.#forget(oldest)
    }
  }

  #forget(id: string): void {
    this.state.runs.delete(id)
    this.#tallies.delete(id)
    this.#changedRuns.add(id)
  }
}

/** One chunk being entered: its run, and the totals that it changes. */
class Entry {
  #run: RunState
  #day: string
  #totalsOf: (day: string) => Totals

  /** @param totalsOf those of a day, when more of them and of the run is about to change than counters */
  constructor(run: RunState, day: string, totalsOf: (day: string) => Totals) {
    this.#run = run
    this.#day = day
    this.#totalsOf = totalsOf
  }

  /** Numbers that the driver gave up. Those that are missing already are so for its reason from now on. */
  lost({ source, from, count, reason }: LostRange): void {
    const state = this.#run.sources[source]
    const to = from + count - 1
    state.holes = state.holes.flatMap((hole) => {
      if (hole.to < from || hole.from > to || hole.reason === reason) return [hole]
      const [begin, end] = [Math.max(hole.from, from), Math.min(hole.to, to)]
      const { lost } = this.#totalsOf(hole.day)
      add(lost, hole.reason, begin - end - 1)
      add(lost, reason, end - begin + 1)
      return [
        { ...hole, to: begin - 1 },
        { ...hole, from: begin, to: end, reason },
        { ...hole, from: end + 1 },
      ].filter(({ from, to }) => from <= to)
    })
    this.#trim(state)
    this.missing(source, from - 1, GAP)
    this.missing(source, to, reason)
  }

  /** Numbers up to `high` were given, and their lines are not here. */
  missing(source: Source, high: number, said: string): void {
    const state = this.#run.sources[source]
    if (high <= state.high) return
    const reason = said === GAP && state.expired ? EXPIRED : said
    state.holes.push({ from: state.high + 1, to: high, reason, day: this.#day })
    add(this.#totalsOf(this.#day).lost, reason, high - state.high)
    state.high = high
    this.#trim(state)
  }

  /** @returns as `Ledger.enter` does */
  lines(chunk: Chunk): Uint8Array | undefined {
    const { sources } = this.#run
    const { first, lines, src } = chunk
    // Nearly every chunk brings what follows: no line needs to be looked at.
    const stderr = countStderr(src, lines)
    const stdout = lines - stderr
    if (
      (stdout === 0 || first[STDOUT] > sources[STDOUT].high) &&
      (stderr === 0 || first[STDERR] > sources[STDERR].high)
    ) {
      if (stdout > 0) this.#follow(STDOUT, first[STDOUT], stdout)
      if (stderr > 0) this.#follow(STDERR, first[STDERR], stderr)
      return undefined
    }
    const totals = this.#totalsOf(this.#day)
    const wanted = new Uint8Array(chunk.lines)
    const next: [number, number] = [chunk.first[0], chunk.first[1]]
    for (let i = 0; i < chunk.lines; i++) {
      const source = sourceOf(chunk, i)
      if (this.#line(source, next[source]++)) {
        wanted[i] = 1
        sources[source].written++
      } else {
        sources[source].doubled++
        totals.doubled++
      }
    }
    return wanted
  }

  /** So many lines from a number above the mark on. */
  #follow(source: Source, first: number, lines: number): void {
    const state = this.#run.sources[source]
    if (first > state.high + 1) this.missing(source, first - 1, GAP)
    state.high += lines
    state.written += lines
    if (state.expired) this.#unexpire(state)
  }

  /** @returns whether line n is to be written */
  #line(source: Source, n: number): boolean {
    const state = this.#run.sources[source]
    if (n > state.high) {
      this.missing(source, n - 1, GAP)
      state.high = n
      if (state.expired) this.#unexpire(state)
      return true
    }
    const index = state.holes.findIndex(({ from, to }) => n >= from && n <= to)
    if (index === -1) return false
    const hole = state.holes[index]!
    const rest = [
      { ...hole, to: n - 1 },
      { ...hole, from: n + 1 },
    ].filter(({ from, to }) => from <= to)
    state.holes.splice(index, 1, ...rest)
    const { lost } = this.#totalsOf(hole.day)
    add(lost, hole.reason, -1)
    this.#trim(state)
    return true
  }

  /** A line came behind what Kafka dropped. */
  #unexpire(state: SourceState): void {
    delete state.expired
    this.#totalsOf(this.#day)
  }

  #trim(state: SourceState): void {
    while (state.holes.length > MAX_HOLES) {
      const { from, to, reason } = state.holes.shift()!
      add(state.closed, reason, to - from + 1)
    }
  }
}

/**
 * Adds to the lines of a reason. The reason is a sender's word: one that every object has by itself, such as `constructor`, is no count,
 * and as many as somebody can think of are not told apart; one that is, stays so.
 * Nor does the sum of absurd numbers leave the integers that a checkpoint takes, to either side.
 */
export function add(lost: Record<string, number>, said: string, lines: number): void {
  const isApart =
    Object.hasOwn(lost, said) || said === GAP || said === EXPIRED || Object.keys(lost).length < MAX_REASONS
  const reason = isApart ? said : OTHER_REASON
  const known = Object.hasOwn(lost, reason) ? lost[reason]! : 0
  lost[reason] = saturated(known + lines)
}

/** The safe integer that is nearest to a sum. */
export const saturated = (sum: number): number =>
  Math.min(Math.max(sum, Number.MIN_SAFE_INTEGER), Number.MAX_SAFE_INTEGER)

/** Partitions of which Kafka has dropped records before they were read, and how far their logs went by then. */
export function* expiredOf(state: {
  partitions: ReadonlyMap<number, { expiredTo?: number }>
}): Generator<[partition: number, to: number]> {
  for (const [partition, { expiredTo }] of state.partitions) if (expiredTo !== undefined) yield [partition, expiredTo]
}

/** Keys of those that are counted again from now on, but for the ones that are among `others`. */
function keysOf<T extends { counted: boolean }>(
  counted: readonly T[],
  keyOf: (of: T) => string,
  others: ReadonlySet<string>,
): string[] {
  const keys: string[] = []
  for (const of of counted) {
    of.counted = false
    if (!others.has(keyOf(of))) keys.push(keyOf(of))
  }
  return keys
}

/** Holes are never changed, but replaced: they are shared. */
const copyOfRun = (run: RunState | undefined): RunState | undefined =>
  run && { ...run, sources: [copyOfSource(run.sources[STDOUT]), copyOfSource(run.sources[STDERR])] }

const copyOfSource = (source: SourceState): SourceState => ({
  ...source,
  holes: [...source.holes],
  closed: { ...source.closed },
})

/** The source of a chunk's line. */
export const sourceOf = (chunk: Chunk, line: number): Source => ((chunk.src[line >> 3]! >> (line & 7)) & 1) as Source

/** Numbers of a source that are lost, by reason. */
export function lostOf({ holes, closed }: SourceState): Record<string, number> {
  const lost = { ...closed }
  for (const { from, to, reason } of holes) add(lost, reason, to - from + 1)
  return lost
}
