/**
 * A line as it is stored, read back: from the bytes of a stretch of a file to time, source and text, and on to the event that
 * the API sends.
 *
 * Invariants
 * - A stretch is of one run, so its names are those of its index row; what differs from line to line stands in the line itself. In
 *   `raw` nothing does: its lines have the source of the row, and the time of the row's earliest line.
 * - Whatever stands in a file is a line: one that somebody has tampered with is shown as it is, with the row's time.
 */
import type { Names, Row } from './index-log.ts'
import type { Spans } from './selection.ts'
import { isStderr, NEWLINE, textBegin } from './text-line.ts'

/** Bytes of a file that are of one run: a row of the index, as far as reading needs it. */
export type Stretch = {
  /** Path below the root. */
  file: string
  position: number
  bytes: number
  lines: number
  /** How many of the lines are of stderr. */
  stderr: number
  /** ms since 1970 of the earliest and the latest line. */
  tmin: number
  tmax: number
  names: Names
}

/** What reading needs of a row. Numbers that were given up stand between its first and its last as well. */
export function stretchOf(row: Omit<Row, 'run' | 'names' | 'crc'>, names: Names): Stretch {
  const { file, position, bytes, lines, numbers, tmin, tmax } = row
  const [[stdout], [from, to]] = numbers
  const stderr = from === 0 ? 0 : stdout === 0 ? lines : Math.min(lines - 1, to - from + 1)
  return { file, position, bytes, lines, stderr, tmin, tmax, names }
}

export type StoredLine = {
  file: string
  position: number
  /** Bytes in the file, the newline not counted. */
  bytes: number
  names: Names
  /** ms since 1970. */
  time: number
  /** The time as the file says it, where that is more exact than `time`. */
  stamp: string | undefined
  stderr: boolean
  text: string
}

/**
 * The lines of a stretch.
 * @param bytes the stretch's, or the first of them; what does not end in a newline is not there yet
 */
export function parseLines(stretch: Stretch, bytes: Buffer): StoredLine[] {
  const lines: StoredLine[] = []
  const parse = PARSERS[stretch.names.format]
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(NEWLINE, at)
    if (end === -1) break
    lines.push(parse(stretch, bytes, at, end))
    at = end + 1
  }
  return lines
}

type Parse = (stretch: Stretch, bytes: Buffer, at: number, end: number) => StoredLine

const unparsed: Parse = ({ file, position, names, tmin, lines, stderr }, bytes, at, end) => ({
  ...{ file, position: position + at, bytes: end - at, names, time: tmin, stamp: undefined },
  ...{ stderr: stderr === lines, text: bytes.toString('utf8', at, end) },
})

const PARSERS: Record<Names['format'], Parse> = {
  raw: unparsed,

  text: (stretch, bytes, at, end) => {
    const name = textBegin(bytes, at, end)
    const time = name === -1 ? Number.NaN : stampTime(bytes, at)
    if (Number.isNaN(time)) return unparsed(stretch, bytes, at, end)
    return {
      ...{ file: stretch.file, position: stretch.position + at, bytes: end - at, names: stretch.names },
      ...{ time, stamp: undefined, stderr: isStderr(bytes, name), text: bytes.toString('utf8', name, end) },
    }
  },

  jsonl: (stretch, bytes, at, end) => {
    let said: Record<string, unknown> | null
    try {
      said = JSON.parse(bytes.toString('utf8', at, end))
    } catch {
      return unparsed(stretch, bytes, at, end)
    }
    const { time: stamp, source, line, line_b64: encoded } = said ?? {}
    const time = typeof stamp === 'string' ? Date.parse(stamp) : Number.NaN
    const text = typeof encoded === 'string' ? Buffer.from(encoded, 'base64').toString() : line
    if (Number.isNaN(time) || typeof text !== 'string') return unparsed(stretch, bytes, at, end)
    return {
      ...{ file: stretch.file, position: stretch.position + at, bytes: end - at, names: stretch.names },
      ...{ time, stamp: stamp as string, stderr: source === 'stderr', text },
    }
  },
}

const DIGIT_0 = 48
const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000
/** What stands between the digits of `2026-11-23T08:24:41.123Z`, by its place. */
const BETWEEN = [
  [4, '-'],
  [7, '-'],
  [10, 'T'],
  [13, ':'],
  [16, ':'],
  [19, '.'],
  [23, 'Z'],
].map(([place, character]) => [place as number, (character as string).charCodeAt(0)] as const)
/** The day of the last stamp that was read, as the number YYYYMMDD, and its first ms. */
const lastDay = { number: -1, ms: Number.NaN }

/** The time that a stamp says, ms since 1970: Date.parse without a string. @returns NaN for what is none */
export function stampTime(bytes: Buffer, at: number): number {
  for (const [place, character] of BETWEEN) if (bytes[at + place] !== character) return Number.NaN
  const day = digits(bytes, at, 4) * 10_000 + digits(bytes, at + 5, 2) * 100 + digits(bytes, at + 8, 2)
  if (day !== lastDay.number) {
    lastDay.number = day
    lastDay.ms = Date.parse(bytes.toString('latin1', at, at + 10))
  }
  const [hour, minute, second] = [digits(bytes, at + 11, 2), digits(bytes, at + 14, 2), digits(bytes, at + 17, 2)]
  if (hour > 23 || minute > 59 || second > 59) return Number.NaN
  return lastDay.ms + hour * HOUR_MS + minute * MINUTE_MS + second * 1000 + digits(bytes, at + 20, 3)
}

/** @returns NaN where one is none */
function digits(bytes: Buffer, at: number, count: number): number {
  let value = 0
  for (let i = at; i < at + count; i++) {
    const digit = bytes[i]! - DIGIT_0
    if (!(digit >= 0 && digit <= 9)) return Number.NaN
    value = value * 10 + digit
  }
  return value
}

/** The name that a line has for ever, read. @returns undefined for what is none */
export function readCursor(cursor: string): { file: string; position: number } | undefined {
  const [, file, position] = /^(.+):(\d{1,15})$/s.exec(cursor) ?? []
  return file === undefined ? undefined : { file, position: Number(position) }
}

/** In the order of time; what has the same time by file and position. */
export const byTime = (a: StoredLine, b: StoredLine): number =>
  a.time - b.time || (a.file < b.file ? -1 : a.file > b.file ? 1 : a.position - b.position)

const heads = new WeakMap<Names, [stdout: string, stderr: string]>()

/** The part of an event that is the same for all lines of these names and this source. */
function headOf(names: Names, stderr: boolean): string {
  let head = heads.get(names)
  if (!head) {
    const { service, module, host, container } = names
    const of = (source: string) => JSON.stringify({ service, module, host, container, source }).slice(1, -1)
    head = [of('stdout'), of('stderr')]
    heads.set(names, head)
  }
  return head[stderr ? 1 : 0]
}

/** The line as an event of the API, in JSON. Written by hand: it is made for every line that anybody reads. */
export function lineEvent(line: StoredLine, matches?: Spans, context?: boolean): string {
  const { position, time, stamp, stderr, text } = line
  const around = eventAround(line, stderr)
  // A stamp that was tampered with can hold anything; it is a time nevertheless.
  const when = stamp === undefined ? new Date(time).toISOString() : JSON.stringify(stamp).slice(1, -1)
  const extra = `${matches && matches.length > 0 ? `,"matches":${JSON.stringify(matches)}` : ''}${context ? ',"context":true' : ''}`
  return `${around.at}${position}${around.position}${position}${around.time}${when}${around.head}${JSON.stringify(text).slice(1)}${extra}}`
}

/** The parts of an event that are the same for all lines of a file, its names and a source, in their order around what differs. */
type EventAround = {
  /** Up to the position in the cursor, from there up to the position, up to the time, and up to the text. */
  at: string
  position: string
  time: string
  head: string
  /** Bytes that an event takes at most, but for the text. */
  room: number
}

const arounds = new WeakMap<Names, { file: string; sources: [stdout: EventAround, stderr: EventAround] }>()

export function eventAround({ file, names }: Pick<StoredLine, 'file' | 'names'>, stderr: boolean): EventAround {
  let known = arounds.get(names)
  if (known?.file !== file) {
    const of = (stderr: boolean): EventAround => {
      const path = JSON.stringify(file)
      const around = {
        at: `{"type":"line","at":${path.slice(0, -1)}:`,
        position: `","file":${path},"position":`,
        time: ',"time":"',
        head: `",${headOf(names, stderr)},"line":"`,
      }
      const bytes = Object.values(around).reduce((sum, part) => sum + Buffer.byteLength(part), 0)
      return { ...around, room: bytes + ROOM_BYTES }
    }
    known = { file, sources: [of(false), of(true)] }
    arounds.set(names, known)
  }
  return known.sources[stderr ? 1 : 0]
}

/** For two positions and a time. */
const ROOM_BYTES = 2 * 16 + 32
