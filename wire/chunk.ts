/**
 * The chunk: the value of a Kafka record, a batch of lines of one run as a MessagePack map.
 *
 * Columnar: the lines' bytes lie end to end in `data`, and what is known of each line stands in arrays beside it
 * (`len`, `dt`, `src`, `flags`), so that neither side allocates anything per line.
 *
 * Invariants
 * - A decoded chunk is consistent: every column has one entry a line, `len` adds up to `data`, no line holds a newline,
 *   every time is a date, and `end` is not below a number that the chunk itself carries. Whoever holds one needs no checks.
 * - A decoded chunk's `data`, `run` and `src` are views of the record's own bytes: they live as long as the record does.
 * - What it becomes in a file is bounded, by its bytes and by how often its names may stand in front of a line.
 * - Its strings are well-formed. Anything else is a ChunkError. Decoding allocates nothing by a length that the record
 *   merely claims (shape.ts).
 *
 * The table of keys is public API: docs/format.md carries it, test/golden/ holds it, and a change of it raises VERSION.
 */
import { endianness } from 'node:os'
import { Decoder, Encoder } from '@msgpack/msgpack'
import { misshapen } from './shape.ts'

/** The one version that this code writes and reads. */
export const VERSION = 1

/** Caps of a chunk that the driver cuts; a reader takes more, up to the limits further down. */
export const MAX_LINES = 8192
export const MAX_DATA_BYTES = 512 * 1024

export const STDOUT = 0
export const STDERR = 1
/** The index of a source in every pair of the format: 0 stdout, 1 stderr. */
export type Source = typeof STDOUT | typeof STDERR
export type SourcePair = [stdout: number, stderr: number]

/** A line's flags. CONTINUED: a line over the cap was cut here. UNTERMINATED: the run ended without a newline. */
export const CONTINUED = 1
export const UNTERMINATED = 2

/** Line numbers that the driver gave up before this chunk: `count` numbers of `source`, from `from` on. `reason` is a word (`lossReason`). */
export type LostRange = { source: Source; from: number; count: number; reason: string }

export type Chunk = {
  /** The run's UUID, 16 bytes. */
  run: Uint8Array
  service: string
  module: string
  host: string
  container: { id: string; name: string; image: string }
  attrs: Record<string, string>
  /** Number of the first stdout line and of the first stderr line in here (of the next one, where there is none). */
  first: SourcePair
  /** How many lines. */
  lines: number
  /** A bit a line, least significant first: 0 stdout, 1 stderr. */
  src: Uint8Array
  /** Time of the first line, ns since 1970. */
  t0: bigint
  /** ns since `t0`, a line each. */
  dt: Int32Array | BigInt64Array
  /** Length in bytes, a line each. */
  len: Uint32Array
  /** Flags, a line each, where any line has one. */
  flags: Uint8Array | undefined
  /** The lines' bytes, end to end, without newlines. */
  data: Uint8Array
  lost: LostRange[]
  /** The run is over: how many lines each source had in all. */
  end: SourcePair | undefined
}

/** Whose lines a chunk holds. */
export type RunNames = Pick<Chunk, 'run' | 'service' | 'module' | 'host' | 'container' | 'attrs'>

/** A value that is no chunk. `reason` is a stable word for metrics and dead letters, the message says what was wrong. */
export class ChunkError extends Error {
  override name = 'ChunkError'
  readonly reason: 'not-msgpack' | 'not-json' | 'unknown-version' | 'invalid-chunk'
  constructor(reason: ChunkError['reason'], message: string) {
    super(message)
    this.reason = reason
  }
}

if (endianness() !== 'LE')
  throw new Error('tallyman runs on little endian machines only: columns are written as they lie in memory')

const bytesOf = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

/** MessagePack has no room for numbers from 2^32 on but as 64-bit, which this library writes for bigint alone. */
const uint = (n: number): number | bigint => (n < 2 ** 32 ? n : BigInt(n))
const uintPair = (pair: SourcePair) => [uint(pair[0]), uint(pair[1])]

/** What of a chunk is the same in all of its run, in the order in which it is encoded: first of all. */
const head = ({ run, service, module, host, container, attrs }: RunNames) => ({
  v: VERSION,
  run,
  svc: service,
  mod: module,
  host,
  ctr: container,
  attrs,
})

/** Encodes chunks into a buffer of its own that lives on, so that a busy driver makes no garbage of 512 KiB a chunk. */
export class ChunkEncoder {
  #encoder = new Encoder({ useBigInt64: true, initialBufferSize: 16 * 1024, ignoreUndefined: true })

  /** The encoded chunk, valid until the next call on the same encoder. The chunk is taken as consistent. */
  encode(chunk: Chunk): Uint8Array {
    return this.#encoder.encodeSharedRef({
      ...head(chunk),
      first: uintPair(chunk.first),
      src: chunk.src,
      t0: chunk.t0,
      dt: bytesOf(chunk.dt),
      len: bytesOf(chunk.len),
      flags: chunk.flags,
      data: chunk.data,
      lost:
        chunk.lost.length === 0
          ? undefined
          : chunk.lost.map((l) => ({ src: l.source, from: uint(l.from), count: uint(l.count), reason: l.reason })),
      end: chunk.end && uintPair(chunk.end),
    })
  }

  /** How many keys `head` has. */
  static readonly HEAD_KEYS = 7

  /** The first keys and values of every chunk of a run, valid as `encode`'s. */
  head(names: RunNames): Uint8Array {
    return this.#encoder.encodeSharedRef(head(names)).subarray(1)
  }
}

/** What a reader takes at most. They are far above what the driver writes and far below what could hurt. */
export const LIMITS = {
  nameBytes: 4096,
  dataBytes: 16 * 1024 * 1024,
  lines: 1024 * 1024,
  /** Lines times the characters of the names that may stand with each of them, in a file or in an answer: as many as MAX_LINES can have. */
  namesRepeated: MAX_LINES * 4 * 4096,
  attrs: 256,
  lost: 4096,
}

/** A reason is a key and stands in tables: what is no word is taken for this one. */
export const OTHER_REASON = 'other'
const REASON = /^[a-z][a-z0-9-]{0,62}$/

/** A sender's reason as a word. */
export const lossReason = (said: string): string => (REASON.test(said) ? said : OTHER_REASON)

const decoder = new Decoder({
  useBigInt64: true,
  maxStrLength: 64 * 1024,
  maxBinLength: LIMITS.dataBytes,
  maxArrayLength: LIMITS.lost,
  maxMapLength: LIMITS.attrs,
  maxExtLength: 0,
})

const invalid = (what: string): never => {
  throw new ChunkError('invalid-chunk', what)
}

type Fields = Record<string, unknown>

function map(value: unknown, what: string): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value)
    ? (value as Fields)
    : invalid(`${what} is not a map`)
}

function string(value: unknown, what: string): string {
  if (typeof value !== 'string') return invalid(`${what} is not a string`)
  if (value.length > LIMITS.nameBytes) return invalid(`${what} is longer than ${LIMITS.nameBytes}`)
  // A lone surrogate, as of a name that was cut in the middle of a character, must not cost the lines.
  return value.toWellFormed()
}

function binary(value: unknown, what: string): Uint8Array {
  return value instanceof Uint8Array ? value : invalid(`${what} is not binary`)
}

function integer(value: unknown, least: number, what: string): number {
  const n = typeof value === 'bigint' ? Number(value) : value
  if (typeof n !== 'number' || !Number.isSafeInteger(n) || n < least)
    return invalid(`${what} is not an integer from ${least}`)
  return n
}

function pair(value: unknown, least: number, what: string): SourcePair {
  if (!Array.isArray(value) || value.length !== 2) return invalid(`${what} is not a pair`)
  return [integer(value[0], least, what), integer(value[1], least, what)]
}

function lostRanges(value: unknown): LostRange[] {
  if (value === undefined) return []
  if (!Array.isArray(value)) return invalid('lost is not a list')
  return value.map((item: unknown) => {
    const range = map(item, 'an entry of lost')
    const source = range['src']
    if (source !== STDOUT && source !== STDERR) return invalid('src of an entry of lost is neither 0 nor 1')
    const from = integer(range['from'], 1, 'from of an entry of lost')
    const count = integer(range['count'], 1, 'count of an entry of lost')
    if (!Number.isSafeInteger(from + count)) return invalid('an entry of lost ends beyond the safe integers')
    return { source, from, count, reason: lossReason(string(range['reason'], 'reason of an entry of lost')) }
  })
}

/** Every time fits in 64 bits of ns since 1970, which ends in 2554: long before a Date does. */
function checkTimes(t0: bigint, dt: Int32Array | BigInt64Array): void {
  // An int32 reaches 2.2 s to either side: only in the first and the last of all seconds it could matter.
  if (dt instanceof Int32Array && t0 >= 1n << 31n && t0 < (1n << 64n) - (1n << 31n)) return
  // Up to 2262 only a time before 1970 could matter, and that the high word tells.
  if (dt instanceof BigInt64Array && t0 < 1n << 63n) {
    const words = new Int32Array(dt.buffer, dt.byteOffset, 2 * dt.length)
    const least = -Number(t0 >> 32n)
    let early = false
    for (let i = 1; i < words.length; i += 2) early ||= words[i]! < least
    if (!early) return
  }
  for (const d of dt) {
    const t = t0 + BigInt(d)
    if (t < 0n || t >= 1n << 64n) invalid('a time lies outside of what ns since 1970 can say in 64 bits')
  }
}

/** How many lines of stderr the bits of `src` say, of `lines` in all. Bits behind the last line are not lines. */
export function countStderr(src: Uint8Array, lines: number): number {
  let count = 0
  for (let i = 0; i < src.length; i++) {
    let byte = src[i]!
    if (i === src.length - 1 && lines % 8 !== 0) byte &= (1 << (lines % 8)) - 1
    for (; byte !== 0; byte &= byte - 1) count++
  }
  return count
}

/**
 * Reads a record's value, trusting nothing of it.
 * @throws ChunkError for anything that is not a chunk of this version, and nothing else
 */
export function decodeChunk(bytes: Uint8Array): Chunk {
  const wrong = misshapen(bytes)
  if (wrong !== undefined) throw new ChunkError('not-msgpack', `not a MessagePack value that is taken here: ${wrong}`)
  let value: unknown
  try {
    // Not a Buffer, whose slice() copies nothing: columns are copied to be aligned.
    value = decoder.decode(bytesOf(bytes))
  } catch (error) {
    throw new ChunkError('not-msgpack', `not a MessagePack value: ${(error as Error).message}`)
  }
  if (typeof value !== 'object' || value === null || !('v' in value)) return invalid('not a map with a version v')
  const fields = value as Fields
  if (fields['v'] !== VERSION) {
    const version = typeof fields['v'] === 'number' ? fields['v'] : `of type ${typeof fields['v']}`
    throw new ChunkError('unknown-version', `version ${version} of the chunk format; this program reads ${VERSION}`)
  }

  return checkedChunk(namesOf(fields), {
    first: pair(fields['first'], 1, 'first'),
    src: binary(fields['src'], 'src'),
    t0: typeof fields['t0'] === 'bigint' ? fields['t0'] : BigInt(integer(fields['t0'], 0, 't0')),
    dt: binary(fields['dt'], 'dt'),
    len: binary(fields['len'], 'len'),
    flags: fields['flags'] === undefined ? undefined : binary(fields['flags'], 'flags'),
    data: binary(fields['data'], 'data'),
    lost: lostRanges(fields['lost']),
    end: fields['end'] === undefined ? undefined : pair(fields['end'], 0, 'end'),
  })
}

function namesOf(fields: Fields): RunNames {
  const run = binary(fields['run'], 'run')
  if (run.length !== 16) invalid(`run has ${run.length} bytes instead of 16`)
  const container = map(fields['ctr'], 'ctr')
  const attrs = Object.fromEntries(
    Object.entries(map(fields['attrs'], 'attrs')).map(([key, value]) => [
      string(key, 'a key of attrs'),
      string(value, 'a value of attrs'),
    ]),
  )
  return {
    run,
    service: string(fields['svc'], 'svc'),
    module: string(fields['mod'], 'mod'),
    host: string(fields['host'], 'host'),
    container: {
      id: string(container['id'], 'ctr.id'),
      name: string(container['name'], 'ctr.name'),
      image: string(container['image'], 'ctr.image'),
    },
    attrs,
  }
}

/** What a chunk says of its lines, as it stands in the record: columns of several bytes an entry are bytes still. */
export type Columns = Pick<Chunk, 'first' | 'src' | 't0' | 'flags' | 'data' | 'lost' | 'end'> & {
  dt: Uint8Array
  len: Uint8Array
}

/** The chunk of these columns. @throws ChunkError where they are not consistent */
export function checkedChunk(
  { run, service, module, host, container, attrs }: RunNames,
  { first, src, t0, dt: dtBytes, len: lenBytes, flags, data, lost, end }: Columns,
): Chunk {
  if (lenBytes.length % 4 !== 0) invalid('len is not a whole number of uint32')
  const lines = lenBytes.length / 4
  if (lines > LIMITS.lines) invalid(`${lines} lines; at most ${LIMITS.lines} are taken`)
  const len = columnOf(Uint32Array, lenBytes)
  let sum = 0
  for (let i = 0; i < lines; i++) sum += len[i]!
  if (sum !== data.length) invalid(`the lengths add up to ${sum}, data has ${data.length} bytes`)
  // Of all ways to look for a byte this is the fastest by far.
  if (Buffer.from(data.buffer, data.byteOffset, data.length).indexOf(10) !== -1) invalid('a line holds a newline')

  if (dtBytes.length !== 4 * lines && dtBytes.length !== 8 * lines) invalid('dt has neither 4 nor 8 bytes a line')
  const dt = dtBytes.length === 4 * lines ? columnOf(Int32Array, dtBytes) : columnOf(BigInt64Array, dtBytes)
  if (t0 < 0n) invalid('t0 lies before 1970')
  checkTimes(t0, dt)

  if (src.length !== Math.ceil(lines / 8)) invalid(`src has ${src.length} bytes for ${lines} lines`)
  if (flags) {
    if (flags.length !== lines) invalid(`flags has ${flags.length} bytes for ${lines} lines`)
    if (flags.some((f) => f > (CONTINUED | UNTERMINATED))) invalid('a flag is not known')
  }

  const stderr = countStderr(src, lines)
  const stdoutEnd = first[STDOUT] + (lines - stderr)
  const stderrEnd = first[STDERR] + stderr
  if (!Number.isSafeInteger(stdoutEnd) || !Number.isSafeInteger(stderrEnd))
    invalid('the line numbers leave the safe integers')
  if (end && (end[STDOUT] < stdoutEnd - 1 || end[STDERR] < stderrEnd - 1)) {
    invalid('end is below the numbers of the lines in here')
  }

  if (lines * (service.length + module.length + host.length + container.name.length) > LIMITS.namesRepeated)
    invalid(`svc, mod, host and ctr.name are too long to stand with each of ${lines} lines`)
  return { run, service, module, host, container, attrs, first, lines, src, t0, dt, len, flags, data, lost, end }
}

type Column = Uint32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>

/** A column's bytes as its entries. Copied, because it lies at any offset of the record and a typed array wants it aligned. */
function columnOf<T extends Column>(
  Entries: { readonly BYTES_PER_ELEMENT: number; new (length: number): T },
  bytes: Uint8Array,
): T {
  const column = new Entries(bytes.length / Entries.BYTES_PER_ELEMENT)
  new Uint8Array(column.buffer).set(bytes)
  return column
}
