/**
 * A batch: what one send carries, of any number of runs, to one topic.
 *
 * Invariants
 * - Encoded records lie in one arena, which is used again once Kafka has acknowledged them.
 * - To one partition go at most PARTITION_BYTES: kafkajs makes one record batch of them, and brokers refuse 1 MB.
 */
import type { LostRange } from '../wire/chunk.ts'
import type { OutgoingRecord } from '../wire/producer.ts'
import type { ShippingCheckpoint } from './checkpoint.ts'
import type { Shipment } from './shipment.ts'

/** Encoded records that one send carries at most. */
export const BATCH_BYTES = 2 * 1024 * 1024
const PARTITION_BYTES = 768 * 1024

export class Batch {
  readonly topic: string
  readonly arena: Buffer<ArrayBuffer>
  readonly builtAt = performance.now()
  readonly records: OutgoingRecord[] = []
  /** State of each run behind this batch, and whether the batch holds its end. */
  readonly states = new Map<Shipment, { state: ShippingCheckpoint; ended: boolean }>()
  /** Lines of each run that are given up on the way to that state. */
  readonly lost = new Map<Shipment, LostRange[]>()
  /** Of each chunk the times of its first and its last line, ms since 1970. */
  readonly times: number[] = []
  bytes = 0
  /** What goes to each partition. */
  readonly partitions = new Map<number, { lines: number; bytes: number }>()

  constructor(topic: string, arena: Buffer<ArrayBuffer>) {
    this.topic = topic
    this.arena = arena
  }

  /** Bytes that may still be added, for a partition where one is given. */
  room(partition?: number): number {
    const room = this.arena.length - this.bytes
    if (partition === undefined) return room
    return Math.min(room, PARTITION_BYTES - (this.partitions.get(partition)?.bytes ?? 0))
  }

  lose(run: Shipment, range: LostRange): void {
    run.lose(run.cursor, range)
    this.lost.set(run, [...(this.lost.get(run) ?? []), range])
  }

  add(partition: number, key: string, headers: Record<string, string>, value: Uint8Array): void {
    let copy: Buffer<ArrayBuffer>
    if (value.length <= this.arena.length - this.bytes) {
      copy = this.arena.subarray(this.bytes, this.bytes + value.length)
      copy.set(value)
    }
    // Larger than was reckoned with: that is the broker's to refuse.
    else copy = Buffer.from(value)
    this.bytes += value.length
    this.#of(partition).bytes += value.length
    this.records.push({ partition, key, headers, value: copy })
  }

  /** Counts a chunk, with the times of its first and its last line. */
  count(partition: number, lines: number, first: number, last: number): void {
    this.#of(partition).lines += lines
    this.times.push(first, last)
  }

  #of(partition: number): { lines: number; bytes: number } {
    let of = this.partitions.get(partition)
    if (!of) {
      of = { lines: 0, bytes: 0 }
      this.partitions.set(partition, of)
    }
    return of
  }
}
