/**
 * Dropped frames: what is taken out of a FIFO because the disk takes nothing, so that the container and dockerd go on. It is
 * read and counted, and nothing is kept of it.
 *
 * Invariant: journalling goes on at the beginning of a frame, so `needed` bytes are read out before.
 */
import type { SourcePair } from '../wire/chunk.ts'
import { Frame, HEADER_BYTES, INCOMPLETE, MAX_FRAME_BYTES, readFrame, resync } from './frames.ts'

/** As much is read at a time. */
export const DROP_BYTES = 64 * 1024

export class DroppedFrames {
  /** Lines by source: a split line counts with its last part. */
  readonly lines: SourcePair
  #bytes = Buffer.alloc(DROP_BYTES + HEADER_BYTES + MAX_FRAME_BYTES)
  #length = 0
  #frame = new Frame()

  /** @param lines that were dropped already */
  constructor(lines: Readonly<SourcePair> = [0, 0]) {
    this.lines = [...lines]
  }

  /** Where the next bytes are to be put, at most DROP_BYTES of them. */
  get room(): Buffer {
    return this.#bytes.subarray(this.#length, this.#length + DROP_BYTES)
  }

  /** Bytes that the last frame still lacks; 0 between two frames. */
  get needed(): number {
    if (this.#length === 0) return 0
    if (this.#length < HEADER_BYTES) return HEADER_BYTES - this.#length
    return HEADER_BYTES + this.#bytes.readUInt32BE(0) - this.#length
  }

  /** Counts the bytes that were put into `room`. The first of them may be the rest of a frame: it is passed over. */
  count(bytes: number): void {
    const end = this.#length + bytes
    let at = 0
    while (at < end) {
      const next = readFrame(this.#bytes, at, end, this.#frame)
      if (next === INCOMPLETE) break
      if (next > 0) {
        if (!this.#frame.partial || this.#frame.last) this.lines[this.#frame.source]++
        at = next
      } else at = resync(this.#bytes, at, end, this.#frame)
    }
    this.#bytes.copyWithin(0, at, end)
    this.#length = Math.max(0, end - at)
  }
}
