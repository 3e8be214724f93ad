/**
 * Claims: commits to Kafka that say, before anything is written, whose the records up to an offset are.
 *
 * A claim is the commit of `last + 1` with metadata {owner, tenure, from}: `owner` is the root's UUID, a tenure is one
 * uninterrupted possession of the partition, which began at `from`.
 *
 * Sequence that makes it needed: a consumer writes a batch, and is fenced before it commits. Its successor starts at
 * the old commit and writes the same lines into its own root: every one stands twice. With the claim first, the successor
 * starts behind the batch, and the batch is finished by the root that claimed it.
 */
import { z } from 'zod'
import type { PartitionState } from './checkpoint.ts'

const metadataSchema = z.object({ owner: z.string(), tenure: z.int().min(0), from: z.int().min(0) })

/** What stands beside a committed offset. */
export type ClaimMetadata = z.infer<typeof metadataSchema>

/** A partition's commit as Kafka holds it: −1 where there is none. */
export type Commit = { offset: number; metadata: ClaimMetadata | undefined }

/** A partition as we hold it: where our tenure began, and the next record to write. */
export type Tenure = { tenure: number; from: number; next: number }

/** What a partition's log holds: its first offset, and the one that the next record will get. */
export type Extent = { low: number; high: number }

export type Opening = Tenure & {
  /** Records that expired before they were read: how many offsets. */
  expired: number
  /** The log is shorter than what was read of it: the topic was recreated, and is read from its beginning. */
  recreated: boolean
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
 * @param checkpoint what our checkpoint says of the partition
 */
export function openTenure(
  owner: string,
  commit: Commit,
  checkpoint: PartitionState | undefined,
  log: Extent,
): Opening {
  const claim = tenureOf(owner, commit, checkpoint)
  if (claim.next > log.high) {
    return { tenure: claim.tenure + 1, from: log.low, next: log.low, expired: 0, recreated: true }
  }
  if (claim.next < log.low) {
    // Without a commit nothing tells what was read: then the beginning is where the log begins.
    if (commit.offset < 0) return { ...claim, from: log.low, next: log.low, expired: 0, recreated: false }
    return { tenure: claim.tenure + 1, from: log.low, next: log.low, expired: log.low - claim.next, recreated: false }
  }
  return { ...claim, expired: 0, recreated: false }
}

function tenureOf(owner: string, { offset, metadata }: Commit, checkpoint: PartitionState | undefined): Tenure {
  if (metadata?.owner === owner) {
    // Ours: what is claimed and not yet in the checkpoint is written again, to the same places.
    const next = checkpoint?.tenure === metadata.tenure ? checkpoint.next : metadata.from
    return { tenure: metadata.tenure, from: metadata.from, next }
  }
  // No commit: Kafka forgot that of a group that was away for long, or the topic was recreated, and then our offsets mean
  // other records. Reading from the beginning is right for both: the ledger drops what is written.
  const next = Math.max(offset, 0)
  const tenure = Math.max(metadata?.tenure ?? 0, checkpoint?.tenure ?? 0) + 1
  return { tenure, from: next, next }
}
