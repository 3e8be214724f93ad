/**
 * Housekeeping: what is done to files that nobody writes any more, one thing after the other, a pass each EVERY_MS.
 *
 * A pass that fails is told and made again; nothing that lands waits for it.
 */
import type { Logger } from 'pino'

const EVERY_MS = 60_000

export type HousekeepingOptions = {
  /** Parts of a pass, in their order. Each ends soon once `stop` is aborted. */
  parts: readonly ((stop: AbortSignal) => Promise<void>)[]
  log: Logger
  everyMs?: number
}

export class Housekeeping {
  #options: HousekeepingOptions
  #stop = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #pass: Promise<void> | undefined

  constructor(options: HousekeepingOptions) {
    this.#options = options
  }

  /** Begins the first pass. */
  start(): void {
    this.#pass = this.#run().finally(() => {
      if (!this.#stop.signal.aborted) this.#timer = setTimeout(() => this.start(), this.#options.everyMs ?? EVERY_MS)
    })
  }

  /** Resolves once nothing is in hand any more. */
  async stop(): Promise<void> {
    this.#stop.abort()
    clearTimeout(this.#timer)
    await this.#pass
  }

  async #run(): Promise<void> {
    const { parts, log } = this.#options
    for (const part of parts) {
      if (this.#stop.signal.aborted) return
      try {
        await part(this.#stop.signal)
      } catch (error) {
        log.warn(
          { code: 'HOUSEKEEPING_FAILED', err: error },
          'files could not be removed or compressed as they should; nothing is lost, and it is tried again',
        )
      }
    }
  }
}
