/**
 * What ripgrep finds in the files that a search looks at.
 *
 * Files are searched in batches, each by a ripgrep of its own and two of them at a time; what they find is given in the order of the
 * files. Where ripgrep can look at a file as it lies on the disk it does; where it cannot (`jsonl`, a `^` that cannot be put behind a
 * stamp, a small part of a large file) it is given what was printed.
 *
 * Invariants
 * - A line is found if what was printed matches, and only then: neither stamp nor name is searched.
 * - What is found beyond what is taken waits in ripgrep's pipe.
 */
import { realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { Ahead } from './ahead.ts'
import type { Gap, SearchQuery } from './api-schema.ts'
import { type FileState, storedAt } from './checkpoint.ts'
import { type History, isWanted, readStretches, tellGap } from './lines.ts'
import { anchorOf, printedArguments, stampedArguments } from './pattern.ts'
import { ripgrep } from './ripgrep.ts'
import type { Wanted } from './row-cache.ts'
import { batchesOf, formatOf, Places, stretchesOf, type Target } from './search-targets.ts'
import { parseLines, type StoredLine, type Stretch } from './stored-line.ts'
import { textBegin } from './text-line.ts'

/** As many ripgreps work at a time for one search; as many batches beyond that may have found something that is not told yet. */
const PARALLEL = 2
const AHEAD = 6
const FED_BYTES = 256 * 1024

export type HitsOptions = {
  history: History
  /** The folder of the files, with no link in its path. */
  root: string
  /** Files as the checkpoint says. */
  files: ReadonlyMap<string, FileState>
  query: SearchQuery
  wanted: Wanted
  /** Which of the lines that ripgrep finds are meant. */
  passes(line: StoredLine): boolean
  /** Is told what is done: so many files, bytes of them, and lines that matched. */
  done(what: { files: number; bytes: number; matched: number }): void
  /** Gets what could not be searched. */
  partial: Gap[]
  /** Ends the search. */
  signal: AbortSignal
}

export class Hits {
  #options: HitsOptions
  #partial: Gap[]
  /** The case of letters costs ripgrep its speed in a pattern that has stamp and name in front: it goes without until that matters. */
  #stamped: boolean

  constructor(options: HitsOptions) {
    this.#options = options
    this.#partial = options.partial
    const { fixed, ignoreCase, pattern, word, invert } = options.query
    const tied = !fixed && anchorOf(pattern) !== 'none'
    this.#stamped = tied || word || invert || !(ignoreCase || pattern.includes('(?i'))
  }

  /** Whether files of a format can be searched as they lie on the disk. */
  canSearch(format: string): boolean {
    return this.#argsFor(format) !== undefined
  }

  /** What ripgrep is asked about files as they lie on the disk, where it can be. */
  #argsFor(format: string): string[] | undefined {
    if (format === 'raw') return printedArguments(this.#options.query)
    if (format !== 'text') return undefined
    const stamped = stampedArguments(this.#options.query)
    return stamped && !this.#stamped ? printedArguments(this.#options.query) : stamped
  }

  /** What is found in the files, in their order and that of their lines. */
  async *of(targets: Target[]): AsyncGenerator<[Target, StoredLine[]]> {
    const batches = batchesOf(targets)
    const running: Ahead<[Target, StoredLine[]]>[] = []
    const stop = new AbortController()
    const signal = AbortSignal.any([this.#options.signal, stop.signal])
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
    const { passes, done } = this.#options
    for await (const [target, lines] of found) {
      const hits = lines.filter((line) => passes(line))
      done({ files: 0, bytes: 0, matched: hits.length })
      if (hits.length > 0) yield [target, hits]
    }
    done({ files: batch.length, bytes: batch.reduce((sum, { bytes }) => sum + bytes, 0), matched: 0 })
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
    const { root, files } = this.#options
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
    const { text } = this.#options.history
    const fed: { first: number; target: Target; stretch: Stretch }[] = []
    const partial = this.#partial
    const wanted = this.#options.wanted
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
    for await (const { number } of ripgrep({ args: printedArguments(this.#options.query), input, complain, signal })) {
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
