/** Lines read over HTTP from a real consumer on a real Kafka, while the consumer is killed and started again. */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf } from '../support/chunk.ts'
import { Consumer } from '../support/consumer.ts'
import { lockEngine } from '../support/engine.ts'
import { Kafka } from '../support/kafka.ts'
import { type Event, Following, type LineEvent, linesOf, type Query, queryOf } from '../support/reading.ts'
import { until } from '../support/until.ts'

const PARTITIONS = 3
const id = `tm-reading-${randomBytes(3).toString('hex')}`
const stack = new AsyncDisposableStack()
let kafka: Kafka
let consumer: Consumer

beforeAll(async () => {
  stack.use(await lockEngine())
  const folder = mkdtempSync(join(tmpdir(), `${id}-`))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  kafka = stack.use(await Kafka.start(id))
  consumer = stack.use(
    await Consumer.create(
      {
        KAFKA_BROKERS: kafka.brokers.join(),
        KAFKA_TOPIC: id,
        KAFKA_GROUP: id,
        KAFKA_PARTITIONS: String(PARTITIONS),
        KAFKA_REPLICATION: '1',
        ROOT: join(folder, 'root'),
      },
      join(folder, 'consumer.log'),
    ),
  )
  await consumer.start()
})
afterAll(() => stack.disposeAsync())

/** Runs of three modules, each in a partition of its own, that print numbered lines. */
class Printer {
  #printed = [0, 0, 0]
  readonly all: string[] = []

  /** Prints `count` lines of each run, as one record each. */
  async print(count: number): Promise<void> {
    const now = Date.now()
    const records = this.#printed.map((printed, run) => {
      const texts = Array.from({ length: count }, (_, i) => `line ${printed + i + 1}`)
      this.all.push(...texts.map((text) => `web-${run} ${text}`))
      this.#printed[run] = printed + count
      const value = new ChunkEncoder().encode(
        chunkOf({
          ...{ run: String(run + 1).padStart(32, '0'), service: 'shop', module: `web-${run}`, host: `host-${run % 2}` },
          container: { id: 'c', name: `web-${run}-1`, image: 'i' },
          ...{ attrs: {}, first: [printed + 1, 1] },
          lines: texts.map((text, i) => ({
            ...{ source: 'stdout' as const, number: printed + i + 1, time: `${now + i}000000`, text },
          })),
        }),
      )
      return { partition: run, key: `shop/web-${run}`, value: value.slice() }
    })
    await kafka.produce(id, records)
  }
}

const follow = (query: Query, headers?: Record<string, string>) =>
  new Following(`${consumer.url}/api/v1/tail?${queryOf(query)}`, headers)

async function events(route: string, query: Query): Promise<Event[]> {
  const answer = await fetch(`${consumer.url}/api/v1/${route}?${queryOf(query)}`)
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`)
  return (await answer.text())
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
}

const shown = ({ module, line }: LineEvent): string => `${module} ${line}`

/** What is left of lines that were sent again. */
const once = (lines: readonly LineEvent[]): LineEvent[] => [...new Map(lines.map((line) => [line.at, line])).values()]

it('a tail that comes back by its cursor, over kills of the consumer, gets every line', async () => {
  const printer = new Printer()
  await printer.print(100)
  const got: LineEvent[] = []
  let cursor: string | undefined
  let tail = follow({ last: 1_000 })
  await until('the first lines are there', () => tail.lines.length > 0 && tail.cursor !== undefined)
  for (let kill = 0; kill < 4; kill++) {
    const printing = (async () => {
      for (let i = 0; i < 20; i++) await printer.print(50)
    })()
    if (kill % 2) await until('some of them are there', () => tail.lines.length > 500)
    await consumer.kill()
    await tail[Symbol.asyncDispose]()
    got.push(...tail.lines)
    cursor = tail.cursor ?? cursor
    await printing
    await consumer.start()
    tail = follow({ cursor })
  }
  const expected = new Set(printer.all)
  await until(
    () => `${new Set([...got, ...tail.lines].map(shown)).size} of ${expected.size} lines are there`,
    () => new Set([...got, ...tail.lines].map(shown)).size === expected.size,
  )
  await tail[Symbol.asyncDispose]()
  const lines = once([...got, ...tail.lines])
  expect(lines.map(shown).sort()).toEqual(printer.all.toSorted())
  expect(tail.events.some(({ type }) => type === 'missed')).toBe(false)
  const history = await events('lines', { limit: 100_000 })
  expect(
    linesOf(history)
      .map(({ at }) => at)
      .sort(),
  ).toEqual(lines.map(({ at }) => at).sort())
  const found = await events('search', { pattern: '^line 100$' })
  expect(linesOf(found).map(shown).sort()).toEqual(['web-0 line 100', 'web-1 line 100', 'web-2 line 100'])
})
