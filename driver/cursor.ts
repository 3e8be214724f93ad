/**
 * A cursor: a position in a run's journal, at the beginning of a frame, and how its lines stand there.
 *
 * Invariants
 * - Where it comes to, and with which numbers, is a pure function of where it began and of the journal.
 * - A frame is taken whole or not at all: what is cut off by the end of what is written waits for its rest.
 * - It stops at a gap, where lines were dropped: the chunk before it has to be sealed, because numbers go on behind it.
 */
import { type LostRange, STDERR, STDOUT } from '../wire/chunk.ts'
import type { SegmentStart, ShippingCheckpoint } from './checkpoint.ts'
import { type ChunkBuilder, READ_BYTES } from './chunks.ts'
import { Frame, INCOMPLETE, readFrame, resync } from './frames.ts'
import type { Gap, JournalReader } from './journal.ts'
import { Lines } from './lines.ts'

export class Cursor {
  /** Offset in the run's stream. */
  offset: number
  lines: Lines
  lost: LostRange[]
  /** The gap that it stands before, until `passGap`. */
  gap: Gap | undefined
  #passed: number
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
    }
  }

  /**
   * Takes frames into the chunk, up to `limit`.
   * @param limit an offset up to which bytes are written
   * @param final nothing will ever follow `limit`: what is no whole frame by then is none
   * @param room called when the chunk has none for the next frame; false stops
   * @returns whether it came as far as there are whole frames; not where it stopped at a `gap`
   */
  advance(chunk: ChunkBuilder, limit: number, final: boolean, room: () => boolean): boolean {
    // A gap at the very end is not come across by reading on.
    if (final) this.#reader.next(limit)
    const done = this.#advance(chunk, limit, final, room)
    if (done && final) this.gap = this.#reader.gapFrom(limit, this.#passed)
    return done && this.gap === undefined
  }

  /** Goes behind the gap: its lines get their numbers, and are handed to `lose`. */
  passGap(lose: (range: LostRange) => void): void {
    const { gap } = this
    if (!gap) return
    for (const source of [STDOUT, STDERR] as const) {
      const count = gap.lines[source]
      if (count === 0) continue
      this.lines.giveUp(source)
      const from = this.lines.next[source]
      this.lines.next[source] += count
      lose({ source, from, count, reason: 'disk' })
    }
    this.#passed = gap.offset
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
          const resumed = resync(chunk.workspace, at, length, this.#frame)
          skipped += resumed - at
          at = resumed
        }
      }
      this.#skippedBytes += skipped
      this.offset += at
      if (at === 0 || (at < length && this.offset + (length - at) === limit)) break
    }
    if (stop && this.offset === stop.offset) this.gap = stop
    return this.gap === undefined
  }

  /** Reads on into the workspace; steps over a hole in the journal. @returns bytes read */
  #read(workspace: Uint8Array, limit: number): number {
    const read = this.#reader.read(workspace, 0, Math.min(READ_BYTES, limit - this.offset), this.offset)
    if (read > 0) return read
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
