/**
 * Claims: commits to Kafka that say, before anything is written, whose the records up to an offset are.
 *
 * A claim is the commit of `last + 1` with metadata {owner, tenure, from}: `owner` is the root's UUID, a tenure is one
 * uninterrupted possession of the partition, which began at `from`.
 *
 * Sequence that makes it needed: a consumer writes a batch, and is fenced before it commits. Its successor starts at
 * the old commit and writes the same lines into its own root: every one stands twice. With the claim first, the successor
 * starts behind the batch, and the batch is finished by the root that claimed it.
 *
 * What follows decides, and does nothing: the simulation in test/unit runs it through thousands of kills and moves.
 */
import { crc32 } from 'node:zlib'
import type { KafkaMessage } from 'kafkajs'
import { z } from 'zod'
import { InflateError } from '../wire/deferred-records.ts'
import type { Extent } from '../wire/group.ts'
import type { PartitionState } from './checkpoint.ts'

const metadataSchema = z.object({ owner: z.string(), tenure: z.int().min(0), from: z.int().min(0) })

/** What stands beside a committed offset. */
export type ClaimMetadata = z.infer<typeof metadataSchema>

/** A partition's commit as Kafka holds it: −1 where there is none. */
export type Commit = { offset: number; metadata: ClaimMetadata | undefined }

/** A partition as we hold it: where our tenure began, and the next record to write. */
export type Tenure = { tenure: number; from: number; next: number }

/** A tenure that is over: the records from offset `from` up to and without `to` are its owner's, written or not. */
export type ClosedTenure = {
  partition: number
  tenure: number
  owner: string
  from: number
  to: number
  /** Of the record before `to`, where it was still there. */
  hash?: number | undefined
}

export type Opening = Tenure & {
  /** Up to where Kafka says already that it is ours. */
  claimed: number
  /** Records that expired before they were read: how many offsets. */
  expired: number
  /** The log has lost its beginning, and nobody is known to have read that. */
  headless: boolean
  /** The log is not the one that was read: the topic was recreated, and is read from its beginning. */
  recreated: boolean
  /** The tenure that ours follows, where it was another root's. Has to be stored before our first claim, which takes the place of its last. */
  closes: Omit<ClosedTenure, 'partition'> | undefined
}

/**
 * Tells a record from another one at the same offset, of a topic that was deleted and made anew: of its value, and the time that Kafka
 * gave it. @returns undefined for one that can't be inflated
 */
export function recordHash(record: Pick<KafkaMessage, 'value' | 'timestamp'>): number | undefined {
  try {
    return crc32(record.value ?? '', crc32(record.timestamp))
  } catch (error) {
    if (error instanceof InflateError) return undefined
    throw error
  }
}

export const readMetadata = (text: string | null | undefined): ClaimMetadata | undefined => {
  try {
    return metadataSchema.parse(JSON.parse(text ?? ''))
  } catch {
    return undefined
  }
}

export const writeMetadata = (owner: string, { tenure, from }: Tenure): string =>
  JSON.stringify({ owner, tenure, from })

/**
 * Where a partition that was just assigned is read on from, and in which tenure.
 * @param owner our root's UUID
 * @param position how far we have written it
 * @param intact whether the record before `position.next` is the one that we wrote, as far as that can be told
 */
export function openTenure(
  owner: string,
  commit: Commit,
  position: PartitionState | undefined,
  log: Extent,
  intact: boolean,
): Opening {
  const { offset, metadata } = commit
  const ours = metadata?.owner === owner
  const claim = tenureOf(owner, commit, position)
  const { tenure } = claim
  const remembered = offset < 0 && intact && position?.hash !== undefined && position.next > log.low
  const { from, next } = remembered ? { from: position.next, next: position.next } : claim
  const begin = (at: number) => ({ tenure: ours ? tenure + 1 : tenure, from: at, next: at, claimed: at })
  const told = { expired: 0, headless: false, recreated: false, closes: undefined }
  if (next > log.high || (ours && !intact)) return { ...begin(log.low), ...told, recreated: true }
  const closes = metadata && !ours ? { ...metadata, to: offset } : undefined
  if (next >= log.low) return { tenure, from, next, claimed: ours ? offset : next, ...told, closes }
  // Without a commit our own position may tell what was read, and where there is none the beginning is where the log begins.
  const read = offset >= 0 ? next : intact ? position?.next : undefined
  return {
    ...begin(log.low),
    ...told,
    headless: read === undefined,
    expired: Math.max(0, log.low - (read ?? log.low)),
    closes,
  }
}

function tenureOf(owner: string, { offset, metadata }: Commit, position: PartitionState | undefined): Tenure {
  if (metadata?.owner === owner) {
    // Ours: what is claimed and not yet in the checkpoint is written again, to the same places.
    const next = position?.tenure === metadata.tenure ? position.next : metadata.from
    return { tenure: metadata.tenure, from: metadata.from, next }
  }
  // No commit: Kafka forgot that of a group that was away for long, or the topic was recreated, and then our offsets mean
  // other records. Where no hash tells which, reading from the beginning is right for both: the ledger drops what is written of
  // all runs that it remembers.
  const next = Math.max(offset, 0)
  const tenure = Math.max(metadata?.tenure ?? 0, position?.tenure ?? 0) + 1
  return { tenure, from: next, next }
}

/** Records that we claimed and have not written: from offset `from` up to and without `to`. Empty where all are. */
export type Unfinished = Omit<ClosedTenure, 'owner'>

/**
 * What of a partition we claimed and have not written, oldest first, in tenures that are over, or whose partition another member has
 * now. It is ours to write, for nobody else does; before the partition is opened again, for the ledger goes on from there.
 * @param closed tenures of the partition that are over, as their successors stored them
 * @param assigned whether the partition is ours now: then our last tenure goes on, and is not over
 */
export function unfinished(
  owner: string,
  partition: number,
  { offset, metadata }: Commit,
  closed: readonly ClosedTenure[],
  position: PartitionState | undefined,
  assigned: boolean,
): Unfinished[] {
  const over = new Map<number, Pick<ClosedTenure, 'from' | 'to' | 'hash'>>()
  for (const each of closed) if (each.owner === owner && each.partition === partition) over.set(each.tenure, each)
  // Who stored that it was over may have lost the partition again before he claimed anything: then it went on.
  if (!assigned && metadata?.owner === owner && offset > (over.get(metadata.tenure)?.to ?? -1)) {
    over.set(metadata.tenure, { from: metadata.from, to: offset })
  }
  return [...over]
    .sort(([a], [b]) => a - b)
    .map(([tenure, { from, to, hash }]) => {
      // A later tenure is opened only after what was left of the earlier ones is written.
      const next = !position || position.tenure < tenure ? from : position.tenure === tenure ? position.next : to
      return { partition, tenure, from: Math.min(next, to), to, hash }
    })
}
