/** A root without Kafka whose index is mended, that can be killed at any step; and what its index means. */
import { join } from 'node:path'
import pino from 'pino'
import type { ReindexBody, ReindexEvent, ReindexedDay } from '../../consumer/api-schema.ts'
import { disk } from '../../consumer/disk.ts'
import { FileReader } from '../../consumer/file-reader.ts'
import { type Numbers, type Row, readIndex } from '../../consumer/index-log.ts'
import type { LineFormat } from '../../consumer/layout.ts'
import { Reindex } from '../../consumer/reindex.ts'
import { RowCache } from '../../consumer/row-cache.ts'
import { Steps } from './housekeeping.ts'
import { Life, type Stored } from './landing.ts'

export type MendingOptions = {
  /** What Kafka holds; nothing where it is not given. */
  topic?: readonly Stored[]
  format?: LineFormat
  steps?: Steps
  /** In which daemon; one of its own, that ends with it, where it is not given. */
  life?: Life
  /** Is waited for, again and again, while it is under way. */
  meanwhile?(reindex: Reindex): Promise<void>
}

const settings = (format: LineFormat) => ({ LINE_FORMAT: format, TZ_FILES: 'UTC', KEEP_DAYS: 7 })

/** Mends the index of a root, in a life of its own. @returns what became of each day */
export async function mend(
  root: string,
  options: MendingOptions = {},
  query: Partial<ReindexBody> = {},
): Promise<ReindexedDay[]> {
  const { topic = [], format = 'text', steps = new Steps() } = options
  const life = options.life ?? new Life(root, 4, format)
  const { checkpoint, index, ledger } = life
  const state = join(root, '.tallyman')
  const { files, reindexed } = checkpoint.state
  using text = new FileReader({ root, files })
  const { runs } = ledger.state
  const rows = new RowCache({ state, index, files, reindexed, runs, format, maxBytes: 2 ** 20 })
  try {
    const reindex = new Reindex({
      ...{ state, disk: steps.of(disk), index, text, runs, settings: settings(format), retryMs: 1 },
      checkpoint: {
        state: checkpoint.state,
        append: (changes) => {
          steps.take('append')
          checkpoint.append(changes)
        },
      },
      namesOf: (row) => rows.namesOf(row),
      kafka: kafkaOf(topic),
      checkpointed: async (work) => {
        life.save()
        return work()
      },
      failed: () => {},
      log: pino({ level: 'silent' }),
    })
    const events: ReindexEvent[] = []
    for await (const event of reindex.run({ kafka: topic.length > 0, ...query }, new AbortController().signal)) {
      events.push(event)
      if (event.type !== 'end') await options.meanwhile?.(reindex)
    }
    const end = events.at(-1)
    if (end?.type !== 'end' || end.partial.length > 0) throw new Error(JSON.stringify(end))
    return end.days
  } finally {
    if (!options.life) life.end()
  }
}

function kafkaOf(topic: readonly Stored[]) {
  const byPartition = Map.groupBy(topic, ({ partition }) => partition)
  const offsetOf = ({ message }: Stored): number => Number(message.offset)
  return {
    extents: async () =>
      new Map(
        Array.from(byPartition, ([partition, of]) => [
          partition,
          { low: offsetOf(of[0]!), high: offsetOf(of.at(-1)!) + 1 },
        ]),
      ),
    async *read(partition: number, from: number, to: number) {
      const of = byPartition.get(partition) ?? []
      const messages = of.filter((each) => offsetOf(each) >= from && offsetOf(each) < to).map(({ message }) => message)
      for (let i = 0; i < messages.length; i += 3) yield messages.slice(i, i + 3)
    },
  }
}

/**
 * What a day's log tells of each file: rows that go on where another of the same ends are one here, for how they are cut depends on
 * when checkpoints were written. Their checksums are for verify.
 */
export function meaningOf(root: string, day: string, length: number): Omit<Row, 'crc'>[] {
  const rows = readIndex(join(root, '.tallyman'), day, length)
    .toArray()
    .flat()
    .sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.position - b.position))
  const joined: Omit<Row, 'crc'>[] = []
  for (const { crc: _, ...row } of rows) {
    const last = joined.at(-1)
    if (last?.file === row.file && last.position + last.bytes === row.position && sameLines(last, row)) {
      last.bytes += row.bytes
      last.lines += row.lines
      last.numbers = [both(last.numbers[0], row.numbers[0]), both(last.numbers[1], row.numbers[1])]
      last.tmin = Math.min(last.tmin, row.tmin)
      last.tmax = Math.max(last.tmax, row.tmax)
    } else joined.push(row)
  }
  return joined
}

const both = ([a, b]: Numbers, [c, d]: Numbers): Numbers => [a || c, Math.max(b, d)]

const sameLines = (a: Omit<Row, 'crc'>, b: Omit<Row, 'crc'>): boolean =>
  a.run === b.run &&
  JSON.stringify(a.names) === JSON.stringify(b.names) &&
  (a.names?.format !== 'raw' || (a.numbers[0][0] === 0) === (b.numbers[0][0] === 0))
