/**
 * Streams of several consumers made into one.
 *
 * Invariants
 * - A consumer that breaks off or goes away is told as missing, and the others go on.
 * - What a reader does not take is not asked for: nothing is read ahead of it but a batch of each consumer, and a tail's HELD_BYTES.
 * - Lines of history are in the order of time, whatever each consumer's pace is. Matches of a search are in the order of their days and
 *   files as far as they come together, because one consumer may search for long without finding anything; the last ones are those of
 *   all, by time, and no consumer's are told before all have told theirs of that day.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { EndEvent, Gap, Line, LinesEvent, ProgressEvent, SearchEvent, TailEvent } from './api-schema.ts'
import type { Batch } from './batch.ts'
import { qualified } from './merge-answers.ts'

/** What one of several consumers says. `events` may throw: that is its end. */
export type Feed<E> = {
  /** May get known only when it says something. */
  readonly name: string
  events: AsyncGenerator<E[]>
}

/** A search's matches wait so long for earlier ones of others, ms. */
const SEARCH_HOLD_MS = 250
/** And a tail's lines, beyond what each consumer holds them itself. */
export const TAIL_HOLD_MS = 100
/** A tail's history is waited for so long, ms. */
const HISTORY_MS = 15_000
/** Lines that a tail holds at most, and the last lines of a range. */
const HELD_BYTES = 16 * 1024 * 1024
const LAST_BYTES = 64 * 1024 * 1024
const BATCH = 1_000

const SEPARATOR: SearchEvent = { type: 'separator' }

const qualifiedLine = (name: string, line: Line): Line => ({
  ...line,
  at: qualified(name, line.at),
  file: qualified(name, line.file),
})

/** One feed, event by event, with what it said of itself. */
class Cursor<E extends { type: string }> {
  /** What was not told yet; undefined: it has to be waited for. */
  head: E | undefined
  ended = false
  #feed: Feed<E>
  #batch: E[] = []
  #at = 0
  #partial: Gap[]
  #more: Promise<void> | undefined

  /** @param partial gets why it broke off */
  constructor(feed: Feed<E>, partial: Gap[]) {
    this.#feed = feed
    this.#partial = partial
  }

  get name(): string {
    return this.#feed.name
  }

  /** The next event becomes the head, where it has come already. */
  advance(): void {
    this.head = this.#batch[this.#at++]
  }

  /** Resolves once there is a head, or it has ended. */
  more(): Promise<void> {
    this.#more ??= this.#wait().finally(() => {
      this.#more = undefined
    })
    return this.#more
  }

  async #wait(): Promise<void> {
    while (!this.head && !this.ended) {
      try {
        const { done, value } = await this.#feed.events.next()
        if (done) throw new Error('it broke off')
        // Whoever merges has a heartbeat of its own.
        this.#batch = value.filter(({ type }) => type !== 'heartbeat')
        this.#at = 0
        this.advance()
      } catch (error) {
        this.#partial.push({ consumer: this.name, message: (error as Error).message })
        this.ended = true
      }
    }
  }

  /** It has said all. */
  end(): void {
    this.head = undefined
    this.ended = true
  }

  async close(): Promise<void> {
    this.ended = true
    // It may wait for what never comes; who made it ends that.
    this.#feed.events.return(undefined).catch(() => {})
  }
}

/** What the ends of all come to. */
class Ending {
  limited = false
  readonly partial: Gap[] = []
  lines = 0

  add(name: string, { limited, partial }: EndEvent): void {
    this.limited ||= limited
    this.partial.push(...partial.map((gap) => ({ consumer: name, ...gap })))
  }

  get event(): EndEvent {
    return { type: 'end', lines: this.lines, limited: this.limited, partial: this.partial }
  }
}

/** `GET /lines`: all in the order of time; with `last`, the last of them. */
export async function* mergeLines(
  feeds: readonly Feed<LinesEvent>[],
  { limit, last }: { limit: number; last: boolean },
): AsyncGenerator<LinesEvent[]> {
  const ending = new Ending()
  const tail = new Last(limit)
  let batch: LinesEvent[] = []
  try {
    for await (const line of inOrderOfTime(feeds, ending)) {
      if (last) {
        tail.add(line)
        continue
      }
      if (ending.lines === limit) {
        ending.limited = true
        break
      }
      ending.lines++
      batch.push(line)
      if (batch.length < BATCH) continue
      yield batch
      batch = []
    }
    if (last) {
      ending.limited ||= tail.dropped
      ending.lines = tail.lines.length
      batch = tail.lines
    }
  } finally {
    for (const { events } of feeds) events.return(undefined).catch(() => {})
  }
  yield [...batch, ending.event]
}

async function* inOrderOfTime(feeds: readonly Feed<LinesEvent>[], ending: Ending): AsyncGenerator<Line> {
  const cursors = feeds.map((feed) => new Cursor(feed, ending.partial))
  for (;;) {
    if (cursors.some(({ head, ended }) => !head && !ended)) await Promise.all(cursors.map((cursor) => cursor.more()))
    let first: Cursor<LinesEvent> | undefined
    let least = Number.POSITIVE_INFINITY
    for (const cursor of cursors) {
      if (cursor.head?.type === 'end') {
        ending.add(cursor.name, cursor.head)
        cursor.end()
      } else if (cursor.head?.type === 'line') {
        const time = Date.parse(cursor.head.time)
        if (time >= least) continue
        least = time
        first = cursor
      }
    }
    if (!first) return
    yield qualifiedLine(first.name, first.head as Line)
    first.advance()
  }
}

/** The last lines of those that were added, of a number and of bytes. */
class Last {
  dropped = false
  #limit: number
  #lines: Line[] = []
  #from = 0
  #bytes = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get lines(): Line[] {
    return this.#lines.slice(this.#from)
  }

  add(line: Line): void {
    this.#lines.push(line)
    this.#bytes += line.line.length
    while (this.#lines.length - this.#from > this.#limit || this.#bytes > LAST_BYTES) {
      this.#bytes -= this.#lines[this.#from++]!.line.length
      this.dropped = true
    }
    if (this.#from < this.#limit) return
    this.#lines = this.#lines.slice(this.#from)
    this.#from = 0
  }
}

/** `GET /search` */
export async function* mergeSearches(
  feeds: readonly Feed<SearchEvent>[],
  query: SearchBounds & { last: boolean },
  holdMs = SEARCH_HOLD_MS,
): AsyncGenerator<SearchEvent[]> {
  const ending = new Ending()
  const cursors = feeds.map((feed) => new Cursor(feed, ending.partial))
  try {
    if (query.last) yield* lastMatches(cursors, ending, query)
    else yield* firstMatches(cursors, ending, query, holdMs)
  } finally {
    for (const cursor of cursors) await cursor.close()
  }
  yield [ending.event]
}

type SearchBounds = { limit: number; before: number; after: number }

/** What searches say that is neither a match nor in its context. */
class Asides {
  #ending: Ending
  #progress = new Map<unknown, ProgressEvent>()
  #told = true
  #counts: SearchEvent[] = []

  constructor(ending: Ending) {
    this.#ending = ending
  }

  /** Takes the head of a cursor. */
  take(cursor: Cursor<SearchEvent>, head: Exclude<SearchEvent, Line>): void {
    if (head.type === 'count') {
      this.#ending.lines += head.lines
      this.#counts.push({ ...head, file: qualified(cursor.name, head.file) })
    } else if (head.type === 'progress') {
      this.#progress.set(cursor, head)
      this.#told = false
    } else if (head.type === 'end') this.#ending.add(cursor.name, head)
    if (head.type === 'end') cursor.end()
    else cursor.advance()
  }

  /** What of it is to be told on. */
  shift(): SearchEvent[] {
    const events = this.#counts.splice(0)
    if (!this.#told) events.push(total(this.#progress))
    this.#told = true
    return events
  }
}

async function* firstMatches(
  cursors: readonly Cursor<SearchEvent>[],
  ending: Ending,
  { limit, before, after }: SearchBounds,
  holdMs: number,
): AsyncGenerator<SearchEvent[]> {
  const asides = new Asides(ending)
  const inContext = before + after > 0
  let current: Cursor<SearchEvent> | undefined
  let separated = true
  let since = performance.now()
  for (;;) {
    for (const cursor of cursors) {
      for (let head = cursor.head; head && head.type !== 'line'; head = cursor.head) {
        if (head.type === 'separator') separated ||= cursor === current
        asides.take(cursor, head)
      }
    }
    const out = asides.shift()
    if (out.length > 0) yield out
    const ready = cursors.filter(({ head }) => head)
    const waiting = cursors.filter(({ head, ended }) => !head && !ended)
    if (ready.length === 0 && waiting.length === 0) return
    const patience = since + holdMs - performance.now()
    if (waiting.length > 0 && (ready.length === 0 || patience > 0)) {
      const heads = waiting.map((cursor) => cursor.more())
      if (ready.length === 0) {
        await Promise.race(heads)
        since = performance.now()
      } else {
        const timer = new AbortController()
        await Promise.race([...heads, sleep(patience, undefined, { signal: timer.signal }).catch(() => {})])
        timer.abort()
      }
      continue
    }
    // Whoever is in the middle of a match's context goes on with it.
    const going = inContext && !separated && current?.head ? current : undefined
    const first = going ?? ready.reduce((best, cursor) => (isBefore(fileOf(cursor), fileOf(best)) ? cursor : best))
    const events: SearchEvent[] = []
    if (inContext && ending.lines > 0 && (separated || first !== current)) events.push(SEPARATOR)
    current = first
    separated = false
    while (first.head?.type === 'line') {
      if (!first.head.context && ending.lines === limit) {
        ending.limited = true
        break
      }
      if (!first.head.context) ending.lines++
      events.push(qualifiedLine(first.name, first.head))
      const { file } = first.head
      first.advance()
      if (first.head?.type === 'line' && first.head.file !== file) break
    }
    yield events
    since = performance.now()
    if (ending.limited && ending.lines === limit) return
  }
}

/** From the newest day backwards. A day's matches are told once all have told theirs: an earlier file may hold a later match. */
async function* lastMatches(
  cursors: readonly Cursor<SearchEvent>[],
  ending: Ending,
  bounds: SearchBounds,
): AsyncGenerator<SearchEvent[]> {
  const asides = new Asides(ending)
  let day: string | undefined
  let matches = new LastMatches(bounds, bounds.limit)
  for (;;) {
    for (const cursor of cursors) {
      for (let head = cursor.head; head; head = cursor.head) {
        if (head.type === 'line') {
          if (dayOf(head.file) !== day) break
          matches.add(cursor, head)
          cursor.advance()
        } else {
          if (head.type === 'separator') matches.separate(cursor)
          asides.take(cursor, head)
        }
      }
    }
    const out = asides.shift()
    if (out.length > 0) yield out
    if (ending.lines === bounds.limit && matches.count > 0) {
      // Only whether there is one more was to be known.
      ending.limited = true
      return
    }
    const waiting = cursors.filter(({ head, ended }) => !head && !ended)
    if (waiting.length > 0) {
      await Promise.race(waiting.map((cursor) => cursor.more()))
      continue
    }
    const events = matches.events(ending.lines > 0)
    ending.lines += matches.count
    ending.limited ||= matches.dropped
    if (events.length > 0) yield events
    const days = cursors.flatMap(({ head }) => (head?.type === 'line' ? [dayOf(head.file)] : []))
    if (matches.dropped || days.length === 0) return
    day = days.reduce((newest, one) => (one > newest ? one : newest))
    matches = new LastMatches(bounds, bounds.limit - ending.lines)
  }
}

/** Neighbours in a file, and whose it is. */
type Group = { name: string; lines: Line[] }

/** The last matches of a day, of a number and of LAST_BYTES, with their context. */
class LastMatches {
  dropped = false
  /** How many matches there are. */
  count = 0
  #bounds: SearchBounds
  #limit: number
  #groups: Group[] = []
  /** To which each consumer adds. */
  #open = new Map<Cursor<SearchEvent>, Group>()
  #bytes = 0

  constructor(bounds: SearchBounds, limit: number) {
    this.#bounds = bounds
    this.#limit = limit
  }

  add(cursor: Cursor<SearchEvent>, line: Line): void {
    const { before, after } = this.#bounds
    const open = this.#open.get(cursor)
    const group =
      before + after > 0 && open?.lines[0]?.file === line.file ? open : { name: cursor.name, lines: [] as Line[] }
    if (group !== open) {
      this.#open.set(cursor, group)
      this.#groups.push(group)
    }
    group.lines.push(line)
    this.#bytes += line.line.length
    if (!line.context) this.count++
    const full = this.#bytes > LAST_BYTES
    if (this.count > 2 * this.#limit + BATCH || full)
      this.#cut(full ? Math.min(this.#limit, this.count >> 1) : this.#limit)
  }

  /** What a consumer adds from here on are no neighbours of what it has added. */
  separate(cursor: Cursor<SearchEvent>): void {
    this.#open.delete(cursor)
  }

  /** All of them, file by file. @param follow something was told before */
  events(follow: boolean): SearchEvent[] {
    this.#open.clear()
    this.#cut(this.#limit)
    const { before, after } = this.#bounds
    const sorted = this.#groups.sort((a, b) =>
      isBefore({ name: a.name, file: a.lines[0]!.file }, { name: b.name, file: b.lines[0]!.file }) ? -1 : 1,
    )
    return sorted.flatMap(({ name, lines }, i) => [
      ...(before + after > 0 && (follow || i > 0) ? [SEPARATOR] : []),
      ...lines.map((line) => qualifiedLine(name, line)),
    ])
  }

  /** Forgets all but the last `keep` matches, and what stands around none of those. */
  #cut(keep: number): void {
    if (this.count <= keep) return
    this.dropped = true
    this.count = keep
    const matches = this.#groups.flatMap(({ lines }) => lines.filter(({ context }) => !context))
    const kept = new Set(matches.sort((a, b) => Date.parse(b.time) - Date.parse(a.time)).slice(0, keep))
    this.#groups = this.#groups.flatMap((group) => this.#around(group, kept))
    this.#bytes = this.#groups.flatMap(({ lines }) => lines).reduce((sum, { line }) => sum + line.length, 0)
  }

  #around(group: Group, kept: ReadonlySet<Line>): Group[] {
    const { before, after } = this.#bounds
    const isOpen = this.#open.values().some((open) => open === group)
    const parts: Group[] = []
    let end = -1
    for (const [i, match] of group.lines.entries()) {
      if (!kept.has(match)) continue
      const from = Math.max(end + 1, i - before)
      if (from > end + 1 || parts.length === 0) parts.push({ name: group.name, lines: [] })
      end = Math.min(group.lines.length - 1, i + after)
      const lines = group.lines.slice(from, end + 1)
      parts.at(-1)!.lines.push(...lines.map((line) => (line.context || kept.has(line) ? line : asContext(line))))
    }
    if (!isOpen) return parts
    // Its consumer adds to it still: it stays as it is, but for matches that are none any more.
    for (const [i, line] of group.lines.entries())
      if (!line.context && !kept.has(line)) group.lines[i] = asContext(line)
    return [group]
  }
}

const asContext = ({ matches, ...line }: Line): Line => ({ ...line, context: true })

const fileOf = ({ name, head }: Cursor<SearchEvent>): FileOf => ({
  name,
  file: (head as Line).file,
})

type FileOf = { name: string; file: string }

/** Days from the oldest on; files of one day stand together, those of one name beside each other. */
function isBefore(a: FileOf, b: FileOf): boolean {
  const [day, otherDay] = [dayOf(a.file), dayOf(b.file)]
  if (day !== otherDay) return day < otherDay
  return a.file < b.file || (a.file === b.file && a.name < b.name)
}

const dayOf = (file: string): string => file.slice(file.lastIndexOf('/') + 1, file.lastIndexOf('/') + 11)

function total(of: Map<unknown, ProgressEvent>): ProgressEvent {
  const sum: ProgressEvent = { type: 'progress', files: 0, filesTotal: 0, bytes: 0, bytesTotal: 0, matched: 0 }
  for (const one of of.values()) {
    for (const key of ['files', 'filesTotal', 'bytes', 'bytesTotal', 'matched'] as const) sum[key] += one[key]
  }
  return sum
}

/** A tail's cursors of several consumers in one: each behind its name. */
export const joinCursors = (cursors: ReadonlyMap<string, string>): string =>
  Array.from(cursors, ([name, cursor]) => qualified(name, cursor)).join(',')

/** @returns the cursor of each by its name; none for what is no such cursor */
export const splitCursors = (cursor: string): Map<string, string> =>
  new Map(
    cursor
      .split(',')
      .map((one) => one.split(':'))
      .filter((pair): pair is [string, string] => pair.length === 2),
  )

/**
 * `GET /tail`. A feed goes on for ever; one that ends does not come back.
 * @param last how many lines of history were asked for; undefined where each goes on behind a cursor
 * @param from where each goes on: what is told of one that says nothing
 * @param own name of the feed whose window is told: all have the same
 */
export async function* mergeTails(
  feeds: readonly Feed<TailEvent | Batch>[],
  { last, own, from }: { last: number | undefined; own: string; from: ReadonlyMap<string, string> | undefined },
  signal: AbortSignal,
  holdMs = TAIL_HOLD_MS,
): AsyncGenerator<(TailEvent | Batch)[]> {
  const cursors = new Map(from)
  const merge = new Held(holdMs)
  const history = new Map<Feed<TailEvent | Batch>, Line[]>(last === undefined ? [] : feeds.map((feed) => [feed, []]))
  const historyEnds = performance.now() + HISTORY_MS
  const window = Promise.withResolvers<number>()
  const pump = async (feed: Feed<TailEvent | Batch>): Promise<void> => {
    try {
      for await (const batch of feed.events) {
        await merge.room()
        if (signal.aborted) return
        const { name } = feed
        for (const event of batch) {
          if (event.type === 'window' && name === own) window.resolve(event.ms)
          if (event.type === 'window' || event.type === 'heartbeat') continue
          if (event.type === 'line') {
            const line = qualifiedLine(name, event)
            const earlier = history.get(feed)
            if (earlier) earlier.push(line)
            else merge.add(line)
          } else if (event.type === 'batch') merge.add(qualifiedBatch(name, event))
          else {
            // What it has of history ends with the first cursor; one that is away has none.
            if (event.type === 'cursor' || event.type === 'gap') history.delete(feed)
            merge.add(event.type === 'gap' ? { consumer: name, ...event } : event, name)
          }
        }
        if (history.size === 0) merge.wake()
      }
      if (!signal.aborted) throw new Error('it broke off')
    } catch (error) {
      window.resolve(0)
      history.delete(feed)
      if (!signal.aborted) merge.add({ type: 'gap', consumer: feed.name, message: (error as Error).message })
    }
  }
  signal.addEventListener('abort', () => merge.wake(), { once: true })
  const past = [...history.values()]
  for (const feed of feeds) pump(feed)
  try {
    yield [{ type: 'window', ms: (await window.promise) + holdMs }]
    while (history.size > 0 && performance.now() < historyEnds && !signal.aborted) await merge.changed(historyEnds)
    history.clear()
    const lines = past.flat().sort((a, b) => Date.parse(a.time) - Date.parse(b.time))
    if (last !== undefined && lines.length > 0) yield lines.slice(-last)
    while (!signal.aborted) {
      const due = await merge.due()
      const events: (TailEvent | Batch)[] = []
      let reached = false
      for (const { event, name } of due) {
        if (event.type !== 'cursor') events.push(event)
        else if (name !== undefined) {
          cursors.set(name, event.cursor)
          reached = true
        }
      }
      if (reached) events.push({ type: 'cursor', cursor: joinCursors(cursors) })
      if (events.length > 0) yield events
    }
  } finally {
    for (const { events } of feeds) events.return(undefined).catch(() => {})
  }
}

type Waiting = { event: TailEvent | Batch; name: string | undefined; arrived: number }

/** What a tail holds back so that lines of several consumers come in the order of their times. */
class Held {
  #holdMs: number
  #waiting: Waiting[] = []
  #bytes = 0
  #changed = Promise.withResolvers<void>()
  #emptied = Promise.withResolvers<void>()

  constructor(holdMs: number) {
    this.#holdMs = holdMs
  }

  add(event: TailEvent | Batch, name?: string): void {
    this.#waiting.push({ event, name, arrived: performance.now() })
    this.#bytes += textOf(event)
    this.wake()
  }

  wake(): void {
    this.#changed.resolve()
  }

  /** Resolves once something was added, or the time has come. */
  async changed(until: number): Promise<void> {
    const timer = new AbortController()
    const wait = sleep(Math.max(0, until - performance.now()), undefined, { signal: timer.signal }).catch(() => {})
    await Promise.race([this.#changed.promise, wait])
    timer.abort()
    this.#changed = Promise.withResolvers()
  }

  /** Resolves once there is room for more. */
  async room(): Promise<void> {
    while (this.#bytes > HELD_BYTES) await this.#emptied.promise
  }

  /**
   * What was held for long enough: lines in the order of their times, then batches as one, then all else.
   * @returns nothing where it was woken without
   */
  async due(): Promise<Waiting[]> {
    if (this.#waiting.length === 0) await this.changed(performance.now() + 60_000)
    const [first] = this.#waiting
    if (!first) return []
    const wait = first.arrived + this.#holdMs - performance.now()
    if (wait > 0 && this.#bytes <= HELD_BYTES) await sleep(wait)
    const now = performance.now()
    const held = this.#waiting.findIndex(({ arrived }) => arrived + this.#holdMs > now)
    const due = this.#waiting.splice(0, held === -1 || this.#bytes > HELD_BYTES ? this.#waiting.length : held)
    const lines = due.filter(({ event }) => event.type === 'line')
    const batches = due.map(({ event }) => event).filter((event) => event.type === 'batch')
    const others = due.filter(({ event }) => event.type !== 'line' && event.type !== 'batch')
    for (const { event } of due) this.#bytes -= textOf(event)
    this.#emptied.resolve()
    this.#emptied = Promise.withResolvers()
    const time = ({ event }: Waiting) => Date.parse((event as Line).time)
    const batch = batches.length === 0 ? [] : [{ event: mergeBatches(batches), name: undefined, arrived: now }]
    return [...lines.sort((a, b) => time(a) - time(b)), ...batch, ...others]
  }
}

/** Bytes of text, or nearly so. */
const textOf = (event: TailEvent | Batch): number =>
  event.type === 'line'
    ? event.line.length
    : event.type === 'batch'
      ? event.stretches.reduce((sum, { bytes }) => sum + bytes.length, 0)
      : 0

const qualifiedBatch = (name: string, { stretches, ...batch }: Batch): Batch => ({
  ...batch,
  stretches: stretches.map(({ head, bytes }) => ({ head: { ...head, file: qualified(name, head.file) }, bytes })),
})

/** Up to the latest time that one of them says: each has been waited for. */
function mergeBatches(batches: readonly Batch[]): Batch {
  const untils = batches.map(({ until }) => until)
  return {
    type: 'batch',
    until: untils.reduce((latest, until) =>
      latest === undefined || until === undefined ? undefined : until > latest ? until : latest,
    ),
    stretches: batches.flatMap(({ stretches }) => stretches),
  }
}
