/**
 * Lines of a stretch that has just landed, as the events that go over the wire: encoded once for all who follow them.
 *
 * Invariants
 * - The bytes are those that `lineEvent` gives. Lines of the `text` format whose text stands in JSON as it is, which is nearly all of
 *   them, are put together from bytes: no string and no object is made for them.
 * - Nothing is encoded before somebody asks for it.
 */
import { type EventFormat, encodeEvents } from './event-stream.ts'
import { eventAround, lineEvent, parseLines, type StoredLine, type Stretch, stampTime } from './stored-line.ts'
import { isStderr, NEWLINE, STAMP_BYTES, textBegin } from './text-line.ts'

type Encoded = {
  bytes: Buffer
  /** Where each event begins, and where the last one ends. */
  offsets: Uint32Array
}

const QUOTE = 34
const DIGIT_0 = 48
const BACKSLASH = 92
/** Of a stamp, all but the blank. */
const TIME_BYTES = STAMP_BYTES - 1

export class EncodedLines {
  readonly stretch: Stretch
  readonly count: number
  /** ms since 1970, a line each, as they stand in the file. */
  readonly times: Float64Array
  readonly positions: Float64Array
  readonly stderr: Uint8Array
  #lines: StoredLine[] | undefined
  #plain: Plain | undefined
  #events: readonly string[] | undefined
  #encoded: Partial<Record<EventFormat, Encoded>> = {}

  /** @param bytes of the stretch, whole lines */
  static of(stretch: Stretch, bytes: Buffer): EncodedLines {
    const plain = stretch.names.format === 'text' ? readPlain(stretch, bytes) : undefined
    return plain ? new EncodedLines(stretch, plain) : EncodedLines.ofLines(stretch, parseLines(stretch, bytes))
  }

  /** @param events one a line, where they are other than usual */
  static ofLines(stretch: Stretch, lines: StoredLine[], events?: readonly string[]): EncodedLines {
    const columns = {
      times: Float64Array.from(lines, ({ time }) => time),
      positions: Float64Array.from(lines, ({ position }) => position),
      stderr: Uint8Array.from(lines, ({ stderr }) => (stderr ? 1 : 0)),
    }
    const made = new EncodedLines(stretch, columns)
    made.#lines = lines
    made.#events = events
    return made
  }

  private constructor(stretch: Stretch, columns: Plain | Pick<Plain, 'times' | 'positions' | 'stderr'>) {
    this.stretch = stretch
    this.count = columns.times.length
    this.times = columns.times
    this.positions = columns.positions
    this.stderr = columns.stderr
    if ('bytes' in columns) this.#plain = columns
  }

  /** The lines, for whoever looks at what they say. */
  get lines(): StoredLine[] {
    this.#lines ??= parseLines(this.stretch, this.#plain!.bytes)
    return this.#lines
  }

  encoded(format: EventFormat): Encoded {
    this.#encoded[format] ??=
      this.#plain && !this.#events
        ? encodePlain(this.stretch, this.#plain, format)
        : encodeStrings(this.#events ?? this.lines.map((line) => lineEvent(line)), format)
    return this.#encoded[format]!
  }
}

function encodeStrings(events: readonly string[], format: EventFormat): Encoded {
  const each = events.map((event) => Buffer.from(encodeEvents([event], format)))
  const offsets = new Uint32Array(each.length + 1)
  for (const [i, { length }] of each.entries()) offsets[i + 1] = offsets[i]! + length
  return { bytes: Buffer.concat(each), offsets }
}

/** Lines of the `text` format, by places: `begin` and `end` of what was printed in `bytes`. */
type Plain = {
  bytes: Buffer
  times: Float64Array
  positions: Float64Array
  stderr: Uint8Array
  begin: Uint32Array
  end: Uint32Array
}

/** @returns undefined where a line is none of that format */
function readPlain(stretch: Stretch, bytes: Buffer): Plain | undefined {
  const { lines, position } = stretch
  const plain: Plain = {
    ...{ bytes, times: new Float64Array(lines), positions: new Float64Array(lines) },
    ...{ stderr: new Uint8Array(lines), begin: new Uint32Array(lines), end: new Uint32Array(lines) },
  }
  let at = 0
  for (let i = 0; i < lines; i++) {
    const end = bytes.indexOf(NEWLINE, at)
    const text = textBegin(bytes, at, end)
    if (end === -1 || text === -1) return undefined
    const time = stampTime(bytes, at)
    if (Number.isNaN(time)) return undefined
    plain.times[i] = time
    plain.positions[i] = position + at
    plain.stderr[i] = isStderr(bytes, text) ? 1 : 0
    plain.begin[i] = text
    plain.end[i] = end
    at = end + 1
  }
  return at === bytes.length ? plain : undefined
}

/** What stands in front of a line's text in an event that was written before, and where in there the position and the time are. */
type Front = { at: number; length: number; digits: number; first: number; second: number; time: number }

function encodePlain(stretch: Stretch, plain: Plain, format: EventFormat): Encoded {
  const { bytes, positions, stderr, begin, end } = plain
  const count = positions.length
  const offsets = new Uint32Array(count + 1)
  const [before, after] = encodeEvents(['\0'], format).split('\0') as [string, string]
  const around = [eventAround(stretch, false), eventAround(stretch, true)] as const
  const tail = Buffer.from(`"}${after}`)
  let out: Buffer = Buffer.allocUnsafe(bytes.length + count * (before.length + around[1].room + tail.length))
  const fronts: [Front | undefined, Front | undefined] = [undefined, undefined]
  let to = 0
  for (let i = 0; i < count; i++) {
    const source = stderr[i]! as 0 | 1
    const position = positions[i]!
    const line = position - stretch.position
    const from = begin[i]!
    const until = end[i]!
    // The rest of what is to come needs no more than was reserved; a text that JSON escapes can need six times its bytes.
    const left = bytes.length - from + (count - i) * (before.length + around[1].room + tail.length)
    if (out.length - to < left) out = grown(out, to, left)
    offsets[i] = to
    const front = fronts[source]
    if (front && position < 10 ** front.digits) {
      out.copyWithin(to, front.at, front.at + front.length)
      writeDigits(out, to + front.first, front.digits, position)
      writeDigits(out, to + front.second, front.digits, position)
      bytes.copy(out, to + front.time, line, line + TIME_BYTES)
      front.at = to
      to += front.length
    } else {
      const { at, position: second, time, head } = around[source]
      const digits = String(position)
      const written = `${before}${at}${digits}${second}${digits}${time}`
      const stamp = bytes.toString('latin1', line, line + TIME_BYTES)
      const length = out.write(`${written}${stamp}${head}`, to)
      fronts[source] = {
        ...{ at: to, length, digits: digits.length, first: before.length + at.length },
        second: before.length + at.length + digits.length + second.length,
        time: written.length,
      }
      to += length
    }
    const text = to
    let j = from
    for (; j < until; j++) {
      const byte = bytes[j]!
      if (byte < 32 || byte > 126 || byte === QUOTE || byte === BACKSLASH) break
      out[to++] = byte
    }
    if (j < until) {
      const escaped = JSON.stringify(bytes.toString('utf8', from, until)).slice(1, -1)
      const needed = Buffer.byteLength(escaped)
      if (out.length - text < needed + left) out = grown(out, text, needed + left)
      to = text + out.write(escaped, text)
    }
    to += tail.copy(out, to)
  }
  offsets[count] = to
  return { bytes: out.subarray(0, to), offsets }
}

function grown(out: Buffer, used: number, needed: number): Buffer {
  const larger = Buffer.allocUnsafe(Math.max(2 * out.length, used + needed))
  out.copy(larger, 0, 0, used)
  return larger
}

function writeDigits(out: Buffer, at: number, digits: number, value: number): void {
  let rest = value
  for (let i = at + digits - 1; i >= at; i--) {
    const tenth = Math.floor(rest / 10)
    out[i] = DIGIT_0 + (rest - tenth * 10)
    rest = tenth
  }
}
