/**
 * Layout: how a line looks in its file.
 *
 *   text   2026-11-23T08:24:41.123Z web-1 the line       (stderr: `web-1!`; the stamp is UTC)
 *   raw    the line
 *   jsonl  {"time":"…ns…","host":…,"container":…,"source":…,"run":…,"n":…,"line":…}, `line_b64` where it is no UTF-8
 *
 * Invariants
 * - A line's bytes are a pure function of its chunk: no clock, no counter of ours.
 * - Every line ends in one newline and holds no other. A piece of a line that was cut is a line of its own, because
 *   lines of other containers may stand between it and the next.
 * - An extent of `raw` is of one source: the lines themselves do not say of which they are.
 * - Memory does not follow what a chunk becomes: its lines are laid out extent by extent in the same place, none above EXTENT_BYTES, or EVENTS_BYTES once it is told, but
 *   one of a single line. A few KB in Kafka can be a million empty lines behind a name of 4,096 characters.
 * - Nothing is allocated per line in `text` and `raw`: a chunk's bytes are copied into the workspace once, and from there each
 *   line is moved by `copyWithin`, behind a stamp of which all but the milliseconds are written once a second, and all but the
 *   seconds are worked out once a minute.
 */
import { type Chunk, type SourcePair, STDERR } from '../wire/chunk.ts'
import type { Day, Days } from './days.ts'
import type { Row } from './index-log.ts'
import { sourceOf } from './ledger.ts'
import { STAMP_BYTES } from './text-line.ts'

export type LineFormat = 'text' | 'raw' | 'jsonl'

/**
 * Lines that stand together in one file: `bytes` is a view, valid until the next extent is laid out. Numbers and times, ms since
 * 1970, are those of the first and the last, and of the earliest and the latest. `misdated`: how many of the lines are of another day.
 */
export type Extent = Pick<Row, 'lines' | 'numbers' | 'tmin' | 'tmax'> & {
  day: string
  bytes: Uint8Array
  misdated: number
}

/** Where in the workspace the prefix of stderr begins, behind that of stdout, where that ends, and the second that both show. */
type Prefixes = { stderr: number; end: number; second: number }

/** How far a chunk is laid out. */
type Pass = {
  chunk: Chunk
  wanted: Uint8Array | undefined
  prefixes: Prefixes | undefined
  times: Times
  /** The day of arrival. */
  append: Day
  /** The next line, and where its bytes are. */
  line: number
  at: number
  /** Where extents begin. */
  out: number
  /** What a line takes at most beside its bytes, and each of those. */
  perLine: number
  perByte: number
  /** How many lines an extent may have. */
  most: number
  /** What the next line of each source is numbered. */
  numbers: SourcePair
}

const SECOND_BYTES = 20
const MINUTE_BYTES = 17
const MINUTE_MS = 60_000
const DIGIT_0 = 48
const NEWLINE = 10
/** 9999-12-31T23:59:59.999Z: a later stamp would be longer. */
export const LAST_STAMP_MS = 253_402_300_799_999

const DAY_MS = 86_400_000

const WORKSPACE_BYTES = 2 * 1024 * 1024
/** A larger workspace is given back. */
const MAX_WORKSPACE_BYTES = 8 * 1024 * 1024
/** An extent is read into memory as a whole when it is checked or searched. */
const EXTENT_BYTES = 4 * 1024 * 1024
/** And it is told as a whole: what its lines take up as events, beside their own bytes. */
const EVENTS_BYTES = 32 * 1024 * 1024
const EVENT_BYTES = 256

/** A container's name in a stamp: `!`, blanks and whatever else could be taken for layout are percent-encoded. */
export const stampName = (name: string): string =>
  name
    .toWellFormed()
    .replace(/[^A-Za-z0-9._-]/gu, (character) => encodeURIComponent(character).replace(/[!'()*]/g, percent)) || '-'

/** So many names are kept with what stands for them in a stamp. */
const MAX_NAMES = 4_096

const percent = (character: string): string => `%${character.charCodeAt(0).toString(16).toUpperCase()}`

export class Layout {
  /** The first day that is kept. Whoever raises it does so between two records, with the checkpoint. */
  floor = ''
  readonly format: LineFormat
  #days: Days
  #keepDays: number
  /** The prefixes of stdout and stderr, the chunk's bytes, then an extent as it goes to the file. */
  #workspace = new Uint8Array(WORKSPACE_BYTES)
  #encoder = new TextEncoder()
  #names = new Map<string, string>()
  /** The minute that `#stampBytes` shows, ms since 1970. */
  #minute = Number.NEGATIVE_INFINITY
  #stampBytes = new Uint8Array(STAMP_BYTES)
  #utf8 = new TextDecoder('utf-8', { fatal: true })

  /** @param keepDays a line whose day is older than this, or beyond tomorrow, goes to the day on which it was appended */
  constructor(format: LineFormat, days: Days, keepDays: number) {
    this.format = format
    this.#days = days
    this.#keepDays = keepDays
  }

  /**
   * Lays out a chunk's lines, extent by extent.
   * @param wanted a byte a line, 0 for those to be left out; all where it is undefined
   * @param appended when Kafka appended the record, ms since 1970
   */
  *lay(chunk: Chunk, wanted: Uint8Array | undefined, appended: number): Generator<Extent, void, undefined> {
    const prefixes = this.format === 'text' ? this.#prefixes(chunk.container.name) : undefined
    const base = prefixes ? prefixes.end : 0
    const json = this.format === 'jsonl'
    const names = chunk.service.length + chunk.module.length + chunk.host.length + chunk.container.name.length
    const pass: Pass = {
      ...{ chunk, wanted, prefixes, times: new Times(chunk), append: this.#days.at(appended) },
      ...{ line: 0, at: base, out: base + chunk.data.length, numbers: [chunk.first[0], chunk.first[1]] },
      perLine: (json ? 512 + 6 * (chunk.host.length + chunk.container.name.length) : base) + 1,
      perByte: json ? 6 : 1,
      most: Math.max(1, Math.floor(EVENTS_BYTES / (EVENT_BYTES + names))),
    }
    this.#reserve(pass, base)
    this.#workspace.set(chunk.data, base)
    while (pass.line < chunk.lines) {
      const extent = this.#extent(pass)
      if (extent) yield extent
    }
    if (this.#workspace.length > MAX_WORKSPACE_BYTES) this.#workspace = new Uint8Array(WORKSPACE_BYTES)
  }

  /**
   * Lays out the lines from the pass's own on that stand together: up to one of another day or, where lines do not say it
   * themselves, of the other source; or as many as there is room for.
   * @returns undefined where none is left that is wanted
   */
  #extent(pass: Pass): Extent | undefined {
    const { chunk, wanted, prefixes, times, perLine, perByte, most } = pass
    const { lines: count, len, src } = chunk
    const format = this.format
    const workspace = this.#workspace
    let { line, at } = pass
    const start = pass.out
    let out = start
    let [stdout, stderr] = pass.numbers
    const numbers: Row['numbers'] = [
      [0, 0],
      [0, 0],
    ]
    let lines = 0
    let tmin = Number.POSITIVE_INFINITY
    let tmax = 0
    let day: Day = pass.append
    let only = 0
    for (; line < count; line++) {
      const length = len[line]!
      const source = (src[line >> 3]! >> (line & 7)) & 1
      if (wanted === undefined || wanted[line] !== 0) {
        const ms = times.ms(line)
        if (lines === 0) {
          day = this.#days.at(Math.min(ms, LAST_STAMP_MS))
          only = source
        } else if (ms < day.start || ms >= day.end || (format === 'raw' && source !== only)) break
        else if (lines === most || out - start + perLine + perByte * length > EXTENT_BYTES) break
        const n = source === STDERR ? stderr : stdout
        if (format === 'jsonl') out += this.#json(chunk, line, n, times.ns(line), at, out)
        else {
          if (prefixes) out = this.#prefix(prefixes, source, ms, out)
          workspace.copyWithin(out, at, at + length)
          out += length
          workspace[out++] = NEWLINE
        }
        const between = numbers[source]!
        if (between[0] === 0) between[0] = n
        between[1] = n
        if (ms < tmin) tmin = ms
        if (ms > tmax) tmax = ms
        lines++
      }
      at += length
      if (source === STDERR) stderr++
      else stdout++
    }
    pass.line = line
    pass.at = at
    pass.numbers = [stdout, stderr]
    if (lines === 0) return undefined
    const name = this.#fileDay(day, pass.append)
    const misdated = name === day.name ? 0 : lines
    return { day: name, bytes: workspace.subarray(start, out), lines, numbers, tmin, tmax, misdated }
  }

  /** The day whose file a line of this time goes to, both in ms since 1970. */
  dayOf(ms: number, appended: number): string {
    const append = this.#days.at(appended)
    const day = this.#days.at(Math.min(ms, LAST_STAMP_MS))
    return this.#fileDay(day, append)
  }

  #fileDay(day: Day, append: Day): string {
    if (day.name >= this.floor && this.#accepted(day, append)) return day.name
    // Even the day of its arrival may be removed by now, when it was read long after that.
    return append.name >= this.floor ? append.name : this.floor
  }

  #accepted(day: Day, append: Day): boolean {
    return day.end > append.start - this.#keepDays * DAY_MS && day.start <= append.end
  }

  /** Writes `<stamp> name ` for both sources at the workspace's beginning; the stamps are filled in as they are needed. */
  #prefixes(container: string): Prefixes {
    const name = this.#stampName(container)
    const stderr = STAMP_BYTES + this.#encoder.encodeInto(`${name} `, this.#workspace.subarray(STAMP_BYTES)).written
    const mark = this.#encoder.encodeInto(`${name}! `, this.#workspace.subarray(stderr + STAMP_BYTES)).written
    return { stderr, end: stderr + STAMP_BYTES + mark, second: Number.NEGATIVE_INFINITY }
  }

  #stampName(container: string): string {
    let name = this.#names.get(container)
    if (name === undefined) {
      if (this.#names.size >= MAX_NAMES) this.#names.clear()
      name = stampName(container)
      this.#names.set(container, name)
    }
    return name
  }

  #prefix(prefixes: Prefixes, source: number, ms: number, out: number): number {
    const workspace = this.#workspace
    const shown = Math.min(ms, LAST_STAMP_MS)
    if (shown < prefixes.second || shown >= prefixes.second + 1000) this.#stamp(prefixes, shown)
    const from = source === STDERR ? prefixes.stderr : 0
    const to = source === STDERR ? prefixes.end : prefixes.stderr
    workspace.copyWithin(out, from, to)
    const rest = shown - prefixes.second
    const tens = (rest / 10) | 0
    const hundreds = (rest / 100) | 0
    workspace[out + SECOND_BYTES] = DIGIT_0 + hundreds
    workspace[out + SECOND_BYTES + 1] = DIGIT_0 + tens - 10 * hundreds
    workspace[out + SECOND_BYTES + 2] = DIGIT_0 + rest - 10 * tens
    return out + to - from
  }

  /** Stamps both prefixes with a second. */
  #stamp(prefixes: Prefixes, ms: number): void {
    prefixes.second = Math.floor(ms / 1000) * 1000
    if (ms < this.#minute || ms >= this.#minute + MINUTE_MS) {
      this.#minute = Math.floor(ms / MINUTE_MS) * MINUTE_MS
      this.#encoder.encodeInto(`${new Date(ms).toISOString()} `, this.#stampBytes)
    }
    const seconds = (prefixes.second - this.#minute) / 1000
    const tens = (seconds / 10) | 0
    this.#stampBytes[MINUTE_BYTES] = DIGIT_0 + tens
    this.#stampBytes[MINUTE_BYTES + 1] = DIGIT_0 + seconds - 10 * tens
    this.#workspace.set(this.#stampBytes, 0)
    this.#workspace.set(this.#stampBytes, prefixes.stderr)
  }

  /** @param at where in the workspace the line's bytes begin. @returns bytes written */
  #json(chunk: Chunk, line: number, n: number, time: bigint, at: number, out: number): number {
    const bytes = this.#workspace.subarray(at, at + chunk.len[line]!)
    const shown = new Date(Number(time / 1_000_000n)).toISOString().slice(0, SECOND_BYTES)
    const row: Record<string, unknown> = {
      time: `${shown}${String(time % 1_000_000_000n).padStart(9, '0')}Z`,
      host: chunk.host,
      container: chunk.container.name,
      source: sourceOf(chunk, line) === STDERR ? 'stderr' : 'stdout',
      run: Buffer.from(chunk.run).toString('hex'),
      n,
    }
    const flags = chunk.flags?.[line] ?? 0
    if (flags !== 0) row['flags'] = flags
    try {
      row['line'] = this.#utf8.decode(bytes)
    } catch {
      row['line_b64'] = Buffer.from(bytes).toString('base64')
    }
    return this.#encoder.encodeInto(`${JSON.stringify(row)}\n`, this.#workspace.subarray(out)).written
  }

  /** Makes the workspace large enough for what the chunk can become, or the largest extent of it. */
  #reserve({ chunk, out, perLine, perByte }: Pass, base: number): void {
    let room = perByte * chunk.data.length + perLine * chunk.lines
    if (room > EXTENT_BYTES) {
      const longest = chunk.len.reduce((longest, bytes) => Math.max(longest, bytes), 0)
      room = Math.max(EXTENT_BYTES, perByte * longest + perLine)
    }
    if (out + room <= this.#workspace.length) return
    const larger = new Uint8Array(out + room)
    larger.set(this.#workspace.subarray(0, base))
    this.#workspace = larger
  }
}

/** Times that are further apart are worked out as bigints: their quotients would not be exact. 49 days, in 2^32 ns. */
const MAX_HIGH_WORD = 1_000_000

/** The times of a chunk's lines, without a bigint a line. */
class Times {
  #chunk: Chunk
  #ms: number
  #rest: number
  #narrow: Int32Array | undefined
  /** Of the wide column: low and high word of each time. */
  #words: Int32Array | undefined

  constructor(chunk: Chunk) {
    const { t0, dt } = chunk
    this.#chunk = chunk
    this.#ms = Number(t0 / 1_000_000n)
    this.#rest = Number(t0 % 1_000_000n)
    if (dt instanceof Int32Array) this.#narrow = dt
    else {
      const words = new Int32Array(dt.buffer, dt.byteOffset, 2 * dt.length)
      let far = false
      for (let i = 1; i < words.length; i += 2) far ||= Math.abs(words[i]!) >= MAX_HIGH_WORD
      if (!far) this.#words = words
    }
  }

  /** ms since 1970 of a line. */
  ms(line: number): number {
    if (this.#narrow) return this.#ms + Math.floor((this.#rest + this.#narrow[line]!) / 1_000_000)
    if (this.#words) {
      const ns = this.#words[2 * line + 1]! * 2 ** 32 + (this.#words[2 * line]! >>> 0)
      return this.#ms + Math.floor((this.#rest + ns) / 1_000_000)
    }
    return Number(this.ns(line) / 1_000_000n)
  }

  /** ns since 1970 of a line. */
  ns(line: number): bigint {
    return this.#chunk.t0 + BigInt(this.#chunk.dt[line]!)
  }
}
