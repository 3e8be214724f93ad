/**
 * Lines: the parts of split lines joined, every line numbered.
 *
 * dockerd cuts a line at 16 KiB into parts that share an id; parts of stdout and stderr interleave, so each source has a
 * pending line of its own. A part of another id, or a whole line, ends a pending line that never got its last part.
 *
 * Invariants
 * - Numbers are a pure function of the journal: the same frames from the same state give the same numbers.
 * - A line over the cap leaves in pieces, each with a number of its own, CONTINUED on all but the last. A piece is cut only
 *   when more bytes follow, so a line of just the cap is one line.
 * - `roomFor` says before a frame is taken what it can add, so that a frame is taken whole or not at all.
 */
import { CONTINUED, type Source, type SourcePair, STDERR, STDOUT, UNTERMINATED } from '../wire/chunk.ts'
import type { ChunkBuilder } from './chunks.ts'
import type { Frame } from './frames.ts'

/** A split line whose last part has not come yet. */
export type Pending = { id: Uint8Array; timeHigh: number; timeLow: number; bytes: Uint8Array }

/** Where a run's lines stand between two frames: all that is needed to go on from there. */
export type LineState = { next: SourcePair; pending: [Pending | undefined, Pending | undefined] }

/** No part has this id: dockerd's are 64 hex digits, or none. */
const BROKEN_OFF = Uint8Array.of(0)

const sameId = (frame: Frame, bytes: Uint8Array, id: Uint8Array): boolean => {
  if (frame.idEnd - frame.idStart !== id.length) return false
  for (let i = 0; i < id.length; i++) if (bytes[frame.idStart + i] !== id[i]) return false
  return true
}

export class Lines {
  next: SourcePair
  #pending: LineState['pending']
  #maxLineBytes: number

  constructor(state: LineState, maxLineBytes: number) {
    this.next = [state.next[0], state.next[1]]
    this.#pending = [state.pending[0], state.pending[1]]
    this.#maxLineBytes = maxLineBytes
  }

  /** The state as it is now. Pending bytes are shared, never changed in place. */
  state(): LineState {
    return { next: [this.next[0], this.next[1]], pending: [this.#pending[0], this.#pending[1]] }
  }

  /** Whether `frame` can be taken into `chunk` whole. A chunk that is empty takes any frame. */
  roomFor(chunk: ChunkBuilder, frame: Frame): boolean {
    const pending = this.#pending[frame.source]
    const bytes = frame.lineEnd - frame.lineStart
    if (!pending && !frame.partial) return chunk.fits(1, bytes)
    const total = bytes + (pending ? pending.bytes.length : 0)
    return chunk.fits(2 + Math.ceil(total / this.#maxLineBytes), total)
  }

  /** Takes a frame that lies in the chunk's workspace. */
  take(chunk: ChunkBuilder, frame: Frame): void {
    const { source } = frame
    const pending = this.#pending[source]
    const length = frame.lineEnd - frame.lineStart
    if (!pending && !frame.partial && length <= this.#maxLineBytes) {
      chunk.append(source, frame.timeHigh, frame.timeLow, frame.lineStart, frame.lineEnd, 0)
      this.next[source]++
      return
    }
    if (pending && !(frame.partial && sameId(frame, chunk.workspace, pending.id)))
      this.#flush(chunk, source, UNTERMINATED)
    this.#part(chunk, frame)
    if (!frame.partial || frame.last) this.#flush(chunk, source, 0)
  }

  /**
   * The run is over: what is pending was never terminated, and is added as far as the chunk has room.
   * @returns whether nothing is pending any more; if not, call again with a chunk that is empty
   */
  finish(chunk: ChunkBuilder): boolean {
    for (const source of [STDOUT, STDERR] as const) {
      const pending = this.#pending[source]
      if (pending && !chunk.fits(1, pending.bytes.length)) return false
      this.#flush(chunk, source, UNTERMINATED)
    }
    return true
  }

  /** What is pending of a source is part of a line whose rest is lost. */
  giveUp(source: Source): void {
    this.#pending[source] = undefined
  }

  /** Parts may be missing behind what is pending: it leaves as a line of its own, and what still comes of it as another. */
  breakOff(): void {
    for (const source of [STDOUT, STDERR] as const) {
      const pending = this.#pending[source]
      if (pending) this.#pending[source] = { ...pending, id: BROKEN_OFF }
    }
  }

  #part(chunk: ChunkBuilder, frame: Frame): void {
    const { source } = frame
    const { workspace } = chunk
    const before = this.#pending[source]
    const id = before?.id ?? workspace.slice(frame.idStart, frame.idEnd)
    const timeHigh = before?.timeHigh ?? frame.timeHigh
    const timeLow = before?.timeLow ?? frame.timeLow
    let bytes: Uint8Array = Buffer.concat([
      before?.bytes ?? new Uint8Array(0),
      workspace.subarray(frame.lineStart, frame.lineEnd),
    ])
    while (bytes.length > this.#maxLineBytes) {
      chunk.appendBytes(source, timeHigh, timeLow, bytes.subarray(0, this.#maxLineBytes), CONTINUED)
      this.next[source]++
      bytes = bytes.subarray(this.#maxLineBytes)
    }
    this.#pending[source] = { id, timeHigh, timeLow, bytes }
  }

  #flush(chunk: ChunkBuilder, source: Source, flag: number): void {
    const pending = this.#pending[source]
    if (!pending) return
    this.#pending[source] = undefined
    chunk.appendBytes(source, pending.timeHigh, pending.timeLow, pending.bytes, flag)
    this.next[source]++
  }
}
