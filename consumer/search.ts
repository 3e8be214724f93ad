/**
 * Search over history: ripgrep finds lines, the index says whose they are. Day by day: the files that hold wanted rows
 * (search-targets.ts), what is found in them (search-hits.ts), and what of that is told (match-events.ts).
 *
 * Invariants
 * - Lines are of rows that are wanted: of the range, the hosts, containers and sources that were asked for.
 * - What is told is in the order of the files. Memory is bounded by a batch's list of files, and backwards by `limit`.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Access } from './access.ts'
import type { Gap, SearchQuery } from './api-schema.ts'
import type { FileState } from './checkpoint.ts'
import type { Events } from './event-stream.ts'
import { type History, isWanted, wantedOf } from './lines.ts'
import { MatchEvents } from './match-events.ts'
import { printedArguments } from './pattern.ts'
import { checkPattern } from './ripgrep.ts'
import type { RowCache, Wanted } from './row-cache.ts'
import { Hits } from './search-hits.ts'
import { namesOf, type Target, targetsOf } from './search-targets.ts'
import { type TextFilter, textFilter } from './selection.ts'
import type { Slots } from './slots.ts'
import { byTime, type StoredLine } from './stored-line.ts'

const PROGRESS_MS = 250

export type SearchContext = {
  history: History
  /** The folder of the files, with no link in its path. */
  root: string
  /** Files as the checkpoint says. */
  files: ReadonlyMap<string, FileState>
  slots: Slots
  /** Whose search it is; undefined where callers are not told apart. */
  caller?: string | undefined
  may: Access['may']
  signal: AbortSignal
}

type Progress = { files: number; filesTotal: number; bytes: number; bytesTotal: number; matched: number }

/** @throws ConsumerError before the first event, for a question that is not understood */
export async function* search(context: SearchContext, query: SearchQuery): Events {
  const { slots, signal } = context
  const exclude = textFilter({ include: [], exclude: query.exclude, ignoreCase: query.ignoreCase })
  await checkPattern(printedArguments(query))
  const slot = slots.take(context.caller)
  try {
    const progress: Progress = { files: 0, filesTotal: 0, bytes: 0, bytesTotal: 0, matched: 0 }
    const tell = (queued?: number) => JSON.stringify({ type: 'progress', ...progress, queued })
    while (slot.ahead > 0 && !signal.aborted) {
      yield [tell(slot.ahead)]
      await Promise.race([slot.free, sleep(PROGRESS_MS)])
    }
    const work = new Work(context, query, exclude, progress)
    for await (const events of ticking(work.run(), PROGRESS_MS, signal)) yield events ?? [tell()]
    if (!signal.aborted) yield [tell(), work.end()]
  } finally {
    slot.release()
  }
}

/** What a generator gives, and undefined each time that it gives nothing for so many ms. Ends it once the signal is aborted. */
async function* ticking<T>(from: AsyncGenerator<T>, ms: number, signal: AbortSignal): AsyncGenerator<T | undefined> {
  const left = new Promise<undefined>((resolve) => signal.addEventListener('abort', () => resolve(undefined)))
  let next = from.next()
  try {
    let told = performance.now()
    while (!signal.aborted) {
      const timer = new AbortController()
      const wait = sleep(Math.max(0, told + ms - performance.now()), undefined, { signal: timer.signal }).catch(
        () => {},
      )
      const got = await Promise.race([next, wait, left])
      timer.abort()
      if (signal.aborted) return
      if (got) {
        if (got.done) return
        yield got.value
        next = from.next()
      }
      if (performance.now() - told < ms) continue
      told = performance.now()
      yield undefined
    }
  } finally {
    next.catch(() => {})
    await from.return(undefined).catch(() => {})
  }
}

class Work {
  #rows: RowCache
  #query: SearchQuery
  #exclude: TextFilter | undefined
  #progress: Progress
  #wanted: Wanted
  #partial: Gap[] = []
  #sent = 0
  #limited = false
  #hits: Hits
  #events: MatchEvents

  constructor(context: SearchContext, query: SearchQuery, exclude: TextFilter | undefined, progress: Progress) {
    const { history, root, files, signal, may } = context
    this.#rows = history.rows
    this.#query = query
    this.#exclude = exclude
    this.#progress = progress
    this.#wanted = wantedOf(query, may)
    const shared = { query, passes: (line: StoredLine) => this.#passes(line), partial: this.#partial }
    this.#hits = new Hits({
      ...shared,
      history,
      root,
      files,
      signal,
      wanted: this.#wanted,
      done: (what) => this.#done(what),
    })
    this.#events = new MatchEvents({ ...shared, text: history.text })
  }

  end(): string {
    return JSON.stringify({ type: 'end', lines: this.#sent, limited: this.#limited, partial: this.#partial })
  }

  async *run(): AsyncGenerator<string[]> {
    const canSearch = (format: string) => this.#hits.canSearch(format)
    const targets = await targetsOf(this.#rows, this.#wanted, this.#query.last, canSearch, this.#partial)
    this.#progress.filesTotal = targets.length
    this.#progress.bytesTotal = targets.reduce((sum, { bytes }) => sum + bytes, 0)
    for (const [, ofDay] of Map.groupBy(targets, ({ day }) => day)) {
      if (this.#query.count) yield* this.#count(ofDay)
      else if (this.#query.last) yield* this.#lastOf(ofDay)
      else yield* this.#firstOf(ofDay)
      if (this.#limited) return
    }
  }

  async *#firstOf(targets: Target[]): AsyncGenerator<string[]> {
    for await (const [target, hits] of this.#hits.of(targets)) {
      for (const hit of hits) {
        if (this.#sent === this.#query.limit) {
          this.#limited = true
          break
        }
        this.#sent++
        this.#events.add(hit, target)
      }
      yield await this.#events.take(this.#limited)
      if (this.#limited) return
    }
    yield await this.#events.take(true)
  }

  /** The latest of a day's matches, told in the order of the files. */
  async *#lastOf(targets: Target[]): AsyncGenerator<string[]> {
    const left = this.#query.limit - this.#sent
    let latest: { line: StoredLine; target: Target }[] = []
    const cut = () => {
      if (latest.length <= left) return
      this.#limited = true
      latest = latest.sort((a, b) => byTime(b.line, a.line)).slice(0, left)
    }
    for await (const [target, hits] of this.#hits.of(targets)) {
      latest.push(...hits.map((line) => ({ line, target })))
      if (latest.length > 2 * left + 1000) cut()
      // Only whether there is one more was to be known.
      if (left === 0 && latest.length > 0) break
      yield []
    }
    cut()
    const order = new Map(targets.map((target, i) => [target, i]))
    latest.sort((a, b) => order.get(a.target)! - order.get(b.target)! || a.line.position - b.line.position)
    for (const { line, target } of latest) {
      this.#sent++
      this.#events.add(line, target)
      if (this.#events.waiting >= 100) yield await this.#events.take()
    }
    yield await this.#events.take(true)
  }

  async *#count(targets: Target[]): AsyncGenerator<string[]> {
    const counts = new Map<Target, number>()
    for await (const [target, hits] of this.#hits.of(targets)) {
      counts.set(target, (counts.get(target) ?? 0) + hits.length)
      this.#sent += hits.length
      yield []
    }
    yield Array.from(counts, ([{ file, parts }, lines]) => {
      const { service, module } = namesOf(parts)
      return JSON.stringify({ type: 'count', file, service, module, lines })
    })
  }

  #done({ files, bytes, matched }: { files: number; bytes: number; matched: number }): void {
    this.#progress.files += files
    this.#progress.bytes += bytes
    this.#progress.matched += matched
  }

  #passes(line: StoredLine): boolean {
    return isWanted(this.#wanted, line) && (this.#exclude?.passes(line.text) ?? true)
  }
}
