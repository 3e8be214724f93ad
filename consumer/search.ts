/**
 * Search over history: ripgrep finds lines, the index says whose they are.
 *
 * The files are searched day by day, in batches, each by a ripgrep of its own and two of them at a time; what they find is told in the
 * order of the files. Where ripgrep can look at a file as it lies on the disk it does; where it cannot (`jsonl`, a `^` that cannot be
 * put behind a stamp, a small part of a large file) it is given what was printed.
 *
 * Invariants
 * - A line is found if what was printed matches, and only then: neither stamp nor name is searched.
 * - Lines are of rows that are wanted: of the range, the hosts, containers and sources that were asked for.
 * - What ripgrep finds beyond what is sent waits in its pipe: memory is bounded by a batch's list of files, and backwards by `limit`.
 */
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { RE2JS } from 're2js'
import type { Access } from './access.ts'
import type { Gap, SearchQuery } from './api-schema.ts'
import { type FileState, storedAt } from './checkpoint.ts'
import { FileLines } from './context.ts'
import type { Events } from './event-stream.ts'
import type { Names } from './index-log.ts'
import { type History, isWanted, readStretches, tellGap, wantedOf } from './lines.ts'
import { anchorOf, printedArguments, stampedArguments } from './pattern.ts'
import { checkPattern, ripgrep } from './ripgrep.ts'
import type { Picked, Rows, Wanted } from './row-cache.ts'
import { compile, spansOf, type TextFilter, textFilter } from './selection.ts'
import type { Slots } from './slots.ts'
import { byTime, lineEvent, parseLines, type StoredLine, type Stretch, textBegin } from './stored-line.ts'

const BATCH_FILES = 128
const BATCH_BYTES = 256 * 1024 * 1024
/** As many ripgreps work at a time for one search; as many batches beyond that may have found something that is not told yet. */
const PARALLEL = 2
const AHEAD = 6
/** A file of which less than this share is wanted is not searched as a whole. */
const LEAST_SHARE = 1 / 4
const PROGRESS_MS = 250
const FED_BYTES = 256 * 1024

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

/** A file that holds wanted rows. */
type Target = { file: string; day: string; parts: Picked[]; bytes: number; whole: boolean }

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
  #context: SearchContext
  #query: SearchQuery
  #exclude: TextFilter | undefined
  #progress: Progress
  #wanted: Wanted
  #partial: Gap[] = []
  #sent = 0
  #limited = false
  /** What marks the places that matched: ripgrep's own language is nearly RE2's. */
  #marker: RE2JS | undefined
  /** The case of letters costs ripgrep its speed in a pattern that has stamp and name in front: it goes without until that matters. */
  #stamped: boolean
  #last: { file: string; position: number } | undefined

  constructor(context: SearchContext, query: SearchQuery, exclude: TextFilter | undefined, progress: Progress) {
    this.#context = context
    this.#query = query
    this.#exclude = exclude
    this.#progress = progress
    this.#wanted = wantedOf(query, context.may)
    this.#marker = markerOf(query)
    const { fixed, ignoreCase, pattern, word, invert } = query
    const tied = !fixed && anchorOf(pattern) !== 'none'
    this.#stamped = tied || word || invert || !(ignoreCase || pattern.includes('(?i'))
  }

  end(): string {
    return JSON.stringify({ type: 'end', lines: this.#sent, limited: this.#limited, partial: this.#partial })
  }

  async *run(): AsyncGenerator<string[]> {
    const targets = await this.#targets()
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
    for await (const [target, hits] of this.#hits(targets)) {
      for (const hit of hits) {
        if (this.#sent === this.#query.limit) {
          this.#limited = true
          break
        }
        this.#sent++
        this.#tell(hit, target)
      }
      yield await this.#told(this.#limited)
      if (this.#limited) return
    }
    yield await this.#told(true)
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
    for await (const [target, hits] of this.#hits(targets)) {
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
      this.#tell(line, target)
      if (this.#pending.length >= 100) yield await this.#told()
    }
    yield await this.#told(true)
  }

  async *#count(targets: Target[]): AsyncGenerator<string[]> {
    const counts = new Map<Target, number>()
    for await (const [target, hits] of this.#hits(targets)) {
      counts.set(target, (counts.get(target) ?? 0) + hits.length)
      this.#sent += hits.length
      yield []
    }
    yield Array.from(counts, ([{ file, parts }, lines]) => {
      const { service, module } = namesOf(parts)
      return JSON.stringify({ type: 'count', file, service, module, lines })
    })
  }

  #pending: { line: StoredLine; target: Target }[] = []
  /** Lines of context behind the last match, as long as the next one is not known. */
  #behind: StoredLine[] = []
  #lines: { of: Target; lines: FileLines } | undefined

  #tell(line: StoredLine, target: Target): void {
    this.#pending.push({ line, target })
  }

  /** The events of what is to be told. @param all nothing follows that context behind the last match could run into */
  async #told(all = false): Promise<string[]> {
    const events: string[] = []
    const { before, after } = this.#query
    const flush = (until: number) => {
      for (const line of this.#behind) {
        if (line.position >= until) break
        events.push(lineEvent(line, undefined, true))
        this.#last = line
      }
      this.#behind = []
    }
    for (const { line, target } of this.#pending.splice(0)) {
      const event = lineEvent(line, this.#marker && spansOf(this.#marker, line.text))
      if (before === 0 && after === 0) {
        events.push(event)
        continue
      }
      const same = this.#last?.file === line.file
      flush(same ? line.position : Number.POSITIVE_INFINITY)
      const { front, back } = await this.#neighbours(line, target, before + 1, after)
      const behind = this.#last?.position ?? -1
      const adjoins = same && (front.length <= before || front[0]!.position <= behind)
      if (this.#last && !adjoins) events.push('{"type":"separator"}')
      for (const neighbour of front.slice(-before || front.length))
        if (!same || neighbour.position > behind) events.push(lineEvent(neighbour, undefined, true))
      events.push(event)
      this.#last = line
      this.#behind = back
    }
    if (all) flush(Number.POSITIVE_INFINITY)
    return events
  }

  async #neighbours(
    line: StoredLine,
    target: Target,
    before: number,
    after: number,
  ): Promise<{ front: StoredLine[]; back: StoredLine[] }> {
    if (this.#lines?.of !== target)
      this.#lines = { of: target, lines: new FileLines(this.#context.history.text, stretchesOf(target.parts)) }
    try {
      const around = await this.#lines.lines.around(line.position, before, after, (of) => this.#passes(of))
      const index = around?.lines.findIndex(({ position }) => position === line.position) ?? 0
      return { front: around?.lines.slice(0, index) ?? [], back: around?.lines.slice(index + 1) ?? [] }
    } catch (error) {
      tellGap(this.#partial, line.file, error as Error)
      return { front: [], back: [] }
    }
  }

  #passes(line: StoredLine): boolean {
    return isWanted(this.#wanted, line) && (this.#exclude?.passes(line.text) ?? true)
  }

  /** Files with wanted rows, day by day: the oldest first, or the newest. */
  async #targets(): Promise<Target[]> {
    const targets: Target[] = []
    const { rows } = this.#context.history
    const days = this.#query.last ? rows.days.toReversed() : rows.days
    for (const day of days) {
      const picked = await rows.day(day, this.#wanted, this.#partial)
      const files = new Map<string, Target>()
      for (const { rows, picked: all } of picked) {
        for (const [place, places] of byFile(rows, all)) {
          const file = rows.files[place]!
          let target = files.get(file)
          if (!target) {
            target = { file, day, parts: [], bytes: 0, whole: false }
            files.set(file, target)
          }
          target.parts.push({ rows, picked: places })
        }
      }
      for (const target of files.values()) {
        const { wanted, end, formats } = measure(target.parts)
        const asks = formats.size === 1 ? this.#argsFor([...formats][0]!) : undefined
        target.whole = asks !== undefined && wanted >= end * LEAST_SHARE
        target.bytes = target.whole ? end : wanted
      }
      targets.push(...[...files.values()].sort((a, b) => (a.file < b.file ? -1 : 1)))
    }
    return targets
  }

  /** What ripgrep is asked about files as they lie on the disk, where it can be. */
  #argsFor(format: string): string[] | undefined {
    if (format === 'raw') return printedArguments(this.#query)
    if (format !== 'text') return undefined
    const stamped = stampedArguments(this.#query)
    return stamped && !this.#stamped ? printedArguments(this.#query) : stamped
  }

  /** What is found in the files, in their order and that of their lines. */
  async *#hits(targets: Target[]): AsyncGenerator<[Target, StoredLine[]]> {
    const batches = batchesOf(targets)
    const running: Ahead<[Target, StoredLine[]]>[] = []
    const stop = new AbortController()
    const signal = AbortSignal.any([this.#context.signal, stop.signal])
    const fill = () => {
      const busy = () => running.filter((ahead) => ahead.busy).length
      while (batches.length > 0 && busy() < PARALLEL && running.length < PARALLEL + AHEAD)
        running.push(new Ahead(this.#search(batches.shift()!, signal), fill))
    }
    try {
      for (fill(); running.length > 0; fill()) {
        const first = running[0]!
        for (let next = await first.next(); !next.done; next = await first.next()) yield next.value
        running.shift()
      }
    } finally {
      batches.length = 0
      stop.abort()
      for (const ahead of running) await ahead.stop()
    }
  }

  async *#search(batch: Target[], signal: AbortSignal): AsyncGenerator<[Target, StoredLine[]]> {
    const found = batch[0]!.whole ? this.#searchFiles(batch, signal) : this.#searchPrinted(batch, signal)
    for await (const [target, lines] of found) {
      const hits = lines.filter((line) => this.#passes(line))
      this.#progress.matched += hits.length
      if (hits.length > 0) yield [target, hits]
    }
    this.#progress.files += batch.length
    this.#progress.bytes += batch.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  async *#searchFiles(batch: Target[], signal: AbortSignal): AsyncGenerator<[Target, StoredLine[]]> {
    const paths = new Map<string, Target>()
    for (const target of batch) {
      try {
        paths.set(await this.#pathOf(target.file), target)
      } catch (error) {
        tellGap(this.#partial, target.file, error as Error)
      }
    }
    let left = [...paths.keys()]
    let from = 0
    while (left.length > 0) {
      const loose = formatOf(batch[0]!) === 'text' && !this.#stamped
      const restart = yield* this.#searchPaths(left, paths, from, loose, signal)
      if (!restart) return
      this.#stamped = true
      left = left.slice(left.indexOf(restart.path))
      from = restart.offset
    }
  }

  /** Where a file lies. @throws Error where it is not there, or by a link, which leads out of the root */
  async #pathOf(file: string): Promise<string> {
    const { root, files } = this.#context
    const path = join(root, storedAt(file, files.get(file) ?? {}))
    // One that is about to be compressed has its plain name until the moment at which it has the other.
    const found = await realpath(path).catch(() => realpath(join(root, file)))
    if (found !== path && found !== join(root, file)) throw new Error('it is reached by a link')
    return found
  }

  /**
   * @param from where in the first file to begin
   * @param loose stamps and names are searched as well: what matches in there has to be asked for again
   * @returns where to go on with a pattern that leaves them out
   */
  async *#searchPaths(
    files: readonly string[],
    targets: ReadonlyMap<string, Target>,
    from: number,
    loose: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<[Target, StoredLine[]], { path: string; offset: number } | undefined> {
    let file: { target: Target; places: Places } | undefined
    const args = this.#argsFor(formatOf(targets.get(files[0]!)!))!
    const complain = (message: string) => this.#complain(message, targets)
    let lines: StoredLine[] = []
    for await (const found of ripgrep({ args, files, complain, signal })) {
      const target = targets.get(found.path)
      if (!target || (found.path === files[0] && found.offset < from)) continue
      if (file?.target !== target) {
        if (file && lines.length > 0) yield [file.target, lines]
        lines = []
        file = { target, places: new Places(target.parts) }
      }
      const stretch = file.places.at(found.offset)
      if (!stretch) continue
      if (loose && found.first < textBegin(found.bytes, 0, found.bytes.length)) {
        if (lines.length > 0) yield [target, lines]
        return { path: found.path, offset: found.offset }
      }
      lines.push(...parseLines({ ...stretch, position: found.offset }, found.bytes))
      if (lines.length < 64) continue
      yield [target, lines]
      lines = []
    }
    if (file && lines.length > 0) yield [file.target, lines]
    return undefined
  }

  /** Gives ripgrep what was printed, and finds the lines again by their numbers. */
  async *#searchPrinted(batch: Target[], signal: AbortSignal): AsyncGenerator<[Target, StoredLine[]]> {
    const { text } = this.#context.history
    const fed: { first: number; target: Target; stretch: Stretch }[] = []
    const partial = this.#partial
    const wanted = this.#wanted
    async function* printed(): AsyncGenerator<string> {
      let lines = 0
      let piece = ''
      for (const target of batch) {
        for (const stretches of inBatches(stretchesOf(target.parts))) {
          for await (const [stretch, bytes] of readStretches(text, stretches, partial, signal)) {
            const read = parseLines(stretch, bytes).filter((line) => isWanted(wanted, line))
            if (read.length === 0) continue
            fed.push({ first: lines + 1, target, stretch: { ...stretch, bytes: bytes.length } })
            lines += read.length
            for (const line of read) piece += `${line.text.replaceAll('\n', ' ')}\n`
            if (piece.length < FED_BYTES) continue
            yield piece
            piece = ''
          }
        }
      }
      if (piece !== '') yield piece
    }
    let at = 0
    let read: { at: number; lines: StoredLine[] } | undefined
    const complain = (message: string) => this.#complain(message, new Map())
    const input = Readable.from(printed(), { objectMode: false })
    let lines: StoredLine[] = []
    for await (const { number } of ripgrep({ args: printedArguments(this.#query), input, complain, signal })) {
      const before = at
      while (at + 1 < fed.length && fed[at + 1]!.first <= number) at++
      const { first, target, stretch } = fed[at]!
      if (at !== before && lines.length > 0) {
        yield [fed[before]!.target, lines]
        lines = []
      }
      if (read?.at !== at) {
        const bytes = await text.readRange(stretch.file, stretch.position, stretch.bytes)
        read = { at, lines: parseLines(stretch, bytes).filter((line) => isWanted(wanted, line)) }
      }
      const line: StoredLine | undefined = read.lines[number - first]
      if (line) lines.push(line)
      if (lines.length < 64) continue
      yield [target, lines]
      lines = []
    }
    if (lines.length > 0) yield [fed[at]!.target, lines]
  }

  #complain(message: string, targets: ReadonlyMap<string, Target>): void {
    const about = targets.entries().find(([path]) => message.includes(path))
    if (about) tellGap(this.#partial, about[1].file, new Error(message.replaceAll(about[0], about[1].file)))
    else this.#partial.push({ message })
  }
}

/** A generator that is asked for its next value before anybody wants it, so that its work goes on. */
class Ahead<T> {
  /** Whether it works on its next value. */
  busy = false
  #from: AsyncGenerator<T>
  #settled: () => void
  #next: Promise<IteratorResult<T>>

  /** @param settled a value is there, or there are no more */
  constructor(from: AsyncGenerator<T>, settled: () => void) {
    this.#from = from
    this.#settled = settled
    this.#next = this.#ask()
  }

  async next(): Promise<IteratorResult<T>> {
    const got = await this.#next
    if (!got.done) this.#next = this.#ask()
    return got
  }

  async stop(): Promise<void> {
    await this.#from.return(undefined)
  }

  #ask(): Promise<IteratorResult<T>> {
    this.busy = true
    const next = this.#from.next().finally(() => {
      this.busy = false
      this.#settled()
    })
    // Whoever asks for it hears what went wrong.
    next.catch(() => {})
    return next
  }
}

/** The wanted rows of a file, reached by a position. */
class Places {
  #stretches: Stretch[]

  constructor(parts: readonly Picked[]) {
    this.#stretches = stretchesOf(parts)
  }

  /** @returns undefined where no wanted row is */
  at(position: number): Stretch | undefined {
    let low = 0
    let high = this.#stretches.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#stretches[middle]!.position <= position) low = middle + 1
      else high = middle
    }
    const found = this.#stretches[low - 1]
    return found && position < found.position + found.bytes ? found : undefined
  }
}

const stretchesOf = (parts: readonly Picked[]): Stretch[] =>
  parts.flatMap(({ rows, picked }) => Array.from(picked, (i) => rows.at(i))).sort((a, b) => a.position - b.position)

/** Picked rows file by file. */
function byFile(rows: Rows, picked: Uint32Array): [file: number, picked: Uint32Array][] {
  const counts = new Uint32Array(rows.files.length)
  for (const i of picked) counts[rows.file[i]!]!++
  const places = Array.from(counts, (count) => new Uint32Array(count))
  counts.fill(0)
  for (const i of picked) {
    const file = rows.file[i]!
    places[file]![counts[file]!++] = i
  }
  return places.flatMap((of, file): [number, Uint32Array][] => (of.length > 0 ? [[file, of]] : []))
}

/** How many bytes are wanted, where the last of them end, and in which formats they are. */
function measure(parts: readonly Picked[]): { wanted: number; end: number; formats: Set<string> } {
  const measured = { wanted: 0, end: 0, formats: new Set<string>() }
  for (const { rows, picked } of parts) {
    for (const i of picked) {
      measured.wanted += rows.bytes[i]!
      measured.end = Math.max(measured.end, rows.position[i]! + rows.bytes[i]!)
      measured.formats.add(rows.names[rows.name[i]!]!.format)
    }
  }
  return measured
}

const namesOf = ([first]: readonly Picked[]): Names => first!.rows.names[first!.rows.name[first!.picked[0]!]!]!

const formatOf = ({ parts }: Target): string => namesOf(parts).format

/** Files that one ripgrep searches: in order, in the same way, and of no more than a bounded number of bytes. */
function batchesOf(targets: readonly Target[]): Target[][] {
  const batches: Target[][] = []
  let bytes = 0
  for (const target of targets) {
    const batch = batches.at(-1)
    const like = batch && batch[0]!.whole === target.whole && formatOf(batch[0]!) === formatOf(target)
    if (batch && like && batch.length < BATCH_FILES && bytes + target.bytes <= BATCH_BYTES) {
      batch.push(target)
      bytes += target.bytes
    } else {
      batches.push([target])
      bytes = target.bytes
    }
  }
  return batches
}

function* inBatches(stretches: readonly Stretch[]): Generator<Stretch[]> {
  let batch: Stretch[] = []
  let bytes = 0
  for (const stretch of stretches) {
    batch.push(stretch)
    bytes += stretch.bytes
    if (bytes < FED_BYTES) continue
    yield batch
    batch = []
    bytes = 0
  }
  if (batch.length > 0) yield batch
}

/** What finds the matched places again. @returns undefined where there are none, or RE2 does not know the pattern */
function markerOf({ pattern, fixed, ignoreCase, word, invert }: SearchQuery): RE2JS | undefined {
  if (invert || pattern === '') return undefined
  const core = fixed ? pattern.replace(/[\\^$.|?*+()[\]{}]/g, '\\$&') : pattern
  try {
    return compile(word ? `\\b(?:${core})\\b` : core, ignoreCase)
  } catch {
    return undefined
  }
}
