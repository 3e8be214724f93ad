/**
 * Chunks: lines of one run, laid end to end with their columns beside them (wire/chunk.ts).
 *
 * One builder serves every run in turn, on arrays that live on: it is filled from the journal's bytes, sealed, encoded,
 * and filled again.
 *
 * Invariants
 * - The bytes read from the journal and those of the chunk lie in one `workspace`, so that a line is moved by
 *   `copyWithin`, which needs no view and no allocation: half the price of any other copy of a hundred bytes.
 * - A line is appended only when `fits` said so.
 */
import { type Chunk, MAX_DATA_BYTES, MAX_LINES, type Source, type SourcePair, STDERR } from '../wire/chunk.ts'

/** How much of the journal is read at a time. */
export const READ_BYTES = 256 * 1024

const NEWLINE = 10
const BLANK = 32

/** What a chunk takes beside its lines: keys, names, ids, and MAX_TOLD of `lost`. Names and attributes are capped at StartLogging. */
export const CHUNK_OVERHEAD = 24 * 1024

/** As many entries of `lost` go with a chunk at most. */
export const MAX_TOLD = 64

/** How large lines become when they are encoded. */
export type Costs = {
  /** What a line takes at most beside its own bytes. */
  line: number
  /** What each of its bytes takes at most. */
  byte: number
}

/** Of the columnar chunk: length, time, flag and source of a line stand beside its bytes. */
export const CHUNK_COSTS: Costs = { line: 14, byte: 1 }

export class ChunkBuilder {
  /** [0, READ_BYTES) is the reader's, the rest holds the lines' bytes. */
  readonly workspace = new Uint8Array(READ_BYTES + MAX_DATA_BYTES)
  /** The same bytes: a Buffer is searched ten times as fast. */
  #searched = Buffer.from(this.workspace.buffer)
  lines = 0
  #bytes = 0
  #budget = 0
  #target = 0
  #costs = CHUNK_COSTS
  #len = new Uint32Array(MAX_LINES)
  #dt32 = new Int32Array(MAX_LINES)
  /** Used from the first line on whose time is too far from `t0`. */
  #dt64 = new BigInt64Array(MAX_LINES)
  #src = new Uint8Array(MAX_LINES / 8)
  #flags = new Uint8Array(MAX_LINES)
  #flagged = false
  #wide = false
  #t0High = 0
  #t0Low = 0
  #first: SourcePair = [1, 1]

  /**
   * Begins a chunk.
   * @param first the numbers that the next line of each source gets
   * @param budget bytes that the encoded chunk may take at most
   * @param target bytes at which it is full, though its first line may be longer
   * @param costs of its encoding
   */
  begin(first: SourcePair, budget: number, target = budget, costs = CHUNK_COSTS): void {
    this.lines = 0
    this.#bytes = 0
    this.#budget = budget - CHUNK_OVERHEAD
    this.#target = target
    this.#costs = costs
    this.#flagged = false
    this.#wide = false
    this.#first = [first[0], first[1]]
  }

  /** Whether `lines` more lines of `bytes` in all still go in. */
  fits(lines: number, bytes: number): boolean {
    const total = this.#bytes + bytes
    return (
      this.lines + lines <= MAX_LINES &&
      total <= MAX_DATA_BYTES &&
      total * this.#costs.byte + (this.lines + lines) * this.#costs.line <= this.#budget &&
      (total <= this.#target || this.lines === 0)
    )
  }

  /** Appends a line whose bytes are `workspace[start, end)`. */
  append(source: Source, timeHigh: number, timeLow: number, start: number, end: number, flag: number): void {
    this.workspace.copyWithin(READ_BYTES + this.#bytes, start, end)
    this.#add(source, timeHigh, timeLow, end - start, flag)
  }

  /** Appends a line whose bytes lie elsewhere. */
  appendBytes(source: Source, timeHigh: number, timeLow: number, line: Uint8Array, flag: number): void {
    this.workspace.set(line, READ_BYTES + this.#bytes)
    this.#add(source, timeHigh, timeLow, line.length, flag)
  }

  #add(source: Source, timeHigh: number, timeLow: number, length: number, flag: number): void {
    const i = this.lines++
    if (i === 0) {
      this.#t0High = timeHigh
      this.#t0Low = timeLow
    }
    const dt = (timeHigh - this.#t0High) * 2 ** 28 + (timeLow - this.#t0Low)
    if (!this.#wide && (dt > 0x7fff_ffff || dt < -0x8000_0000)) this.#widen(i)
    // A double says it to the nanosecond for a hundred days.
    if (this.#wide)
      this.#dt64[i] = Number.isSafeInteger(dt)
        ? BigInt(dt)
        : (BigInt(timeHigh - this.#t0High) << 28n) + BigInt(timeLow - this.#t0Low)
    else this.#dt32[i] = dt
    this.#len[i] = length
    this.#bytes += length
    const byte = i >> 3
    const bit = 1 << (i & 7)
    if ((i & 7) === 0) this.#src[byte] = 0
    if (source === STDERR) this.#src[byte] = this.#src[byte]! | bit
    this.#flags[i] = flag
    if (flag !== 0) this.#flagged = true
  }

  /**
   * The columns of what was appended: views, valid until the next `begin`. dockerd hands over no newline in a line, so one
   * comes from a damaged journal; as a blank it costs a reader one byte, and not the whole chunk.
   */
  seal(): Pick<Chunk, 'first' | 'lines' | 'src' | 't0' | 'dt' | 'len' | 'flags' | 'data'> {
    const lines = this.lines
    const data = this.workspace.subarray(READ_BYTES, READ_BYTES + this.#bytes)
    const searched = this.#searched.subarray(READ_BYTES, READ_BYTES + this.#bytes)
    for (let at = searched.indexOf(NEWLINE); at !== -1; at = searched.indexOf(NEWLINE, at)) searched[at] = BLANK
    return {
      first: this.#first,
      lines,
      src: this.#src.subarray(0, Math.ceil(lines / 8)),
      t0: lines === 0 ? 0n : (BigInt(this.#t0High) << 28n) + BigInt(this.#t0Low),
      dt: (this.#wide ? this.#dt64 : this.#dt32).subarray(0, lines),
      len: this.#len.subarray(0, lines),
      flags: this.#flagged ? this.#flags.subarray(0, lines) : undefined,
      data,
    }
  }

  #widen(lines: number): void {
    for (let i = 0; i < lines; i++) this.#dt64[i] = BigInt(this.#dt32[i]!)
    this.#wide = true
  }
}
