/**
 * Retention: the journals of runs that are over and shipped, kept so that `docker logs` has something to read.
 *
 * Invariants
 * - Only what Kafka has acknowledged is in here, so whatever goes is no line lost.
 * - Oldest first: within a container by segment, and runs beyond `runsMax` as a whole.
 */
import { JournalReader, removeRun, runFolder } from './journal.ts'
import type { RunRecord } from './run.ts'

type Kept = { record: RunRecord; reader: JournalReader; end: number }

export type RetentionOptions = {
  journal: string
  /** As many runs are kept at most. */
  runsMax: number
  /** A run is gone. */
  removed(record: RunRecord): void
}

export class Retention {
  #options: RetentionOptions
  /** The oldest first. */
  #kept: Kept[] = []

  constructor(options: RetentionOptions) {
    this.#options = options
  }

  /** Keeps a run. Others go where there are more than `runsMax` by now, and the disk lets them. */
  keep(record: RunRecord, end: number): void {
    this.#kept.push({ record, reader: new JournalReader(runFolder(this.#options.journal, record.run), end), end })
    while (this.#kept.length > this.#options.runsMax && this.#kept.some((kept) => this.#remove(kept)));
  }

  /** Bytes that are kept, of one container where it is given. */
  bytes(container?: string): number {
    let bytes = 0
    for (const { record, reader, end } of this.#kept) {
      if (container === undefined || record.container.id === container) bytes += end - reader.start
    }
    return bytes
  }

  /** Removes the oldest segment that the disk lets go, of one container where it is given. @returns whether there was one */
  giveOldest(container?: string): boolean {
    return this.#kept.some((kept) => {
      if (container !== undefined && kept.record.container.id !== container) return false
      return kept.reader.bases().length > 1 ? kept.reader.dropFirst() : this.#remove(kept)
    })
  }

  #remove(kept: Kept): boolean {
    try {
      removeRun(this.#options.journal, kept.record.run)
    } catch {
      // A disk that only reads.
      return false
    }
    this.#kept.splice(this.#kept.indexOf(kept), 1)
    kept.reader.close()
    this.#options.removed(kept.record)
    return true
  }
}
