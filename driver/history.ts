/**
 * History: the runs of each container whose journals are still there, oldest first. `docker logs` reads them one after the
 * other, as Docker's own drivers go on in the same file when a container is started again.
 */
import type { RunRecord } from './run.ts'

/** A run that can be read. */
export type Readable = {
  record: RunRecord
  /** The run's row in the slots while its bytes are still coming or being shipped; undefined once it is over and shipped. */
  slot: number | undefined
  /** dockerd has asked us to stop: what the pipe still holds is all that will come. */
  stopping: boolean
  /** Resolves once the stream is over and all of it is in the journal. */
  over: PromiseWithResolvers<void>
}

export class History {
  #containers = new Map<string, Readable[]>()

  add(record: RunRecord, slot: number | undefined): Readable {
    const run: Readable = { record, slot, stopping: false, over: Promise.withResolvers() }
    if (slot === undefined) run.over.resolve()
    const runs = this.#containers.get(record.container.id)
    if (!runs) this.#containers.set(record.container.id, [run])
    else {
      const at = runs.findLastIndex((other) => other.record.started <= record.started)
      runs.splice(at + 1, 0, run)
    }
    return run
  }

  remove({ run, container }: RunRecord): void {
    const left = this.runs(container.id).filter((other) => other.record.run !== run)
    if (left.length > 0) this.#containers.set(container.id, left)
    else this.#containers.delete(container.id)
  }

  runs(container: string): readonly Readable[] {
    return this.#containers.get(container) ?? []
  }
}
