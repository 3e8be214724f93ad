/**
 * The feed: the lines that a view holds, as rows. A stack trace is one row, folded under the line that it began with.
 *
 * Invariants
 * - Holds at most `capacity` rows, and as many lines that wait while the reader reads further up; what it lets go of is counted.
 * - While it is held, rows stay as they are: nothing moves under the reader's eye.
 * - Rows change with `version` alone, once a frame however many lines came.
 */
import { signal } from '@preact/signals'
import type { Line } from '../consumer/api-schema.ts'
import { isError, type Level, levelOf } from './level.ts'
import { Ring } from './ring.ts'
import { continues } from './trace.ts'

export type Row = {
  /** The line's cursor. */
  key: string
  /** Counts up through a feed's life. */
  seq: number
  line: Line
  /** The rest of a stack trace. */
  frames: Line[]
  /** Of the line; null is not known yet. */
  level: Level | undefined | null
}

export const CAPACITY = 10_000
/** A trace with more lines, or slower than this, ms, is no longer folded into one row. */
const FRAMES_MAX = 500
const TRACE_MS = 2_000

export const levelOfRow = (row: Row): Level | undefined => {
  if (row.level === null) row.level = levelOf(row.line.line)
  return row.level
}
/** A line to stderr is no error by itself: much is written there that is none. */
export const isErrorRow = (row: Row): boolean => isError(levelOfRow(row))

/** One container's output: what a trace is printed to. */
const streamOf = ({ file, container, source }: Line): string => `${file}\0${container}\0${source}`

const byTime = (a: Line, b: Line): number =>
  a.time < b.time ? -1 : a.time > b.time ? 1 : a.file === b.file ? a.position - b.position : a.file < b.file ? -1 : 1

export class Feed {
  readonly version = signal(0)
  /** Lines that wait because the feed is held. */
  readonly waiting = signal(0)
  /** Rows and waiting lines that were let go of, to make room. */
  readonly dropped = signal(0)
  readonly held = signal(false)
  /** Held on purpose: coming to the end does not let it go on. */
  readonly pinned = signal(false)
  #rows: Ring<Row>
  #heads = new Map<string, Row>()
  #seq = 0
  #lines: Line[] = []
  #seen = new Set<string>()
  #queue: Ring<Line>
  #frame: (flush: () => void) => void
  #scheduled = false

  /** @param frame calls back when the browser is about to draw */
  constructor(frame: (flush: () => void) => void, capacity: number = CAPACITY) {
    this.#rows = new Ring(capacity)
    this.#queue = new Ring(capacity)
    this.#frame = frame
  }

  get length(): number {
    return this.#rows.length
  }

  at(index: number): Row | undefined {
    return this.#rows.at(index)
  }

  *[Symbol.iterator](): Generator<Row> {
    yield* this.#rows
  }

  /** Lines that just came, behind all that are there. */
  append(lines: readonly Line[]): void {
    let dropped = 0
    for (const line of lines) if (this.#queue.push(line) !== undefined) dropped++
    if (dropped > 0) this.dropped.value += dropped
    this.#schedule()
  }

  /** Lines of history, which may belong between those that are there; what is there already is not taken twice. @returns how many were new */
  merge(lines: readonly Line[]): number {
    const fresh = lines.filter(({ at }) => !this.#seen.has(at))
    for (const { at } of fresh) this.#seen.add(at)
    fresh.sort(byTime)
    const last = this.#lines.at(-1)
    const first = fresh[0]
    if (!first) return 0
    if (!last || byTime(last, first) <= 0) this.#lines.push(...fresh)
    else this.#lines = [...this.#lines, ...fresh].sort(byTime)
    this.#schedule()
    return fresh.length
  }

  /** @param pin until it is released by name */
  hold(pin = false): void {
    this.held.value = true
    if (pin) this.pinned.value = true
  }

  /** Takes in what waits. */
  release(): void {
    if (!this.held.value) return
    this.held.value = false
    this.pinned.value = false
    this.flush()
  }

  clear(): void {
    this.#rows.clear()
    this.#queue.clear()
    this.#heads.clear()
    this.#lines = []
    this.#seen.clear()
    this.dropped.value = 0
    this.waiting.value = 0
    this.held.value = false
    this.pinned.value = false
    this.version.value++
  }

  /** The row of a line, or of the trace that it stands in. */
  indexOf(key: string): number {
    let index = 0
    for (const row of this.#rows) {
      if (row.key === key || row.frames.some(({ at }) => at === key)) return index
      index++
    }
    return -1
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    this.#frame(() => {
      this.#scheduled = false
      this.flush()
    })
  }

  /** Takes in what came, without waiting for a frame: whoever says that all has come has it shown first. */
  flush(): void {
    if (this.#lines.length > 0) {
      this.#rebuild()
      this.version.value++
    }
    if (this.held.value) {
      this.waiting.value = this.#queue.length
      return
    }
    this.waiting.value = 0
    if (this.#queue.length > 0) {
      const before = this.#rows.dropped
      for (const line of this.#queue) this.#add(line)
      this.#queue.clear()
      this.dropped.value += this.#rows.dropped - before
      this.version.value++
    }
  }

  /** History is put together anew: what came may stand anywhere in it. */
  #rebuild(): void {
    if (this.#rows.length > 0 || this.#lines.length > 0) {
      this.#rows.clear()
      this.#heads.clear()
    }
    for (const line of this.#lines) this.#add(line)
    this.dropped.value = this.#rows.dropped
  }

  #add(line: Line): void {
    const stream = streamOf(line)
    const head = this.#heads.get(stream)
    if (head && this.#goesOn(head, line)) {
      head.frames.push(line)
      return
    }
    const row: Row = { key: line.at, seq: this.#seq++, line, frames: [], level: null }
    this.#heads.set(stream, row)
    const gone = this.#rows.push(row)
    if (gone && this.#heads.get(streamOf(gone.line)) === gone) this.#heads.delete(streamOf(gone.line))
  }

  #goesOn(head: Row, line: Line): boolean {
    const last = head.frames.at(-1) ?? head.line
    return (
      head.frames.length < FRAMES_MAX &&
      continues(line.line, head.line.line, last.line) &&
      Date.parse(line.time) - Date.parse(last.time) < TRACE_MS
    )
  }
}
