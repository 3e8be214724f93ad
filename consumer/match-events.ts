/**
 * Lines that matched as the events that are sent: with the places in them that matched, and their neighbours where those are asked for.
 *
 * Invariant: a neighbour of two matches is told once, and what lies between lines that do not adjoin is told as a separator.
 */
import type { RE2JS } from 're2js'
import type { Gap, SearchQuery } from './api-schema.ts'
import { FileLines } from './context.ts'
import type { FileReader } from './file-reader.ts'
import { tellGap } from './lines.ts'
import { stretchesOf, type Target } from './search-targets.ts'
import { compile, spansOf } from './selection.ts'
import { lineEvent, type StoredLine } from './stored-line.ts'

export type MatchEventsOptions = {
  text: FileReader
  query: SearchQuery
  /** Which lines count as neighbours. */
  passes(line: StoredLine): boolean
  /** Gets files whose neighbours could not be read. */
  partial: Gap[]
}

export class MatchEvents {
  #options: MatchEventsOptions
  /** What marks the places that matched: ripgrep's own language is nearly RE2's. */
  #marker: RE2JS | undefined
  #last: { file: string; position: number } | undefined
  #pending: { line: StoredLine; target: Target }[] = []
  /** Lines of context behind the last match, as long as the next one is not known. */
  #behind: StoredLine[] = []
  #lines: { of: Target; lines: FileLines } | undefined

  constructor(options: MatchEventsOptions) {
    this.#options = options
    this.#marker = markerOf(options.query)
  }

  /** How many lines wait to be told. */
  get waiting(): number {
    return this.#pending.length
  }

  /** Takes up a line, in the order in which they are told. */
  add(line: StoredLine, target: Target): void {
    this.#pending.push({ line, target })
  }

  /** The events of what is to be told. @param all nothing follows that context behind the last match could run into */
  async take(all = false): Promise<string[]> {
    const events: string[] = []
    const { before, after } = this.#options.query
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
      this.#lines = { of: target, lines: new FileLines(this.#options.text, stretchesOf(target.parts)) }
    try {
      const around = await this.#lines.lines.around(line.position, before, after, (of) => this.#options.passes(of))
      const index = around?.lines.findIndex(({ position }) => position === line.position) ?? 0
      return { front: around?.lines.slice(0, index) ?? [], back: around?.lines.slice(index + 1) ?? [] }
    } catch (error) {
      tellGap(this.#options.partial, line.file, error as Error)
      return { front: [], back: [] }
    }
  }
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
