/**
 * What intake and shipping tell each other without a message: a row a run in shared memory, and a doorbell; and what intake counts.
 *
 * Invariants
 * - Each cell has one writer. `written`, `closed`, ENDED and `taken` are intake's, `held` is shipping's; main claims a row before anyone else
 *   knows it and frees it after shipping said that the run is over. The longest turn is intake's until main takes it.
 * - `written` is stored before the doorbell is rung, and the doorbell is atomic: whoever saw it ring sees the bytes.
 * - `written` counts bytes that are in the journal. ENDED is set after the last of them.
 */

/** As many runs at once: an outage in which thousands of short containers come and go fits. */
const ROWS = 65_536
const ROW_BYTES = 21

/** Before the rows: the doorbell, the longest turn, and `taken`. */
const HEAD_BYTES = 16

const FREE = 0
const OPEN = 1
const ENDED = 2

/** Memory for so many runs. */
export const slotMemory = (rows = ROWS): SharedArrayBuffer => new SharedArrayBuffer(HEAD_BYTES + rows * ROW_BYTES)

export class Slots {
  /** To be handed to the other threads, which make a Slots of their own of it. */
  readonly memory: SharedArrayBuffer
  #doorbell: Int32Array
  #longestTurn: Int32Array
  #taken: Float64Array
  #state: Int32Array
  #written: Float64Array
  #closed: Float64Array
  #held: Uint8Array
  #lowestFree = 0

  constructor(memory = slotMemory()) {
    const rows = (memory.byteLength - HEAD_BYTES) / ROW_BYTES
    this.memory = memory
    this.#doorbell = new Int32Array(memory, 0, 1)
    this.#longestTurn = new Int32Array(memory, 4, 1)
    this.#taken = new Float64Array(memory, 8, 1)
    this.#written = new Float64Array(memory, HEAD_BYTES, rows)
    this.#closed = new Float64Array(memory, HEAD_BYTES + rows * 8, rows)
    this.#state = new Int32Array(memory, HEAD_BYTES + rows * 16, rows)
    this.#held = new Uint8Array(memory, HEAD_BYTES + rows * 20, rows)
  }

  /** Takes a row for a run whose journal holds `written` bytes. @returns its index, or undefined when all are taken */
  claim(written: number): number | undefined {
    const slot = this.#state.indexOf(FREE, this.#lowestFree)
    if (slot === -1) return undefined
    this.#lowestFree = slot + 1
    this.#written[slot] = written
    this.#closed[slot] = written
    Atomics.store(this.#state, slot, OPEN)
    return slot
  }

  free(slot: number): void {
    Atomics.store(this.#state, slot, FREE)
    this.#lowestFree = Math.min(this.#lowestFree, slot)
  }

  written(slot: number): number {
    return this.#written[slot]!
  }

  addWritten(slot: number, bytes: number): void {
    this.#written[slot] = this.#written[slot]! + bytes
  }

  /** Bytes that were taken out of FIFOs, of all runs together. */
  get taken(): number {
    return this.#taken[0]!
  }

  addTaken(bytes: number): void {
    this.#taken[0] = this.#taken[0]! + bytes
  }

  /** A turn of intake's took so long, µs: nobody's FIFO was looked at meanwhile but those whose turn it was. */
  turned(us: number): void {
    if (us > Atomics.load(this.#longestTurn, 0)) Atomics.store(this.#longestTurn, 0, Math.min(us, 2 ** 31 - 1))
  }

  /** The longest turn since this was asked last, µs. */
  takeLongestTurn(): number {
    return Atomics.exchange(this.#longestTurn, 0, 0)
  }

  /** Offset before which no segment is written to any more. */
  closed(slot: number): number {
    return this.#closed[slot]!
  }

  /** What is written is in segments that are closed. */
  close(slot: number): void {
    this.#closed[slot] = this.#written[slot]!
  }

  ended(slot: number): boolean {
    return Atomics.load(this.#state, slot) === ENDED
  }

  end(slot: number): void {
    Atomics.store(this.#state, slot, ENDED)
  }

  /** Whether intake is to leave the run's bytes in its pipe for now. */
  held(slot: number): boolean {
    return Atomics.load(this.#held, slot) === 1
  }

  hold(slot: number, held: boolean): void {
    Atomics.store(this.#held, slot, held ? 1 : 0)
  }

  ring(): void {
    Atomics.add(this.#doorbell, 0, 1)
    Atomics.notify(this.#doorbell, 0)
  }

  /** How often the doorbell has rung: to be read before looking at the rows, and handed to `rung`. */
  get rings(): number {
    return Atomics.load(this.#doorbell, 0)
  }

  /** Resolves once the doorbell has rung more than `seen` times. */
  async rung(seen: number): Promise<void> {
    await Atomics.waitAsync(this.#doorbell, 0, seen).value
  }
}
