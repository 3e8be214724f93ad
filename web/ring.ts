/** A ring: the newest `capacity` items, in the order in which they came. Taking one more than it holds lets go of the oldest. */
export class Ring<T> {
  readonly capacity: number
  /** How many items were let go of. */
  dropped = 0
  #items: (T | undefined)[]
  #start = 0
  #length = 0

  constructor(capacity: number) {
    this.capacity = capacity
    this.#items = new Array<T | undefined>(capacity)
  }

  get length(): number {
    return this.#length
  }

  /** @returns the item that was let go of for it */
  push(item: T): T | undefined {
    const end = (this.#start + this.#length) % this.capacity
    if (this.#length < this.capacity) {
      this.#items[end] = item
      this.#length++
      return undefined
    }
    const oldest = this.#items[end]
    this.#items[end] = item
    this.#start = (this.#start + 1) % this.capacity
    this.dropped++
    return oldest
  }

  /** @param index 0 is the oldest; below 0 counts from the newest */
  at(index: number): T | undefined {
    const from = index < 0 ? this.#length + index : index
    return from < 0 || from >= this.#length ? undefined : this.#items[(this.#start + from) % this.capacity]
  }

  clear(): void {
    this.#items.fill(undefined)
    this.#start = 0
    this.#length = 0
    this.dropped = 0
  }

  *[Symbol.iterator](): Generator<T> {
    for (let i = 0; i < this.#length; i++) yield this.at(i)!
  }
}
