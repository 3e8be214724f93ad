/**
 * What waits in a channel of the hub, so that lines of several files leave it in the order of their times: lines, where they are
 * chosen and told one by one, or whole stretches.
 */
import { EncodedLines } from './encoded-lines.ts'
import type { Stretch } from './stored-line.ts'

/** A stretch that has just landed. */
export class Landed {
  readonly stretch: Stretch
  readonly bytes: Buffer
  /** By performance.now(). */
  readonly arrived: number
  /** Which flush it stands behind. */
  readonly sequence: number
  #lines: EncodedLines | undefined

  constructor(stretch: Stretch, bytes: Buffer, arrived: number, sequence: number) {
    this.stretch = stretch
    this.bytes = bytes
    this.arrived = arrived
    this.sequence = sequence
  }

  /** Parsed once, for all channels, and not before one asks. */
  get lines(): EncodedLines {
    this.#lines ??= EncodedLines.of(this.stretch, this.bytes)
    return this.#lines
  }
}

/** What leaves a window at once. */
export type Leaving = {
  /** How many lines. */
  readonly lines: number
  /** The first flush that any of it stands behind. */
  readonly sequence: number
  /** The part that stands behind a later flush; undefined where that is nothing. */
  behind(sequence: number): Leaving | undefined
  /** As it goes over the wire, not packed. */
  encode(): Buffer
}

export type Window = {
  /** Bytes of text that wait. */
  readonly bytes: number
  /** When what waits longest has arrived, by performance.now(); Infinity where nothing waits. */
  readonly oldest: number
  add(landed: Landed): void
  /** The latest time of what had arrived by then, ms since 1970; -Infinity where nothing had. */
  latest(arrived: number): number
  /** Takes out what is not later than a time, ms since 1970; undefined where nothing is to be told. */
  take(until: number): Leaving | undefined
}

/** Beside its text a stretch that waits takes up so many bytes. */
export const STRETCH_BYTES = 1024
