/**
 * Slots: how many pieces of work go on at a time; who comes later waits its turn.
 *
 * One caller never has all of them: somebody who starts many and reads none would keep everybody else waiting.
 */
export type Slot = {
  /** How many are served first, itself included; 0 once it is its turn. */
  readonly ahead: number
  /** Resolves once it is its turn. */
  free: Promise<void>
  /** Gives the slot, or the place in the queue, to the next. */
  release(): void
}

type Entry = { caller: string | undefined; free: PromiseWithResolvers<void>; served: boolean }

export class Slots {
  #most: number
  #queue: Entry[] = []

  constructor(most: number) {
    this.#most = most
  }

  /** @param caller whose work it is; undefined where callers are not told apart */
  take(caller?: string): Slot {
    const entry: Entry = { caller, free: Promise.withResolvers<void>(), served: false }
    this.#queue.push(entry)
    this.#serve()
    const queue = this.#queue
    return {
      get ahead() {
        return entry.served ? 0 : queue.slice(0, queue.indexOf(entry) + 1).filter(({ served }) => !served).length
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
    const served = this.#queue.filter((entry) => entry.served)
    const mostOfOne = Math.max(1, this.#most - 1)
    for (const entry of this.#queue) {
      if (served.length >= this.#most) return
      const { caller } = entry
      if (entry.served || (caller !== undefined && served.filter((one) => one.caller === caller).length >= mostOfOne))
        continue
      entry.served = true
      served.push(entry)
      entry.free.resolve()
    }
  }
}
