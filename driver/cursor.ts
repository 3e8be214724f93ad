/**
 * A cursor: a position in a run's journal, at the beginning of a frame, and how its lines stand there.
 *
 * Invariants
 * - Where it comes to, and with which numbers, is a pure function of where it began and of the journal.
 * - A frame is taken whole or not at all: what is cut off by the end of what is written waits for its rest.
 * - It stops at a gap, where lines were dropped or are damaged: the chunk before it has to be sealed, because numbers go on
 *   behind it.
 * - Damage is a stretch that is no frame, or that the disk does not give. How many lines it held is not known. As many get numbers, and
 *   are lost, as its bytes let expect by the lines before it, one at least: no line is lost without a number. Nor more than they can
 *   hold: lines that were dropped before have numbers, and no bytes.
 */
import { type LostRange, type Source, type SourcePair, STDERR, STDOUT } from '../wire/chunk.ts'
import type { Damage, SegmentStart, ShippingCheckpoint } from './checkpoint.ts'
import { type ChunkBuilder, READ_BYTES } from './chunks.ts'
import { Frame, HEADER_BYTES, INCOMPLETE, readFrame, resync, SOURCE_BYTES, sourceAt } from './frames.ts'
import type { Gap, JournalReader } from './journal.ts'
import { Lines } from './lines.ts'

/** The shortest frame: a length and a source. */
const MIN_FRAME_BYTES = HEADER_BYTES + SOURCE_BYTES

/** The disk did not give what the journal holds. */
export class UnreadableError extends Error {
  override name = 'UnreadableError'
}

export class Cursor {
  /** Offset in the run's stream. */
  offset: number
  lines: Lines
  lost: LostRange[]
  /** The gap that it stands before, until `passGap`. */
  gap: (Gap & { reason: 'disk' | 'damaged' }) | undefined
  /** Offset of the last gap on the disk that was passed. */
  #passed: number
  /** What was passed over since the last whole frame, and is not lost yet. */
  #damage: Damage | undefined
  #skippedBytes: number
  #starts: SegmentStart[]
  #reader: JournalReader
  #frame = new Frame()

  constructor(reader: JournalReader, from: ShippingCheckpoint, maxLineBytes: number) {
    this.#reader = reader
    this.offset = from.offset
    this.lines = new Lines(from.lines, maxLineBytes)
    this.lost = from.lost
    this.#skippedBytes = from.skipped
    this.#starts = from.starts
    this.#passed = from.gap
    this.#damage = from.damage
  }

  /** All that a later cursor needs to go on from here. */
  state(partition: number | undefined): ShippingCheckpoint {
    return {
      offset: this.offset,
      partition,
      lines: this.lines.state(),
      lost: this.lost,
      skipped: this.#skippedBytes,
      ended: false,
      starts: this.#starts,
      gap: this.#passed,
      damage: this.#damage,
    }
  }

  /**
   * Takes frames into the chunk, up to `limit`.
   * @param limit an offset up to which bytes are written
   * @param final nothing will ever follow `limit`: what is no whole frame by then is none
   * @param room called when the chunk has none for the next frame; false stops
   * @returns whether it came as far as there are whole frames; not where it stopped at a `gap`
   * @throws UnreadableError where the disk does not give what is there
   */
  advance(chunk: ChunkBuilder, limit: number, final: boolean, room: () => boolean): boolean {
    // A gap at the very end is not come across by reading on.
    if (final) this.#reader.next(limit)
    const done = this.#advance(chunk, limit, final, room)
    const gap = done && final ? this.#reader.gapFrom(limit, this.#passed) : undefined
    if (gap) this.gap = { ...gap, reason: 'disk' }
    return done && this.gap === undefined
  }

  /** Goes behind the gap: its lines get their numbers, and are handed to `lose`. */
  passGap(lose: (range: LostRange) => void): void {
    const { gap } = this
    if (!gap) return
    for (const source of [STDOUT, STDERR] as const) {
      const count = gap.lines[source]
      if (count === 0) continue
      // Of a line that is pending the rest was dropped. Damage need not be in it: what there is of it leaves.
      if (gap.reason === 'disk') this.lines.giveUp(source)
      const from = this.lines.next[source]
      this.lines.next[source] += count
      lose({ source, from, count, reason: gap.reason })
    }
    if (gap.reason === 'disk') this.#passed = gap.offset
    else {
      this.#damage = undefined
      this.lines.breakOff()
    }
    this.gap = undefined
  }

  #advance(chunk: ChunkBuilder, until: number, last: boolean, room: () => boolean): boolean {
    let limit = until
    let final = last
    let stop: Gap | undefined
    while (this.offset < limit) {
      const wanted = Math.min(READ_BYTES, limit - this.offset)
      let length = this.#read(chunk.workspace, limit)
      if (length === 0) continue
      // The rest of a frame that ends there is missing, and nothing will bring it.
      const torn = length < wanted
      const gap = this.#reader.gapFrom(this.offset, this.#passed)
      if (gap && gap.offset < this.offset + length + (last ? 1 : 0)) {
        stop = gap
        limit = gap.offset
        final = true
        length = limit - this.offset
        if (length === 0) break
      }
      let at = 0
      let next = 0
      let skipped = 0
      if (this.#damage && readFrame(chunk.workspace, 0, length, this.#frame) > 0) return this.#stopAtDamage()
      let base = this.#unknownBase(length)
      while (at < length) {
        if (this.offset + at >= base) base = this.#begins(base, at, length)
        next = readFrame(chunk.workspace, at, length, this.#frame)
        if (next > 0) {
          if (!this.lines.roomFor(chunk, this.#frame) && !(room() && this.lines.roomFor(chunk, this.#frame))) {
            this.#skippedBytes += skipped
            this.offset += at
            return false
          }
          this.lines.take(chunk, this.#frame)
          at = next
        } else {
          const whole = this.offset + length === limit
          if (next === INCOMPLETE && !torn && !(final && whole)) break
          // Its rest was dropped: it is counted with the gap.
          if (next === INCOMPLETE && stop) {
            at = length
            break
          }
          this.#damage ??= this.#damageAt(chunk.workspace, at, length)
          const resumed = resync(chunk.workspace, at, length, this.#frame)
          skipped += resumed - at
          at = resumed
          if (readFrame(chunk.workspace, at, length, this.#frame) <= 0) continue
          this.#skippedBytes += skipped
          this.offset += at
          return this.#stopAtDamage()
        }
      }
      this.#skippedBytes += skipped
      this.offset += at
      if (at === 0 || (at < length && this.offset + (length - at) === limit)) break
    }
    if (this.#damage && final && this.offset === limit) return this.#stopAtDamage()
    if (stop && this.offset === stop.offset) this.gap = { ...stop, reason: 'disk' }
    return this.gap === undefined
  }

  /** What begins at `at`, of bytes that reach to `end`, and is no whole frame. */
  #damageAt(workspace: Uint8Array, at: number, end: number): Damage {
    const isBegun = readFrame(workspace, at, end, this.#frame) === INCOMPLETE && end - at >= MIN_FRAME_BYTES
    if (!isBegun) return { from: this.offset + at, torn: [0, 0] }
    // It reaches to the end, as far as it is there.
    const isStderr = sourceAt(workspace, at + HEADER_BYTES) === STDERR
    return { from: this.offset + end, torn: isStderr ? [0, 1] : [1, 0] }
  }

  /** Has the damage that ends here take its numbers. */
  #stopAtDamage(): boolean {
    const { from, torn } = this.#damage!
    const { next } = this.lines
    const bytes = Math.max(0, this.offset - from)
    const expected = (source: Source): number =>
      torn[source] + (from > 0 ? Math.round((bytes * Math.min(next[source] - 1, from / MIN_FRAME_BYTES)) / from) : 0)
    const lines: SourcePair = [expected(STDOUT), expected(STDERR)]
    if (lines[STDOUT] + lines[STDERR] === 0) lines[next[STDERR] > next[STDOUT] ? STDERR : STDOUT] = 1
    this.gap = { offset: this.offset, lines, reason: 'damaged' }
    return false
  }

  /** Reads on into the workspace; steps over a hole in the journal. @returns bytes read */
  #read(workspace: Uint8Array, limit: number): number {
    const read = this.#reader.read(workspace, 0, Math.min(READ_BYTES, limit - this.offset), this.offset)
    const { failure } = this.#reader
    if (failure) throw new UnreadableError(`it can't be read from ${failure.offset} on: ${failure.error.message}`)
    if (read > 0) return read
    this.#damage ??= { from: this.offset, torn: [0, 0] }
    const next = Math.min(this.#reader.next(this.offset) ?? limit, limit)
    this.#skippedBytes += next - this.offset
    this.offset = next
    return 0
  }

  /** Base of a segment that begins before the end of the block, and of which no first frame is known; infinity where none does. */
  #unknownBase(length: number): number {
    const from = (this.#starts.at(-1)?.[0] ?? -1) + 1
    return this.#reader.baseWithin(from, this.offset + length - from) ?? Number.POSITIVE_INFINITY
  }

  /** Notes the frame at `at` as the first one of a segment. @returns the next base to look out for */
  #begins(base: number, at: number, length: number): number {
    const first = this.#reader.start
    this.#starts = [...this.#starts.filter(([known]) => known >= first), [base, this.offset + at]]
    return this.#unknownBase(length)
  }
}
