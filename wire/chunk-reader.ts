/**
 * Reads chunks as they come, of many runs again and again. What of a chunk says whose lines it holds is byte for byte that of the chunk
 * before of its run: it is compared, and not decoded, and what follows from it is worked out once for all of them.
 *
 * Invariants
 * - Every chunk is what `decodeChunk` makes of the same bytes. Only those are read here that stand as the encoder writes them, with
 *   nothing lost; all others it decodes.
 * - What is remembered is bounded, KNOWN_BYTES: of runs that were not heard of for longest it is worked out anew.
 */
import { LRUCache } from 'lru-cache'
import { type Chunk, ChunkEncoder, type Columns, checkedChunk, decodeChunk, LIMITS, type RunNames } from './chunk.ts'

const KNOWN_BYTES = 24 * 1024 * 1024
/** What is remembered of a run takes up some times its own bytes, and so much beside them. */
const KNOWN_TIMES = 3
const KNOWN_BESIDE = 1024

/** Where in the head the run's id is: behind the keys `v` and `run`, and the value between them. Its last bytes tell runs apart. */
const RUN_AT = 9
const LAST_BYTES_AT = RUN_AT + 12

const keyBytes = (key: string): Buffer => Buffer.from(`${String.fromCharCode(0xa0 + key.length)}${key}`, 'latin1')
const FIRST = keyBytes('first')
const SRC = keyBytes('src')
const T0 = keyBytes('t0')
const DT = keyBytes('dt')
const LEN = keyBytes('len')
const FLAGS = keyBytes('flags')
const DATA = keyBytes('data')
const END = keyBytes('end')
const PAIR = 0x92
const UINT64 = 0xcf

/** Keys of a chunk beside the head's and those that it may have: `first`, `src`, `t0`, `dt`, `len`, `data`. */
const COLUMN_KEYS = 6

type Known<T> = { head: Buffer; names: RunNames; of: T }

export class ChunkReader<T> {
  #know: (names: RunNames) => T
  #encoder = new ChunkEncoder()
  #known = new LRUCache<number, Known<T>>({
    maxSize: KNOWN_BYTES,
    sizeCalculation: ({ head }) => KNOWN_TIMES * head.length + KNOWN_BESIDE,
  })

  /** @param know works out what goes with a run's names, as `of` of its chunks */
  constructor(know: (names: RunNames) => T) {
    this.#know = know
  }

  /** @throws ChunkError as `decodeChunk` does */
  read(bytes: Buffer): Chunk & { of: T } {
    // A map of up to 15 keys has their number in one byte, one of 16 in three.
    const short = bytes[0] !== 0xde
    const at = short ? 1 : 3
    const keys = short ? bytes[0]! - 0x80 : bytes[1]! * 256 + bytes[2]!
    const place = at + LAST_BYTES_AT + 4 <= bytes.length ? bytes.readInt32LE(at + LAST_BYTES_AT) : 0
    const known = this.#known.get(place)
    const end = known ? at + known.head.length : 0
    if (known && end <= bytes.length && known.head.compare(bytes, at, end) === 0) {
      const columns = columnsAt(bytes, end, keys - ChunkEncoder.HEAD_KEYS)
      return chunkOf(columns ? checkedChunk(known.names, columns) : decodeChunk(bytes), known.of)
    }
    const chunk = decodeChunk(bytes)
    const names = { ...namesOf(chunk), run: chunk.run.slice() }
    const of = this.#know(names)
    const head = Buffer.from(this.#encoder.head(names))
    if (head.compare(bytes, at, Math.min(at + head.length, bytes.length)) === 0)
      this.#known.set(place, { head, names, of })
    return chunkOf(chunk, of)
  }
}

function chunkOf<T>(chunk: Chunk, of: T): Chunk & { of: T } {
  const known = chunk as Chunk & { of: T }
  known.of = of
  return known
}

const namesOf = ({ run, service, module, host, container, attrs }: Chunk): RunNames => ({
  ...{ run, service, module, host, container, attrs },
})

/** Where `columnsAt` reads. */
const cursor = { at: 0 }

/**
 * What stands behind the head, in so many keys.
 * @returns undefined where it does not stand as the encoder writes a chunk in which nothing is lost
 */
function columnsAt(bytes: Buffer, at: number, keys: number): Columns | undefined {
  cursor.at = at
  let left = keys - COLUMN_KEYS
  if (!take(bytes, FIRST) || bytes[cursor.at++] !== PAIR) return undefined
  const [stdout, stderr] = [uint(bytes), uint(bytes)]
  if (!(stdout >= 1 && stderr >= 1)) return undefined
  const src = take(bytes, SRC) ? bin(bytes) : undefined
  if (!src || !take(bytes, T0) || bytes[cursor.at] !== UINT64 || cursor.at + 9 > bytes.length) return undefined
  const t0 = bytes.readBigUInt64BE(cursor.at + 1)
  cursor.at += 9
  const dt = take(bytes, DT) ? bin(bytes) : undefined
  const len = take(bytes, LEN) ? bin(bytes) : undefined
  const flagged = take(bytes, FLAGS)
  const flags = flagged ? bin(bytes) : undefined
  const data = take(bytes, DATA) ? bin(bytes) : undefined
  if (!dt || !len || !data || (flagged && !flags)) return undefined
  if (flagged) left--
  let end: Columns['end']
  if (take(bytes, END)) {
    left--
    if (bytes[cursor.at++] !== PAIR) return undefined
    end = [uint(bytes), uint(bytes)]
    if (!(end[0] >= 0 && end[1] >= 0)) return undefined
  }
  if (left !== 0 || cursor.at !== bytes.length) return undefined
  return { first: [stdout, stderr], src, t0, dt, len, flags, data, lost: [], end }
}

/** Moves behind a key. @returns whether it stands there */
function take(bytes: Buffer, key: Buffer): boolean {
  const { at } = cursor
  for (let i = 0; i < key.length; i++) if (bytes[at + i] !== key[i]) return false
  cursor.at = at + key.length
  return true
}

/** @returns NaN for what is no integer that counts lines */
function uint(bytes: Buffer): number {
  const type = bytes[cursor.at++]!
  if (type < 0x80) return type
  const width = type === 0xcc ? 1 : type === 0xcd ? 2 : type === 0xce ? 4 : type === UINT64 ? 8 : 0
  if (width === 0 || cursor.at + width > bytes.length) return Number.NaN
  let value = 0
  for (let i = 0; i < width; i++) value = value * 256 + bytes[cursor.at++]!
  return Number.isSafeInteger(value) ? value : Number.NaN
}

/** @returns a view; undefined for what is not binary, or longer than what is there */
function bin(bytes: Buffer): Uint8Array | undefined {
  const type = bytes[cursor.at++]!
  const width = type === 0xc4 ? 1 : type === 0xc5 ? 2 : type === 0xc6 ? 4 : 0
  if (width === 0) return undefined
  let length = 0
  for (let i = 0; i < width; i++) length = length * 256 + (bytes[cursor.at++] ?? 0)
  const begin = cursor.at
  cursor.at += length
  return cursor.at <= bytes.length && length <= LIMITS.dataBytes
    ? new Uint8Array(bytes.buffer, bytes.byteOffset + begin, length)
    : undefined
}
