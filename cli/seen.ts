/** Lines that were had already: what a tail repeats after a reconnect, and what several consumers answer that ask each other. */
import type { Line } from '../consumer/api-schema.ts'

/** As many lines are remembered: more than land between two checkpoints, behind which a consumer repeats them. */
const REMEMBERED = 250_000

export class Seen {
  #keys = new Set<string>()
  #limit: number

  constructor(limit = REMEMBERED) {
    this.#limit = limit
  }

  /** Whether a line is new; from then on it is not. */
  add({ file, position }: Line): boolean {
    const key = `${position} ${file}`
    if (this.#keys.has(key)) return false
    this.#keys.add(key)
    if (this.#keys.size > this.#limit) {
      const [oldest] = this.#keys
      this.#keys.delete(oldest!)
    }
    return true
  }
}

/** Whether a line of one server can be another's too: a consumer that asks its peers puts its name before the file's. */
export const isShared = ({ file }: Line): boolean => file.includes(':')
