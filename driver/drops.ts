/**
 * Dropped frames: what is taken out of a FIFO because the disk takes nothing, so that the container and dockerd go on. It is
 * read and counted, and nothing is kept of it.
 *
 * Invariants
 * - Journalling goes on at the beginning of a frame, so `needed` bytes are read out before.
 * - A disk that fills up takes a part of a frame. The frame is lost with its rest, and counts here: `torn` is what the journal
 *   has of it, be it a byte.
 * - A split line of which any part is dropped counts as one.
 */
import { type Source, type SourcePair, STDERR, STDOUT } from '../wire/chunk.ts'
import {
  Frame,
  HEADER_BYTES,
  INCOMPLETE,
  MAX_FRAME_BYTES,
  readFrame,
  resync,
  SOURCE_BYTES,
  sourceAt,
} from './frames.ts'
import type { JournalReader } from './journal.ts'

/** As much is read at a time. */
export const DROP_BYTES = 64 * 1024

/** A frame of dockerd's begins, and ends, within so many bytes: it cuts lines at 16 KiB. */
const WINDOW_BYTES = 2 * MAX_FRAME_BYTES

/**
 * What a journal that ends at `end` has of a frame whose rest it has not.
 * @returns nothing where it ends between two frames, or where no frame is found at all
 */
export function tornFrame(reader: JournalReader, end: number): Uint8Array {
  // Before the first segment there is nothing: that went with what is shipped, or was given up.
  const from = Math.min(end, Math.max(reader.gapBefore(end), reader.start, end - WINDOW_BYTES))
  const bytes = Buffer.alloc(end - from)
  const length = reader.read(bytes, 0, bytes.length, from)
  const frame = new Frame()
  let at = 0
  while (at < length) {
    const next = readFrame(bytes, at, length, frame)
    if (next === INCOMPLETE) return bytes.subarray(at, length)
    at = next > 0 ? next : resync(bytes, at, length, frame)
  }
  return bytes.subarray(length, length)
}

export class DroppedFrames {
  #bytes = Buffer.alloc(DROP_BYTES + HEADER_BYTES + MAX_FRAME_BYTES)
  #length = 0
  #frame = new Frame()
  #lines: SourcePair
  /** Whether parts were dropped of a line, by source, whose last part has not come. */
  #open: [boolean, boolean] = [false, false]

  /**
   * @param lines that were dropped already
   * @param torn the beginning of a frame, whose rest comes first
   */
  constructor(lines: Readonly<SourcePair> = [0, 0], torn: Uint8Array = Buffer.alloc(0)) {
    this.#lines = [...lines]
    this.#bytes.set(torn)
    this.#length = torn.length
  }

  /** Lines by source, of all whole frames. */
  get lines(): SourcePair {
    return [this.#lines[STDOUT] + Number(this.#open[STDOUT]), this.#lines[STDERR] + Number(this.#open[STDERR])]
  }

  /** The same with the frame that is not whole yet, as far as its source is known. */
  get linesAndRest(): SourcePair {
    const lines = this.lines
    const source = this.#restSource
    if (source !== undefined && !this.#open[source]) lines[source]++
    return lines
  }

  get #restSource(): Source | undefined {
    return this.#length < HEADER_BYTES + SOURCE_BYTES ? undefined : sourceAt(this.#bytes, HEADER_BYTES)
  }

  /** Where the next bytes are to be put, at most DROP_BYTES of them. */
  get room(): Buffer {
    return this.#bytes.subarray(this.#length, this.#length + DROP_BYTES)
  }

  /** Bytes that the last frame still lacks; 0 between two frames. */
  get needed(): number {
    if (this.#length === 0) return 0
    if (this.#length < HEADER_BYTES) return HEADER_BYTES - this.#length
    const size = this.#bytes.readUInt32BE(0)
    // No frame: the rest of one that is not known.
    return size > MAX_FRAME_BYTES ? 0 : HEADER_BYTES + size - this.#length
  }

  /** Counts the bytes that were put into `room`. The first of them may be the rest of a frame that is not known: it is passed over. */
  count(bytes: number): void {
    const end = this.#length + bytes
    let at = 0
    while (at < end) {
      const next = readFrame(this.#bytes, at, end, this.#frame)
      if (next === INCOMPLETE) break
      if (next > 0) {
        const { source, partial, last } = this.#frame
        this.#open[source] = partial && !last
        if (!this.#open[source]) this.#lines[source]++
        at = next
      } else at = resync(this.#bytes, at, end, this.#frame)
    }
    this.#bytes.copyWithin(0, at, end)
    this.#length = Math.max(0, end - at)
  }
}
