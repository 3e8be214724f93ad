/**
 * Room: what keeps the journals within JOURNAL_MAX, and containers within what is kept for their `docker logs`.
 *
 * Invariants
 * - What is shipped goes first. Of what is not, the run that holds the most gives its oldest segment, so that a noisy container
 *   never costs a quiet one its lines.
 * - A run with `on-full=block` is not read while the journals are nearly full, for `block-max` in a row; then it gives like
 *   any other, until there has been room again.
 */
import type { ChunkBuilder } from './chunks.ts'
import { giveReserve, takeReserve } from './journal.ts'
import type { Retention } from './retention.ts'
import type { RunRecord } from './run.ts'
import type { Given, Shipment } from './shipment.ts'
import type { Slots } from './slots.ts'

/** The journals' size is looked at this often: a container that writes flat out adds some 20 MB meanwhile. */
const CHECK_MS = 250
/** A disk that is full gets this many segments back at a time. */
const ROOM_SEGMENTS = 4
/** Blocking begins this far below the maximum: a quarter of it, but no more than this. What is written between two looks has to fit. */
const NEARLY_BYTES = 128 * 1024 * 1024

export type RoomOptions = {
  /** The folder of the journals, and how many bytes they may take together. */
  journal: string
  journalMax: number
  shipments: Iterable<Shipment>
  retention: Retention
  slots: Slots
  /** What lines go through that are given up. */
  sink: ChunkBuilder
  /** Asks for the segment that is written to be closed: soon after that it can go. */
  close(shipment: Shipment): void
}

export class Room {
  #options: RoomOptions
  #wanted = false
  #check: NodeJS.Timeout | undefined
  /** At the last look segments that are shipped were asked to be closed, and nothing else was given. */
  #askedBefore = false
  /** Runs that are not read, each until its timer ends. */
  #blocked = new Map<Shipment, NodeJS.Timeout>()
  /** Runs that were blocked for as long as they may be. */
  #spent = new Set<Shipment>()

  constructor(options: RoomOptions) {
    this.#options = options
  }

  /** Looks after the journals until `stop`. */
  start(): void {
    takeReserve(this.#options.journal)
    // Of its own accord, because shipping waits while Kafka is away, which is when journals grow.
    this.#check = setInterval(() => {
      if (this.#wanted) this.#give()
      this.#keepWithinMax()
      this.#block()
    }, CHECK_MS)
  }

  stop(): void {
    clearInterval(this.#check)
    for (const shipment of this.#blocked.keys()) this.#release(shipment)
  }

  /** The run is shipped to its end. */
  remove(shipment: Shipment): void {
    this.#release(shipment)
    this.#spent.delete(shipment)
  }

  /** Whether a disk refuses what intake journals: room is made for it while this lasts. */
  make(wanted: boolean): void {
    this.#wanted = wanted
    if (wanted) this.#give()
    else takeReserve(this.#options.journal)
  }

  /** Drops what is shipped beyond the budget of the run's container: runs that are over first, then its own. */
  trim(shipment: Shipment): void {
    const { record, reader, acked } = shipment
    this.trimKept(record)
    if (!reader.droppable(acked.offset) || this.#shipped(record) <= record.options.cacheBytes) return
    if (!shipment.save(acked, true)) return
    while (reader.droppable(acked.offset) && this.#shipped(record) > record.options.cacheBytes)
      if (!reader.dropFirst()) return
  }

  /** Drops what is kept of runs that are over beyond the budget of the container. */
  trimKept(record: RunRecord): void {
    const { retention } = this.#options
    while (this.#shipped(record) > record.options.cacheBytes && retention.giveOldest(record.container.id));
  }

  /** Bytes of the container that are shipped and still there. */
  #shipped({ container }: RunRecord): number {
    let bytes = this.#options.retention.bytes(container.id)
    for (const { record, acked, reader } of this.#options.shipments)
      if (record.container.id === container.id) bytes += acked.offset - reader.start
    return bytes
  }

  get #held(): number {
    let bytes = this.#options.retention.bytes()
    for (const { held } of this.#options.shipments) bytes += held
    return bytes
  }

  #keepWithinMax(): void {
    const { journalMax, retention, sink, close } = this.#options
    if (this.#held <= journalMax) {
      this.#askedBefore = false
      return
    }
    while (this.#held > journalMax && retention.giveOldest());
    let asked = false
    const giveShipped = (shipment: Shipment): Given => {
      const given = shipment.giveShipped()
      if (given !== 'open') return given
      asked = true
      close(shipment)
      return 'nothing'
    }
    while (this.#held > journalMax) if (!this.#giveLargest(giveShipped)) break
    // What is shipped may be gone at the next look. Not later: runs that flow on always have some, and others would never give.
    this.#askedBefore = asked && !this.#askedBefore
    if (this.#askedBefore) return
    while (this.#held > journalMax) if (!this.#giveLargest((shipment) => shipment.giveSegment(sink))) break
  }

  /**
   * Has the run give that holds the most. Where its segment is written to, nobody gives in its place before that is closed: a
   * quieter one has no part in it.
   */
  #giveLargest(give: (shipment: Shipment) => Given): boolean {
    const nothing = new Set<Shipment>()
    for (;;) {
      let largest: Shipment | undefined
      for (const shipment of this.#options.shipments)
        if (!nothing.has(shipment) && shipment.held > (largest?.held ?? 0)) largest = shipment
      if (!largest) return false
      const given = give(largest)
      if (given === 'open') this.#options.close(largest)
      if (given !== 'nothing') return given === 'given'
      nothing.add(largest)
    }
  }

  #block(): void {
    const { journalMax, shipments } = this.#options
    let unshipped = 0
    let runs = 0
    for (const shipment of shipments) {
      unshipped += shipment.unshipped
      runs++
    }
    if (unshipped < journalMax - Math.min(journalMax / 4, NEARLY_BYTES)) {
      for (const shipment of this.#blocked.keys()) this.#release(shipment)
      this.#spent.clear()
      return
    }
    for (const shipment of shipments) {
      const { onFull, blockMs } = shipment.record.options
      if (onFull !== 'block' || this.#blocked.has(shipment) || this.#spent.has(shipment)) continue
      // It is those that hold more than the others that have to wait.
      if (shipment.unshipped < unshipped / runs) continue
      this.#options.slots.hold(shipment.slot, true)
      const spent = () => {
        this.#release(shipment)
        this.#spent.add(shipment)
      }
      this.#blocked.set(shipment, setTimeout(spent, blockMs))
    }
  }

  #release(shipment: Shipment): void {
    clearTimeout(this.#blocked.get(shipment))
    if (this.#blocked.delete(shipment)) this.#options.slots.hold(shipment.slot, false)
  }

  #give(): void {
    const { journal, retention, shipments, close } = this.#options
    for (let given = 0; given < ROOM_SEGMENTS; given++) {
      if (retention.giveOldest()) continue
      giveReserve(journal)
      const open: Shipment[] = []
      const gave = [...shipments].some((shipment) => {
        const given = shipment.giveShipped()
        if (given === 'open') open.push(shipment)
        return given === 'given'
      })
      takeReserve(journal)
      if (gave) continue
      for (const shipment of open) close(shipment)
      return
    }
  }
}
