/**
 * A cursor: a position in a run's journal, at the beginning of a frame, and how its lines stand there.
 *
 * Invariants
 * - Where it comes to, and with which numbers, is a pure function of where it began and of the journal.
 * - A frame is taken whole or not at all: what is cut off by the end of what is written waits for its rest.
 */
import type { LostRange } from '../wire/chunk.ts'
import type { SegmentStart, ShippingCheckpoint } from './checkpoint.ts'
import { type ChunkBuilder, READ_BYTES } from './chunks.ts'
import { Frame, INCOMPLETE, readFrame, resync } from './frames.ts'
import type { JournalReader } from './journal.ts'
import { Lines } from './lines.ts'

/** Said of bytes that were no frame, or that are missing, and were passed over. */
export type Skipped = (offset: number, bytes: number) => void

export class Cursor {
  /** Offset in the run's stream. */
  offset: number
  lines: Lines
  lost: LostRange[]
  #skippedBytes: number
  #starts: SegmentStart[]
  #reader: JournalReader
  #frame = new Frame()
  #skipped: Skipped

  constructor(reader: JournalReader, from: ShippingCheckpoint, maxLineBytes: number, skipped: Skipped) {
    this.#reader = reader
    this.#skipped = skipped
    this.offset = from.offset
    this.lines = new Lines(from.lines, maxLineBytes)
    this.lost = from.lost
    this.#skippedBytes = from.skipped
    this.#starts = from.starts
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
    }
  }

  /**
   * Takes frames into the chunk, up to `limit`.
   * @param limit an offset up to which bytes are written
   * @param final nothing will ever follow `limit`: what is no whole frame by then is none
   * @param room called when the chunk has none for the next frame; false stops
   * @returns whether it came as far as there are whole frames
   */
  advance(chunk: ChunkBuilder, limit: number, final: boolean, room: () => boolean): boolean {
    while (this.offset < limit) {
      const length = this.#read(chunk.workspace, limit)
      if (length === 0) continue
      let at = 0
      let next = 0
      let base = this.#unknownBase(length)
      while (at < length) {
        if (this.offset + at >= base) base = this.#begins(base, at, length)
        next = readFrame(chunk.workspace, at, length, this.#frame)
        if (next > 0) {
          if (!this.lines.roomFor(chunk, this.#frame) && !(room() && this.lines.roomFor(chunk, this.#frame))) {
            this.offset += at
            return false
          }
          this.lines.take(chunk, this.#frame)
          at = next
        } else {
          const whole = this.offset + length === limit
          if (next === INCOMPLETE && !(final && whole)) break
          const resumed = resync(chunk.workspace, at, length, this.#frame)
          this.#skip(this.offset + at, resumed - at)
          at = resumed
        }
      }
      this.offset += at
      if (at === 0 || (at < length && this.offset + (length - at) === limit)) break
    }
    return true
  }

  /** Reads on into the workspace; steps over a hole in the journal. @returns bytes read */
  #read(workspace: Uint8Array, limit: number): number {
    const read = this.#reader.read(workspace, 0, Math.min(READ_BYTES, limit - this.offset), this.offset)
    if (read > 0) return read
    const next = Math.min(this.#reader.next(this.offset) ?? limit, limit)
    this.#skip(this.offset, next - this.offset)
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

  #skip(offset: number, bytes: number): void {
    this.#skippedBytes += bytes
    this.#skipped(offset, bytes)
  }
}
