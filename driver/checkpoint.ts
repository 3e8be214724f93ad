/**
 * A run's shipping checkpoint: how far its journal has been acknowledged by Kafka, and all that is needed to number the
 * rest as it would have been numbered.
 *
 * Invariants
 * - It moves only after Kafka's acknowledgement (acks=all), so what lies behind it is never needed again.
 * - It may lag: what is sent a second time carries the same numbers and is dropped by the reader.
 * - The partition is in it before the first record is sent, so that a restart never moves a run to another one.
 */
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { decode, encode } from '@msgpack/msgpack'
import * as z from 'zod'
import { type LostRange, type SourcePair, STDERR, STDOUT } from '../wire/chunk.ts'
import { replaceFile } from '../wire/durable.ts'
import type { LineState } from './lines.ts'

const VERSION = 1

export type ShippingCheckpoint = {
  /** Offset in the run's stream, at the beginning of a frame. */
  offset: number
  /** The run's partition, once it is chosen. */
  partition: number | undefined
  lines: LineState
  /** Lines that were given up and are not yet told: in the `lost` of the next chunk. */
  lost: LostRange[]
  /** Bytes of the journal that were no frame, so far. */
  skipped: number
  /** The run is over, and its end is acknowledged: the journal is kept for readers alone. */
  ended: boolean
  /** Where the first frame that begins in a segment begins, by the segment's base: readers start there. */
  starts: SegmentStart[]
  /** Offset of the last gap whose lines are numbered and lost, −1 where there was none. */
  gap: number
  /** What was passed over since the last whole frame, where its lines are not numbered yet. */
  damage?: Damage | undefined
}

/** A stretch that is no frame: from which offset on, and lines by source of which only the beginning is there. */
export type Damage = { from: number; torn: SourcePair }

export type SegmentStart = [base: number, start: number]

const pending = z.union([
  z.null(),
  z.object({
    id: z.instanceof(Uint8Array),
    timeHigh: z.number(),
    timeLow: z.number(),
    bytes: z.instanceof(Uint8Array),
  }),
])
const schema = z.object({
  v: z.literal(VERSION),
  offset: z.int().min(0),
  partition: z.union([z.null(), z.int().min(0)]),
  next: z.tuple([z.int().min(1), z.int().min(1)]),
  lost: z.array(
    z.object({
      source: z.union([z.literal(STDOUT), z.literal(STDERR)]),
      from: z.int().min(1),
      count: z.int().min(1),
      reason: z.string(),
    }),
  ),
  pending: z.tuple([pending, pending]),
  skipped: z.int().min(0),
  ended: z.boolean(),
  starts: z.array(z.tuple([z.int().min(0), z.int().min(0)])),
  gap: z.int().min(-1),
  damage: z.object({ from: z.int().min(0), torn: z.tuple([z.int().min(0), z.int().min(0)]) }).optional(),
})

const path = (folder: string): string => join(folder, 'checkpoint')

/** Where a run begins. */
export const startOfRun = (): ShippingCheckpoint => ({
  offset: 0,
  partition: undefined,
  lines: { next: [1, 1], pending: [undefined, undefined] },
  lost: [],
  skipped: 0,
  ended: false,
  starts: [[0, 0]],
  gap: -1,
})

/** @param durable also survive a loss of power: needed before a segment behind it is removed */
export function writeCheckpoint(folder: string, checkpoint: ShippingCheckpoint, durable: boolean): void {
  const { offset, partition, lines, lost, skipped, ended, starts, gap, damage } = checkpoint
  const { next, pending } = lines
  const row = {
    v: VERSION,
    offset,
    partition: partition ?? null,
    next,
    pending: pending.map((p) => p ?? null),
    lost,
    skipped,
    ended,
    starts,
    gap,
    ...(damage && { damage }),
  }
  replaceFile(path(folder), encode(row), durable)
}

/**
 * @returns the checkpoint, or undefined when there is none
 * @throws Error saying what is wrong with the one that is there
 */
export function readCheckpoint(folder: string): ShippingCheckpoint | undefined {
  let bytes: Uint8Array
  try {
    bytes = readFileSync(path(folder))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  const row = schema.parse(decode(bytes))
  return {
    offset: row.offset,
    partition: row.partition ?? undefined,
    lines: { next: row.next, pending: [row.pending[0] ?? undefined, row.pending[1] ?? undefined] },
    lost: row.lost,
    skipped: row.skipped,
    ended: row.ended,
    starts: row.starts,
    gap: row.gap,
    damage: row.damage,
  }
}

export const dropCheckpoint = (folder: string): void => rmSync(path(folder), { force: true })
