/** Slots: how many pieces of work go on at a time; who comes later waits its turn. */
export type Slot = {
  /** How many are served first. */
  readonly ahead: number
  /** Resolves once it is its turn. */
  free: Promise<void>
  /** Gives the slot, or the place in the queue, to the next. */
  release(): void
}

export class Slots {
  #most: number
  #queue: { free: PromiseWithResolvers<void> }[] = []

  constructor(most: number) {
    this.#most = most
  }

  take(): Slot {
    const entry = { free: Promise.withResolvers<void>() }
    this.#queue.push(entry)
    this.#serve()
    const queue = this.#queue
    const most = this.#most
    return {
      get ahead() {
        return Math.max(0, queue.indexOf(entry) + 1 - most)
      },
      free: entry.free.promise,
      release: () => {
        const place = queue.indexOf(entry)
        if (place !== -1) queue.splice(place, 1)
        this.#serve()
      },
    }
  }

  #serve(): void {
    for (const { free } of this.#queue.slice(0, this.#most)) free.resolve()
  }
}
