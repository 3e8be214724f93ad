/**
 * The JSON line: the value of a Kafka record with `format=json`, one line of one run, for readers that are not ours.
 *
 * It says all that a chunk says of a line, so that the files and the ledger come out the same. docs/format.md has its fields.
 *
 * Invariants
 * - A line's bytes survive: `line` is text where they are UTF-8 and JSON does not blow them up, and `base64` stands for it elsewhere.
 * - A decoded line is a consistent chunk of one line, or of none (chunk.ts).
 */
import { isUtf8 } from 'node:buffer'
import * as z from 'zod'
import {
  type Chunk,
  ChunkError,
  CONTINUED,
  lossReason,
  type RunNames,
  type SourcePair,
  STDERR,
  STDOUT,
  UNTERMINATED,
  VERSION,
} from './chunk.ts'

/** Value of the `content-type` header of a record that holds a JSON line. */
export const JSON_CONTENT_TYPE = 'application/vnd.tallyman.line+json'

/** What a line takes in JSON beside its own bytes and the fields that every line of a run has. */
const LINE_FIELDS_BYTES = 256
/** A line that JSON makes longer than this, in multiples of its bytes, goes as base64. Quotes and backslashes double at most. */
export const JSON_INFLATION = 2

const SOURCES = ['stdout', 'stderr'] as const
const NS = 1_000_000_000n

/** RFC 3339 with nine digits. */
function stamp(ns: bigint): string {
  const seconds = new Date(Number(ns / NS) * 1000).toISOString().slice(0, -5)
  return `${seconds}.${String(ns % NS).padStart(9, '0')}Z`
}

const uuid = (run: Uint8Array): string =>
  Buffer.from(run)
    .toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')

/** Writes the lines of one run. */
export class JsonLineEncoder {
  /** What a line takes at most beside JSON_INFLATION times its own bytes. */
  readonly lineBytes: number
  /** The fields that every line has, without the closing brace. */
  #fields: string

  constructor({ run, service, module, host, container, attrs }: RunNames) {
    this.#fields = JSON.stringify({ v: VERSION, run: uuid(run), service, module, host, container, attrs }).slice(0, -1)
    this.lineBytes = Buffer.byteLength(this.#fields) + LINE_FIELDS_BYTES
  }

  /** Hands the chunk's lines to `add`, each as a value of its own. The chunk is taken as consistent. */
  encode(chunk: Chunk, add: (value: Uint8Array) => void): void {
    const numbers: SourcePair = [...chunk.first]
    const data = Buffer.from(chunk.data.buffer, chunk.data.byteOffset, chunk.data.length)
    let lost = lostField(chunk)
    let at = 0
    for (let i = 0; i < chunk.lines; i++) {
      const source = (chunk.src[i >> 3]! >> (i & 7)) & 1 ? STDERR : STDOUT
      const bytes = data.subarray(at, at + chunk.len[i]!)
      at += bytes.length
      const time = stamp(chunk.t0 + BigInt(chunk.dt[i]!))
      const flags = chunk.flags?.[i] ?? 0
      const said = `${flags & CONTINUED ? ',"continued":true' : ''}${flags & UNTERMINATED ? ',"unterminated":true' : ''}${lost}`
      const end = i === chunk.lines - 1 ? endField(chunk) : ''
      add(
        Buffer.from(
          `${this.#fields},"source":"${SOURCES[source]}","number":${numbers[source]++},"time":"${time}",${text(bytes)}${said}${end}}`,
        ),
      )
      lost = ''
    }
    if (chunk.lines === 0) add(Buffer.from(`${this.#fields}${lost}${endField(chunk)}}`))
  }
}

function lostField({ lost }: Chunk): string {
  if (lost.length === 0) return ''
  return `,"lost":${JSON.stringify(lost.map(({ source, ...range }) => ({ source: SOURCES[source], ...range })))}`
}

const endField = ({ end }: Chunk): string => (end ? `,"end":{"stdout":${end[STDOUT]},"stderr":${end[STDERR]}}` : '')

function text(bytes: Buffer): string {
  if (isUtf8(bytes)) {
    const json = JSON.stringify(bytes.toString('utf8'))
    if (json.length <= JSON_INFLATION * bytes.length + 2) return `"line":${json}`
  }
  return `"base64":"${bytes.toString('base64')}"`
}

const count = z.int().min(0)
const number = z.int().min(1)
const source = z.enum(SOURCES).transform((name): 0 | 1 => (name === 'stdout' ? STDOUT : STDERR))
/** A lone surrogate, as of a name that was cut in the middle of a character, must not cost the line. */
const name = z
  .string()
  .max(4096)
  .transform((text) => text.toWellFormed())
const schema = z.object({
  v: z.literal(VERSION),
  run: z.guid(),
  service: name,
  module: name,
  host: name,
  container: z.object({ id: name, name, image: name }),
  attrs: z
    .record(z.string().max(4096), name)
    .transform((attrs) => Object.fromEntries(Object.entries(attrs).map(([key, value]) => [key.toWellFormed(), value]))),
  source: source.optional(),
  number: number.optional(),
  time: z.iso.datetime({ precision: 9 }).optional(),
  line: z.string().optional(),
  base64: z.base64().optional(),
  continued: z.literal(true).optional(),
  unterminated: z.literal(true).optional(),
  lost: z
    .array(
      z
        .object({ source, from: number, count: number, reason: name.transform(lossReason) })
        .refine(({ from, count }) => Number.isSafeInteger(from + count)),
    )
    .max(4096)
    .optional(),
  end: z.object({ stdout: count, stderr: count }).optional(),
})

/** ns since 1970, which 64 bits hold until 2554. */
function nanoseconds(time: string): bigint {
  const ns = BigInt(Date.parse(`${time.slice(0, 19)}Z`)) * 1_000_000n + BigInt(time.slice(20, 29))
  if (ns < 0n || ns >= 1n << 64n)
    throw new ChunkError('invalid-chunk', `${time} lies outside of what ns since 1970 can say in 64 bits`)
  return ns
}

/**
 * Reads a record's value, trusting nothing of it, into a chunk of one line, or of none where it only tells of the run.
 * @throws ChunkError for anything else
 */
export function decodeJsonLine(value: Uint8Array): Chunk {
  let json: unknown
  try {
    json = JSON.parse(Buffer.from(value.buffer, value.byteOffset, value.length).toString('utf8'))
  } catch (error) {
    throw new ChunkError('not-json', `not JSON: ${(error as Error).message}`)
  }
  const version = (json as { v?: unknown } | null)?.v
  if (typeof version === 'number' && version !== VERSION)
    throw new ChunkError('unknown-version', `version ${version} of the JSON line; this program reads ${VERSION}`)
  const parsed = schema.safeParse(json)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!
    throw new ChunkError('invalid-chunk', `${issue.path.join('.') || 'the value'}: ${issue.message}`)
  }
  const { v: _, ...fields } = parsed.data
  const { run, source, number, time, line, base64, continued, unterminated, lost, end, ...names } = fields
  const data = line === undefined ? base64 && Buffer.from(base64, 'base64') : Buffer.from(line)
  const bytes = data === '' ? Buffer.alloc(0) : data
  if (bytes?.includes(10)) throw new ChunkError('invalid-chunk', 'the line holds a newline')
  const stands = bytes !== undefined && source !== undefined && number !== undefined && time !== undefined
  if (!stands && (bytes ?? source ?? number ?? time) !== undefined)
    throw new ChunkError('invalid-chunk', 'a line needs source, number, time, and line or base64')
  const first: SourcePair = [source === STDOUT ? number! : 1, source === STDERR ? number! : 1]
  const ended: SourcePair | undefined = end && [end.stdout, end.stderr]
  if (stands && ended && ended[source] < number)
    throw new ChunkError('invalid-chunk', 'end is below the number of the line in here')
  return {
    ...names,
    run: Buffer.from(run.replaceAll('-', ''), 'hex'),
    first,
    lines: stands ? 1 : 0,
    src: stands ? Uint8Array.of(source) : new Uint8Array(0),
    t0: stands ? nanoseconds(time) : 0n,
    dt: new Int32Array(stands ? 1 : 0),
    len: stands ? Uint32Array.of(bytes.length) : new Uint32Array(0),
    flags:
      continued || unterminated
        ? Uint8Array.of((continued ? CONTINUED : 0) | (unterminated ? UNTERMINATED : 0))
        : undefined,
    data: bytes ?? new Uint8Array(0),
    lost: lost ?? [],
    end: ended,
  }
}
