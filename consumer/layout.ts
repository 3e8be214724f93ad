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
 * - Nothing is allocated per line in `text` and `raw`: a chunk's bytes are copied into the workspace once, and from there each
 *   line is moved by `copyWithin`, behind a stamp that is written anew only when its millisecond changes.
 */
import { type Chunk, STDERR } from '../wire/chunk.ts'
import type { Day, Days } from './days.ts'
import type { Row } from './index-log.ts'
import { sourceOf } from './ledger.ts'

export type LineFormat = 'text' | 'raw' | 'jsonl'

/**
 * Lines that stand together in one file: `bytes` is a view, valid until the next chunk is laid out. Numbers and times, ms since
 * 1970, are those of the first and the last, and of the earliest and the latest.
 */
export type Extent = Pick<Row, 'lines' | 'numbers' | 'tmin' | 'tmax'> & { day: string; bytes: Uint8Array }

export type LaidOut = { extents: Extent[]; misdated: number }

/** `2026-11-23T08:24:41.123Z ` */
const STAMP_BYTES = 25
const SECOND_BYTES = 20
const DIGIT_0 = 48
const NEWLINE = 10
/** 9999-12-31T23:59:59.999Z: a later stamp would be longer. */
const LAST_STAMP_MS = 253_402_300_799_999

const DAY_MS = 86_400_000

/** A container's name in a stamp: `!`, blanks and whatever else could be taken for layout are percent-encoded. */
const stampName = (name: string): string =>
  name
    .toWellFormed()
    .replace(/[^A-Za-z0-9._-]/gu, (character) => encodeURIComponent(character).replace(/[!'()*]/g, percent)) || '-'

const percent = (character: string): string => `%${character.charCodeAt(0).toString(16).toUpperCase()}`

export class Layout {
  readonly format: LineFormat
  #days: Days
  #keepDays: number
  /** The prefixes of stdout and stderr, the chunk's bytes, then the lines as they go to the file. */
  #workspace = new Uint8Array(2 * 1024 * 1024)
  #stampMs = -1
  #encoder = new TextEncoder()
  #utf8 = new TextDecoder('utf-8', { fatal: true })

  /** @param keepDays a line whose day is older than this, or beyond tomorrow, goes to the day on which it was appended */
  constructor(format: LineFormat, days: Days, keepDays: number) {
    this.format = format
    this.#days = days
    this.#keepDays = keepDays
  }

  /**
   * Lays out a chunk's lines.
   * @param wanted a byte a line, 0 for those to be left out; all where it is undefined
   * @param appended when Kafka appended the record, ms since 1970
   */
  lay(chunk: Chunk, wanted: Uint8Array | undefined, appended: number): LaidOut {
    const prefixes = this.format === 'text' ? this.#prefixes(chunk.container.name) : undefined
    const base = prefixes ? prefixes.end : 0
    this.#reserve(chunk, base, prefixes)
    this.#workspace.set(chunk.data, base)
    const times = new Times(chunk)
    const append = this.#days.at(appended)
    const laid: LaidOut = { extents: [], misdated: 0 }
    let day: Day | undefined
    let name = ''
    let out = base + chunk.data.length
    let start = out
    let lines = 0
    let at = base
    const numbers: [number, number] = [chunk.first[0], chunk.first[1]]
    let from: [number, number] = [0, 0]
    let to: [number, number] = [0, 0]
    let tmin = Number.POSITIVE_INFINITY
    let tmax = 0
    const close = () => {
      if (lines > 0) {
        const bytes = this.#workspace.subarray(start, out)
        const between: Row['numbers'] = [
          [from[0], to[0]],
          [from[1], to[1]],
        ]
        laid.extents.push({ day: name, bytes, lines, numbers: between, tmin, tmax })
      }
      start = out
      lines = 0
      from = [0, 0]
      to = [0, 0]
      tmin = Number.POSITIVE_INFINITY
      tmax = 0
    }
    for (let i = 0; i < chunk.lines; i++) {
      const length = chunk.len[i]!
      const begin = at
      at += length
      const source = sourceOf(chunk, i)
      const stderr = source === STDERR
      const n = numbers[source]++
      if (wanted && wanted[i] === 0) continue
      const ms = times.ms(i)
      if (!day || ms < day.start || ms >= day.end) {
        day = this.#days.at(Math.min(ms, LAST_STAMP_MS))
        close()
        name = this.#accepted(day, append) ? day.name : append.name
      }
      if (name !== day.name) laid.misdated++
      if (this.format === 'jsonl')
        out += this.#json(chunk, i, n, stderr, times.ns(i), this.#workspace.subarray(begin, at), out)
      else {
        if (prefixes) out = this.#prefix(prefixes, stderr, ms, out)
        this.#workspace.copyWithin(out, begin, at)
        out += length
        this.#workspace[out++] = NEWLINE
      }
      if (from[source] === 0) from[source] = n
      to[source] = n
      if (ms < tmin) tmin = ms
      if (ms > tmax) tmax = ms
      lines++
    }
    close()
    return laid
  }

  /** The day whose file a line of this time goes to, both in ms since 1970. */
  dayOf(ms: number, appended: number): string {
    const append = this.#days.at(appended)
    const day = this.#days.at(Math.min(ms, LAST_STAMP_MS))
    return this.#accepted(day, append) ? day.name : append.name
  }

  #accepted(day: Day, append: Day): boolean {
    return day.end > append.start - this.#keepDays * DAY_MS && day.start <= append.end
  }

  /** Writes `<stamp> name ` for both sources at the workspace's beginning; the stamps are filled in line by line. */
  #prefixes(container: string): { stdout: number; stderr: number; end: number } {
    const name = stampName(container)
    const stderr = STAMP_BYTES + this.#encoder.encodeInto(`${name} `, this.#workspace.subarray(STAMP_BYTES)).written
    const mark = this.#encoder.encodeInto(`${name}! `, this.#workspace.subarray(stderr + STAMP_BYTES)).written
    this.#stampMs = -1
    return { stdout: 0, stderr, end: stderr + STAMP_BYTES + mark }
  }

  #prefix(prefixes: { stdout: number; stderr: number; end: number }, stderr: boolean, ms: number, out: number): number {
    if (ms !== this.#stampMs) this.#stamp(prefixes, ms)
    const from = stderr ? prefixes.stderr : prefixes.stdout
    const to = stderr ? prefixes.end : prefixes.stderr
    this.#workspace.copyWithin(out, from, to)
    return out + to - from
  }

  #stamp({ stdout, stderr }: { stdout: number; stderr: number }, ms: number): void {
    const workspace = this.#workspace
    const shown = Math.min(ms, LAST_STAMP_MS)
    if (this.#stampMs < 0 || Math.floor(shown / 1000) !== Math.floor(this.#stampMs / 1000)) {
      this.#encoder.encodeInto(`${new Date(shown).toISOString()} `, workspace.subarray(stdout))
      workspace.copyWithin(stderr, stdout, stdout + STAMP_BYTES)
    } else {
      const rest = shown % 1000
      for (const at of [stdout + SECOND_BYTES, stderr + SECOND_BYTES]) {
        workspace[at] = DIGIT_0 + Math.floor(rest / 100)
        workspace[at + 1] = DIGIT_0 + (Math.floor(rest / 10) % 10)
        workspace[at + 2] = DIGIT_0 + (rest % 10)
      }
    }
    this.#stampMs = ms
  }

  /** @returns bytes written */
  #json(chunk: Chunk, line: number, n: number, stderr: boolean, time: bigint, bytes: Uint8Array, out: number): number {
    const shown = new Date(Number(time / 1_000_000n)).toISOString().slice(0, SECOND_BYTES)
    const row: Record<string, unknown> = {
      time: `${shown}${String(time % 1_000_000_000n).padStart(9, '0')}Z`,
      host: chunk.host,
      container: chunk.container.name,
      source: stderr ? 'stderr' : 'stdout',
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

  /** Makes the workspace large enough for what the chunk can become. */
  #reserve(chunk: Chunk, base: number, prefixes: { end: number } | undefined): void {
    const perLine =
      (this.format === 'jsonl' ? 512 + 6 * (chunk.host.length + chunk.container.name.length) : (prefixes?.end ?? 0)) + 1
    const perByte = this.format === 'jsonl' ? 7 : 2
    const needed = base + perByte * chunk.data.length + perLine * chunk.lines
    if (needed <= this.#workspace.length) return
    const larger = new Uint8Array(needed)
    larger.set(this.#workspace.subarray(0, base))
    this.#workspace = larger
  }
}

/** The times of a chunk's lines, without a bigint a line where `dt` is narrow. */
class Times {
  #ms: number
  #rest: number
  #chunk: Chunk

  constructor(chunk: Chunk) {
    this.#chunk = chunk
    this.#ms = Number(chunk.t0 / 1_000_000n)
    this.#rest = Number(chunk.t0 % 1_000_000n)
  }

  /** ms since 1970 of a line. */
  ms(line: number): number {
    const { dt } = this.#chunk
    if (dt instanceof Int32Array) return this.#ms + Math.floor((this.#rest + dt[line]!) / 1_000_000)
    return Number(this.ns(line) / 1_000_000n)
  }

  /** ns since 1970 of a line. */
  ns(line: number): bigint {
    return this.#chunk.t0 + BigInt(this.#chunk.dt[line]!)
  }
}
