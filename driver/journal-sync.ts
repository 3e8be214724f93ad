/**
 * Journal sync: makes durable what Kafka has not taken for a while, so that a host that loses its power in an outage of Kafka
 * loses an interval of lines and not all that waited.
 *
 * Invariant: it reads and syncs, with the thread pool's threads, and nothing waits for it. What Kafka takes within the interval
 * is never synced: Kafka has it.
 */
import { syncPath } from '../wire/durable.ts'
import { segmentPath } from './journal.ts'
import type { Shipment } from './shipment.ts'

/** What it needs to know of a shipment. */
export type Waiting = Pick<Shipment, 'folder' | 'reader' | 'written' | 'acked' | 'behindSince'>

export class JournalSync {
  /** Up to where each run's journal is durable. */
  #synced = new WeakMap<Waiting, number>()
  #timer: NodeJS.Timeout | undefined
  #running = false
  #syncPath: (path: string) => Promise<void>

  /** @param syncPath makes a file or a folder durable */
  constructor(syncPath = sync) {
    this.#syncPath = syncPath
  }

  /** @param failed told of a disk that does not sync; it is tried again with the next interval */
  start(intervalMs: number, shipments: Iterable<Waiting>, failed: (error: Error) => void): void {
    this.#timer = setInterval(() => {
      if (this.#running) return
      this.#running = true
      this.#sync(shipments, performance.now() - intervalMs)
        .catch(failed)
        .finally(() => {
          this.#running = false
        })
    }, intervalMs)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  async #sync(shipments: Iterable<Waiting>, before: number): Promise<void> {
    for (const shipment of [...shipments]) {
      const { written } = shipment
      const from = Math.max(this.#synced.get(shipment) ?? 0, shipment.acked.offset)
      if (from >= written || shipment.behindSince > before) continue
      for (const path of pathsBehind(shipment, from)) await this.#syncPath(path)
      this.#synced.set(shipment, written)
    }
  }
}

/** The segments that hold what is behind `from`, and the folder that says that they are there. */
function pathsBehind({ folder, reader }: Waiting, from: number): string[] {
  const bases = reader.bases()
  const touched = bases.filter((_, i) => (bases[i + 1] ?? Number.POSITIVE_INFINITY) > from)
  return [...touched.map((base) => segmentPath(folder, base)), folder]
}

async function sync(path: string): Promise<void> {
  try {
    await syncPath(path)
  } catch (error) {
    // Given up, or shipped and removed, since the list was made.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}
