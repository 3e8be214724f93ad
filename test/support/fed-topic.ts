/**
 * A topic that the test feeds by hand, in the drivers' place: numbered lines of many runs, and what roots hold of them in the end.
 */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { partitionOf, recordKey } from '../../wire/record.ts'
import { chunkOf } from './chunk.ts'
import type { Kafka } from './kafka.ts'

const SERVICE = 'fed'
const HOST = 'host-1'

/** A run of its own module, whose lines say their numbers. */
type Run = { id: string; module: string; next: number }

export class FedTopic {
  readonly name: string
  #kafka: Pick<Kafka, 'produce'>
  #partitions: number
  #runs: Run[]

  constructor(kafka: Pick<Kafka, 'produce'>, name: string, partitions: number, runs: number) {
    this.#kafka = kafka
    this.name = name
    this.#partitions = partitions
    this.#runs = Array.from({ length: runs }, (_, i) => ({
      id: randomBytes(16).toString('hex'),
      module: `m${i}`,
      next: 1,
    }))
  }

  /** Lines that were fed so far. */
  get lines(): number {
    return this.#runs.reduce((sum, { next }) => sum + next - 1, 0)
  }

  /** Stores the next `count` lines of each run, each a chunk. @param at when they say that they were printed, ms since 1970 */
  async feed(count: number, at = Date.now()): Promise<void> {
    const time = BigInt(at) * 1_000_000n
    await this.#kafka.produce(
      this.name,
      this.#runs.map((run) => {
        const first = run.next
        run.next += count
        const key = recordKey(SERVICE, run.module)
        const chunk = chunkOf({
          ...{ run: run.id, service: SERVICE, module: run.module, host: HOST, attrs: {}, first: [first, 1] },
          container: { id: run.id, name: run.module, image: 'image' },
          lines: Array.from({ length: count }, (_, i) => ({
            ...{ source: 'stdout' as const, number: first + i, time: String(time) },
            text: `${run.module} ${first + i}`,
          })),
        })
        return { partition: partitionOf(key, this.#partitions), key, value: new ChunkEncoder().encode(chunk).slice() }
      }),
    )
  }

  /** How often each line stands in these roots, over all of them: what is not there once. */
  wrong(roots: readonly string[]): { lost: string[]; doubled: string[] } {
    const counts = new Map<string, number>()
    for (const root of roots) {
      for (const file of logFiles(root)) {
        for (const line of readFileSync(file, 'utf8').split('\n')) {
          if (line === '') continue
          const said = line.split(' ').slice(2).join(' ')
          counts.set(said, (counts.get(said) ?? 0) + 1)
        }
      }
    }
    const lost: string[] = []
    const doubled: string[] = []
    for (const { module, next } of this.#runs) {
      for (let n = 1; n < next; n++) {
        const count = counts.get(`${module} ${n}`) ?? 0
        if (count === 0) lost.push(`${module} ${n}`)
        if (count > 1) doubled.push(`${module} ${n}`)
      }
    }
    return { lost, doubled }
  }
}

/** Bytes of line files below a root. */
function logFiles(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.log') && !entry.parentPath.includes('.tallyman'))
    .map((entry) => join(entry.parentPath, entry.name))
}
