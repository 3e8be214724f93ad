/** Lines into Kafka, as the driver would send them: for tests that need a consumer, and no engine. */
import { randomBytes } from 'node:crypto'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf, type SourceName } from './chunk.ts'
import type { Kafka } from './kafka.ts'

export type Fed = {
  text: string
  source?: SourceName
  /** ms since 1970; now where it is not given. */
  time?: number
}

/** What one container prints. */
export class Feeder {
  readonly name: string
  #kafka: Kafka
  #topic: string
  #names: { service: string; module: string; host: string }
  #run = randomBytes(16).toString('hex')
  #next = { stdout: 1, stderr: 1 }
  #encoder = new ChunkEncoder()

  #partition: number

  /** @param of `service/module` */
  constructor(kafka: Kafka, topic: string, of: string, container: string, host = 'host-1', partition = 0) {
    const [service, module] = of.split('/') as [string, string]
    this.#kafka = kafka
    this.#topic = topic
    this.#names = { service, module, host }
    this.name = container
    this.#partition = partition
  }

  async feed(...lines: (Fed | string)[]): Promise<void> {
    const first: [number, number] = [this.#next.stdout, this.#next.stderr]
    const now = Date.now()
    const chunk = chunkOf({
      ...{ run: this.#run, ...this.#names, attrs: {}, first },
      container: { id: this.#run, name: this.name, image: 'image' },
      lines: lines.map((line) => {
        const { text, source = 'stdout', time = now } = typeof line === 'string' ? { text: line } : line
        return { source, number: this.#next[source]++, time: `${time}000000`, text }
      }),
    })
    const { service, module } = this.#names
    const value = this.#encoder.encode(chunk).slice()
    await this.#kafka.produce(this.#topic, [{ partition: this.#partition, key: `${service}/${module}`, value }])
  }
}
