/** A window of lines: those that are asked for, merged by time, and told one by one. */
import TinyQueue from 'tinyqueue'
import { EncodedLines } from './encoded-lines.ts'
import type { EventFormat } from './event-stream.ts'
import type { Selector, TextFilter } from './selection.ts'
import { lineEvent } from './stored-line.ts'
import { type Landed, type Leaving, STRETCH_BYTES, type Window } from './window.ts'

/** Lines that wait, in the order of their times: `order` names them by their place among all of the stretch. */
type Held = {
  lines: EncodedLines
  order: Uint32Array | undefined
  /** The next one, and where they end. */
  at: number
  end: number
  bytes: number
  arrived: number
  sequence: number
}

/** Consecutive lines of a stretch. */
type Piece = { lines: EncodedLines; from: number; to: number; sequence: number }

export class HeldLines implements Window {
  #selector: Selector
  #filter: TextFilter | undefined
  #format: EventFormat
  /** In the order in which they arrived. */
  #held: Held[] = []
  bytes = 0

  constructor(selector: Selector, filter: TextFilter | undefined, format: EventFormat) {
    this.#selector = selector
    this.#filter = filter
    this.#format = format
  }

  get oldest(): number {
    return this.#held[0]?.arrived ?? Number.POSITIVE_INFINITY
  }

  add({ lines: all, bytes, arrived, sequence }: Landed): void {
    const lines = this.#filter ? filtered(all, this.#filter) : all
    const order = this.#order(lines)
    const end = order ? order.length : lines.count
    if (end === 0) return
    const held: Held = { lines, order, at: 0, end, bytes: bytes.length + STRETCH_BYTES, arrived, sequence }
    this.#held.push(held)
    this.bytes += held.bytes
  }

  /** Which lines of a stretch are sent, by time. @returns undefined where all are, as they stand */
  #order({ count, times, stderr, positions }: EncodedLines): Uint32Array | undefined {
    const selector = this.#selector
    const both = selector.stdout && selector.stderr
    let sorted = true
    for (let i = 1; sorted && i < count; i++) sorted = times[i - 1]! <= times[i]!
    if (both && sorted) return undefined
    const order = Uint32Array.from({ length: count }, (_, i) => i).filter((i) =>
      stderr[i] ? selector.stderr : selector.stdout,
    )
    return sorted ? order : order.sort((a, b) => times[a]! - times[b]! || positions[a]! - positions[b]!)
  }

  latest(arrived: number): number {
    let latest = Number.NEGATIVE_INFINITY
    for (const held of this.#held) if (held.arrived <= arrived) latest = Math.max(latest, timeOf(held, held.end - 1))
    return latest
  }

  take(until: number): Leaving | undefined {
    const pieces: Piece[] = []
    const heads = new TinyQueue([...this.#held], byHead)
    for (let head = heads.pop(); head && timeOf(head, head.at) <= until; head = heads.pop()) {
      const next = heads.peek()
      const { lines, sequence } = head
      // As far as no other stretch has a line that comes first: nearly always all of them.
      do {
        const i = placeOf(head, head.at++)
        const last = pieces.at(-1)
        if (last?.lines === lines && last.to === i) last.to++
        else pieces.push({ lines, from: i, to: i + 1, sequence })
      } while (head.at < head.end && timeOf(head, head.at) <= until && !(next && byHead(next, head) < 0))
      if (head.at < head.end) heads.push(head)
      else this.bytes -= head.bytes
    }
    this.#held = this.#held.filter(({ at, end }) => at < end)
    return pieces.length === 0 ? undefined : new LeavingLines(pieces, this.#format)
  }
}

class LeavingLines implements Leaving {
  readonly sequence: number
  #pieces: readonly Piece[]
  #format: EventFormat

  constructor(pieces: readonly Piece[], format: EventFormat) {
    this.#pieces = pieces
    this.#format = format
    this.sequence = pieces.reduce((least, { sequence }) => Math.min(least, sequence), Number.POSITIVE_INFINITY)
  }

  get lines(): number {
    return this.#pieces.reduce((sum, { from, to }) => sum + to - from, 0)
  }

  behind(flush: number): Leaving | undefined {
    const pieces = this.#pieces.filter(({ sequence }) => sequence > flush)
    return pieces.length === 0 ? undefined : new LeavingLines(pieces, this.#format)
  }

  encode(): Buffer {
    const parts = this.#pieces.map(({ lines, from, to }) => {
      const { bytes, offsets } = lines.encoded(this.#format)
      return bytes.subarray(offsets[from], offsets[to])
    })
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  }
}

const placeOf = ({ order }: Held, at: number): number => (order ? order[at]! : at)

const timeOf = (held: Held, at: number): number => held.lines.times[placeOf(held, at)]!

/** As `byTime`, of the next lines. */
function byHead(a: Held, b: Held): number {
  const [i, j] = [placeOf(a, a.at), placeOf(b, b.at)]
  const [file, other] = [a.lines.stretch.file, b.lines.stretch.file]
  return (
    a.lines.times[i]! - b.lines.times[j]! ||
    (file < other ? -1 : file > other ? 1 : a.lines.positions[i]! - b.lines.positions[j]!)
  )
}

/** The lines that pass, with the places that matched. */
function filtered(all: EncodedLines, filter: TextFilter): EncodedLines {
  const lines = all.lines.filter(({ text }) => filter.passes(text))
  return EncodedLines.ofLines(
    all.stretch,
    lines,
    lines.map((line) => lineEvent(line, filter.spans(line.text))),
  )
}
