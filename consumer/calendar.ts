/**
 * The calendar: which day it is, as far as days are removed and compressed by it.
 *
 * Invariant: it is never later than records give reason to believe. Their append times say when it was, and from there on the
 * time that passes is measured. So a clock that jumps ahead, which would make every day an old one, removes nothing; one that is
 * behind keeps days for longer.
 */
import type { Days } from './days.ts'

export type Clocks = {
  /** ms since 1970. */
  now(): number
  /** ms since whenever; never jumps. */
  passed(): number
}

export const CLOCKS: Clocks = { now: () => Date.now(), passed: () => performance.now() }

export class Calendar {
  #days: Days
  #clocks: Clocks
  #newest: () => number
  /** What was seen last, and when. */
  #seen: number
  #at: number

  /**
   * @param newest when the newest of the records was appended that have landed, ms since 1970; 0 before the first
   * @param earlier when that of an earlier daemon's was
   */
  constructor(days: Days, newest: () => number, earlier: number, clocks = CLOCKS) {
    this.#days = days
    this.#newest = newest
    this.#clocks = clocks
    this.#at = clocks.passed()
    this.#seen = earlier
  }

  /** ms since 1970. */
  get now(): number {
    const newest = this.#newest()
    const passed = this.#clocks.passed()
    if (newest > this.#seen + passed - this.#at) {
      this.#seen = newest
      this.#at = passed
    }
    return Math.min(this.#clocks.now(), this.#seen + passed - this.#at)
  }

  /** The day that it is; while nothing tells, the first that there was. */
  get today(): string {
    return this.#days.at(this.now).name
  }

  /** Whether a day has been over for so many ms. */
  over(day: string, ms: number): boolean {
    return this.#days.named(day).end + ms <= this.now
  }
}
