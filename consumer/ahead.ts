/** Generators that work ahead of whoever takes their values. */

/** A generator that is asked for its next value before anybody wants it, so that its work goes on. */
export class Ahead<T> {
  /** Whether it works on its next value. */
  busy = false
  #from: AsyncGenerator<T>
  #settled: () => void
  #next: Promise<IteratorResult<T>>

  /** @param settled a value is there, or there are no more */
  constructor(from: AsyncGenerator<T>, settled: () => void) {
    this.#from = from
    this.#settled = settled
    this.#next = this.#ask()
  }

  async next(): Promise<IteratorResult<T>> {
    const got = await this.#next
    if (!got.done) this.#next = this.#ask()
    return got
  }

  async stop(): Promise<void> {
    await this.#from.return(undefined)
  }

  #ask(): Promise<IteratorResult<T>> {
    this.busy = true
    const next = this.#from.next().finally(() => {
      this.busy = false
      this.#settled()
    })
    // Whoever asks for it hears what went wrong.
    next.catch(() => {})
    return next
  }
}
