/** Stretches of whole numbers: those that touch or overlap are one, so that what is written in order takes no room. */

export class Intervals {
  /** Begin and end, which is left out, of each, in order. */
  readonly list: [from: number, to: number][] = []

  add(from: number, to: number): void {
    const first = this.#firstTo(from)
    let last = first
    let [begin, end] = [from, to]
    for (; last < this.list.length && this.list[last]![0] <= to; last++) {
      begin = Math.min(begin, this.list[last]![0])
      end = Math.max(end, this.list[last]![1])
    }
    this.list.splice(first, last - first, [begin, end])
  }

  /** Whether some of it is in here. */
  touches(from: number, to: number): boolean {
    const at = this.#firstTo(from + 1)
    return at < this.list.length && this.list[at]![0] < to
  }

  /** Whether all of it is in here. */
  holds(from: number, to: number): boolean {
    const at = this.#firstTo(from)
    return this.list.slice(at, at + 2).some(([a, b]) => a <= from && b >= to)
  }

  /** What of a stretch is not in here. */
  without(from: number, to: number): [from: number, to: number][] {
    const rest: [number, number][] = []
    let at = from
    for (let i = this.#firstTo(from); i < this.list.length && this.list[i]![0] < to; i++) {
      const [a, b] = this.list[i]!
      if (a > at) rest.push([at, a])
      at = Math.max(at, b)
    }
    if (at < to) rest.push([at, to])
    return rest
  }

  /** The place of the first that ends at `place` or behind it. */
  #firstTo(place: number): number {
    let [low, high] = [0, this.list.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.list[middle]![1] < place) low = middle + 1
      else high = middle
    }
    return low
  }
}
