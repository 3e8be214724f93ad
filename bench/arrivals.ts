/** When lines of a file can be read: follows it as `tail -f` does, and takes the time between each line's stamp and now. Reads the text layout. */
import { closeSync, openSync, readSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** How often is looked, ms: no line is seen later than this after it can be read. */
const EVERY_MS = 2
const STAMP_BYTES = 24
const NEWLINE = 10

export class Arrivals {
  #latencies: number[] = []
  #stopped = false
  #done: Promise<void>

  /** @param path of a file that is there */
  constructor(path: string) {
    this.#done = this.#follow(path)
  }

  /** Forgets what was seen so far, but for the last `kept` lines. */
  reset(kept = 0): void {
    this.#latencies = kept === 0 ? [] : this.#latencies.slice(-kept)
  }

  /** As `take`, of all until now. Nothing is seen any more. */
  async stop(): Promise<(quantile: number) => number> {
    this.#stopped = true
    await this.#done
    return this.take()
  }

  /** From a line's stamp until it could be read, ms, of the lines since it was asked last. @returns by quantile */
  take(): (quantile: number) => number {
    const sorted = Float64Array.from(this.#latencies).sort()
    this.reset()
    if (sorted.length === 0) throw new Error('no line arrived')
    return (quantile) => sorted[Math.min(sorted.length - 1, Math.floor(quantile * sorted.length))]!
  }

  async #follow(path: string): Promise<void> {
    const fd = openSync(path, 'r')
    const buffer = Buffer.alloc(4 * 1024 * 1024)
    let at = 0
    try {
      while (!this.#stopped) {
        await sleep(EVERY_MS)
        const read = readSync(fd, buffer, 0, buffer.length, at)
        const now = Date.now()
        // A line that is not whole yet is read again.
        const whole = buffer.subarray(0, read).lastIndexOf(NEWLINE) + 1
        for (let line = 0; line < whole; line = buffer.indexOf(NEWLINE, line) + 1)
          this.#latencies.push(now - Date.parse(buffer.toString('latin1', line, line + STAMP_BYTES)))
        at += whole
      }
    } finally {
      closeSync(fd)
    }
  }
}
