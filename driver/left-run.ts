/**
 * A left run: what an earlier driver left of a run in its folder, and where it goes on.
 *
 * Invariants
 * - Numbers never begin again within a run's id: readers would take what is new for copies of what they have. Where the number
 *   of the next line is not known the run goes on under another id.
 * - A checkpoint stands for all that is before it: Kafka has that, or it was given up and counted. So it says where the run goes
 *   on, also where no segment is left (all were given up, and nothing was journalled since), and where the last bytes of
 *   the journal went with the host's power.
 */
import { readCheckpoint, type ShippingCheckpoint, startOfRun } from './checkpoint.ts'
import { journalEnd, listSegments, runFolder } from './journal.ts'
import { type RunRecord, readRun, renameRun } from './run.ts'

export type LeftRun = {
  record: RunRecord
  checkpoint: ShippingCheckpoint
  /** Offset in the run's stream that what comes next is journalled at. */
  end: number
  /**
   * What is in doubt, in words. `renamed`: the run had another id before, because its numbers are not known. `anew`: all of its
   * journal is sent again.
   */
  doubt?: { wrong: string; renamed?: string; anew?: true } | undefined
}

/** @throws Error saying what in the run's folder is not understood */
export function readLeftRun(journal: string, id: string): LeftRun {
  const record = readRun(journal, id)
  const folder = runFolder(journal, id)
  const first = listSegments(folder)[0]?.base
  const end = journalEnd(folder)
  let checkpoint: ShippingCheckpoint | undefined
  let wrong = 'the shipping checkpoint is missing'
  let missing = false
  try {
    checkpoint = readCheckpoint(folder)
    missing = checkpoint === undefined
  } catch (error) {
    wrong = `the shipping checkpoint can't be read: ${(error as Error).message}`
  }
  if (checkpoint) {
    const { offset } = checkpoint
    if (offset >= (first ?? end)) {
      const lost = first !== undefined && offset > end
      const doubt = lost
        ? { wrong: `the journal ends at ${end}, and its shipping checkpoint stands at ${offset}` }
        : undefined
      return { record, checkpoint, end: Math.max(end, offset), doubt }
    }
    wrong = `the shipping checkpoint stands at ${offset}, before what is left of the journal`
  } else if (first === 0 || (missing && end === 0)) {
    // Nothing of the journal was removed yet: numbering from its beginning gives the same numbers again.
    return { record, checkpoint: startOfRun(), end, doubt: missing ? undefined : { wrong, anew: true } }
  }
  const renamed = renameRun(journal, record)
  return { record: renamed, checkpoint: { ...startOfRun(), offset: first ?? end }, end, doubt: { wrong, renamed: id } }
}
