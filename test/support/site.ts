/**
 * A site: Kafka, a consumer that serves the page, and lines that the test feeds in the drivers' place. Its root is its own.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf, type Line, type Meaning, type SourceName } from './chunk.ts'
import { Consumer } from './consumer.ts'
import { command, lockEngine } from './engine.ts'
import { temporaryFolder } from './folder.ts'
import { Kafka } from './kafka.ts'
import { until } from './until.ts'

/** What prints. */
export type Module = { service: string; module: string; host?: string; container?: string }
/** What it prints; `ms` since 1970, now unless told otherwise. */
export type Said = { text: string; source?: SourceName; ms?: number }

type Run = { id: string; next: Record<SourceName, number> }

/** Builds the page: it is tested as it is in the image. */
export const bundlePage = (): Promise<string> => command(process.execPath, 'setup/bundle.ts', 'web')

export class Site implements AsyncDisposable {
  readonly kafka: Kafka
  readonly consumer: Consumer
  readonly topic: string
  #runs = new Map<string, Run>()
  #stack: AsyncDisposableStack
  #fed = 0

  /** @param settings of the consumer, beyond those that lead to Kafka and the root */
  static async start(name: string, settings: Record<string, string> = {}): Promise<Site> {
    await using stack = new AsyncDisposableStack()
    await bundlePage()
    // A house that is built meanwhile would take its Kafka for what a killed run left.
    stack.use(await lockEngine())
    const folder = stack.use(temporaryFolder()).path
    const root = join(folder, 'root')
    mkdirSync(root)
    const kafka = stack.use(await Kafka.start(name))
    const consumer = stack.use(
      await Consumer.create(
        { KAFKA_BROKERS: kafka.brokers.join(), KAFKA_TOPIC: name, KAFKA_PARTITIONS: '1', ROOT: root, ...settings },
        join(folder, 'consumer.log'),
      ),
    )
    await consumer.start()
    return new Site(kafka, consumer, name, stack.move())
  }

  private constructor(kafka: Kafka, consumer: Consumer, topic: string, stack: AsyncDisposableStack) {
    this.kafka = kafka
    this.consumer = consumer
    this.topic = topic
    this.#stack = stack
  }

  /** The page's address with a query. */
  at(query = ''): string {
    return `${this.consumer.url}/${query}`
  }

  /** Stores lines in Kafka, each call a chunk. @param skipped lines of stdout that are numbered before them and never come */
  async feed(
    { service, module, host = 'host-a', container = `${module}-1` }: Module,
    said: Said[],
    skipped = 0,
  ): Promise<void> {
    const key = `${service}/${module}/${host}/${container}`
    const run = this.#runs.get(key) ?? { id: randomBytes(16).toString('hex'), next: { stdout: 1, stderr: 1 } }
    this.#runs.set(key, run)
    run.next.stdout += skipped
    const first: Meaning['first'] = [run.next.stdout, run.next.stderr]
    const lines = said.map(({ text, source = 'stdout', ms = Date.now() }): Line => {
      return { source, number: run.next[source]++, time: `${ms}000000`, text }
    })
    const chunk = chunkOf({
      ...{ run: run.id, service, module, host, attrs: {}, first, lines },
      container: { id: run.id, name: container, image: 'image' },
    })
    const value = new ChunkEncoder().encode(chunk).slice()
    await this.kafka.produce(this.topic, [{ partition: 0, key: `${service}/${module}`, value }])
    this.#fed += said.length
  }

  /** Waits until all that was fed is in files, and can be asked for. */
  async landed(): Promise<void> {
    await until(`${this.#fed} lines landed`, async () => {
      const answer = await fetch(`${this.consumer.url}/api/v1/ledger`)
      const { total } = (await answer.json()) as { total: { written: number } }
      return total.written === this.#fed
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}
