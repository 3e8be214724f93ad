/**
 * A house: everything that a line passes on its way, real, for tests alone.
 *
 *   await using house = await startHouse('outage')
 *   const container = await house.run({ print: printed('a line\n') })
 *   await house.landed(container)
 *
 * It stands on the machine's dockerd. Kafka, topic, consumer, root and containers are its own; the plugin is kept from house
 * to house and set anew for each.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { VerifyAnswer } from '../../consumer/api-schema.ts'
import { settingsSchema } from '../../driver/settings.ts'
import { Consumer } from './consumer.ts'
import { Container, type ContainerOptions } from './container.ts'
import { BASE_IMAGE, hasContainers, imageOf, lockEngine, removeContainers } from './engine.ts'
import { Kafka, USER } from './kafka.ts'
import { compareModule, difference, expectedSize, sizeOf } from './oracle.ts'
import { Plugin } from './plugin.ts'
import { freePorts } from './ports.ts'
import type { Printed } from './printed.ts'
import { until } from './until.ts'

const PLUGIN = 'tallyman-test:latest'
const PARTITIONS = 3
const PASSWORD = 'password'
/** Where the plugin sees the folder that its mount `certs` is set to. */
export const CERTS_IN_PLUGIN = '/run/tallyman/certs'

export type HouseOptions = {
  /** How many brokers Kafka has. */
  brokers?: number
  /** Plugin and consumer speak SASL_SSL with Kafka; the password stands in `house.passwordFile`. */
  secured?: boolean
  /** The consumer's settings that differ from a house's own. */
  consumer?: Record<string, string>
  /** What is run as the consumer, unless it is the source. */
  program?: readonly [string, ...string[]]
  /** The plugin's settings that differ from a house's own. */
  plugin?: Record<string, string>
}

export type RunOptions = {
  print: Printed
  /** Folders of the files; both are made up, and said by log-opt, unless `logOpts` is given. */
  service?: string
  module?: string
} & Partial<Pick<ContainerOptions, 'name' | 'image' | 'command' | 'logDriver' | 'logOpts' | 'labels' | 'memoryBytes'>>

/** A container of the house, and where its lines land. */
type Resident = { container: Container; service: string; module: string }

export class House {
  /** In every name that the house gives. */
  readonly id: string
  /** Of the house alone, gone with it. */
  readonly folder: string
  readonly topic: string
  readonly kafka: Kafka
  readonly plugin: Plugin
  /** Where the plugin serves its metrics. */
  readonly metrics: string
  readonly consumer: Consumer
  #residents: Resident[] = []
  #created = 0
  #disposables: AsyncDisposableStack

  constructor(
    parts: Pick<House, 'id' | 'folder' | 'topic' | 'kafka' | 'plugin' | 'metrics' | 'consumer'>,
    disposables: AsyncDisposableStack,
  ) {
    this.id = parts.id
    this.folder = parts.folder
    this.topic = parts.topic
    this.kafka = parts.kafka
    this.plugin = parts.plugin
    this.metrics = parts.metrics
    this.consumer = parts.consumer
    this.#disposables = disposables
  }

  /** Where the files are. */
  get root(): string {
    return join(this.folder, 'root')
  }

  /** What the plugin's metrics say, by name and labels. */
  async samples(): Promise<Record<string, number>> {
    const answer = await fetch(`${this.metrics}/metrics`)
    if (!answer.ok) throw new Error(`the plugin's metrics are answered with ${answer.status}`)
    const samples = (await answer.text()).matchAll(/^([a-z_]+(?:\{.*\})?) (\S+)$/gm)
    return Object.fromEntries(Array.from(samples, ([, name, value]) => [name, Number(value)]))
  }

  /** The file with the password for Kafka, of a house that is `secured`. */
  get passwordFile(): string {
    return join(this.folder, 'certs', PASSWORD)
  }

  /** Creates a container that prints something known. `landed` expects its lines once it is created. */
  async create(options: RunOptions): Promise<Container> {
    const name = options.name ?? `${this.id}-${++this.#created}`
    const service = options.service ?? this.id
    const module = options.module ?? name
    const container = await Container.create(join(this.folder, 'in', name), {
      name,
      image: options.image ?? BASE_IMAGE,
      printed: options.print,
      logDriver: options.logDriver ?? this.plugin.name,
      logOpts: options.logOpts ?? { service, module },
      ...(options.command && { command: options.command }),
      ...(options.labels && { labels: options.labels }),
      ...(options.memoryBytes !== undefined && { memoryBytes: options.memoryBytes }),
    })
    this.#residents.push({ container, service, module })
    return container
  }

  /** Creates a container and starts it. */
  async run(options: RunOptions): Promise<Container> {
    const container = await this.create(options)
    await container.start()
    return container
  }

  /** Takes a container's lines out of what is expected, and the container away. */
  async forget(container: Container): Promise<void> {
    this.#residents = this.#residents.filter((resident) => resident.container !== container)
    await container[Symbol.asyncDispose]()
  }

  /** The folder in which a container's lines land. */
  folderOf(container: Container): string {
    const resident = this.#residents.find((resident) => resident.container === container)
    if (!resident) throw new Error(`${container.name} is none of this house's containers`)
    return join(this.root, resident.service, resident.module)
  }

  /** Bytes that the files of these containers have once every line has landed. */
  expectedSize(...containers: Container[]): number {
    return this.#folders(containers).reduce((sum, { expected }) => sum + expectedSize(expected), 0)
  }

  /**
   * Waits until the modules of these containers (default: of all) hold as many bytes as were printed, then compares
   * them byte for byte.
   */
  async landed(...containers: Container[]): Promise<void> {
    for (const { folder, expected } of this.#folders(containers)) {
      const size = expectedSize(expected)
      await until(
        () =>
          `${folder} holds ${sizeOf(folder)} of ${size} bytes; ${difference(folder, expected)}. The consumer said:\n${this.consumer.lastWords}`,
        () => sizeOf(folder) >= size,
      )
      compareModule(folder, expected)
    }
  }

  /**
   * Waits until nothing is under way any more, has files, index and ledger held against each other, ends the consumer in good order, and
   * compares the files of all containers once more: what came twice, however late, is found here.
   */
  async settled(): Promise<void> {
    await until('the journal is shipped', () => this.plugin.shipped)
    await until('every record is claimed', async () => (await this.kafka.unclaimed(this.topic, this.topic)) === 0)
    const { problems } = (await (await fetch(`${this.consumer.url}/api/v1/verify`)).json()) as VerifyAnswer
    if (problems.length > 0) throw new Error(`verification finds ${JSON.stringify(problems.slice(0, 3))}`)
    const code = await this.consumer.stop()
    if (code !== 0) throw new Error(`the consumer ended with ${code} after SIGTERM: ${this.consumer.lastWords}`)
    for (const { folder, expected } of this.#folders([])) compareModule(folder, expected)
  }

  #folders(containers: Container[]) {
    const folders = new Set(containers.map((container) => this.folderOf(container)))
    const all = Map.groupBy(this.#residents, ({ container }) => this.folderOf(container))
    return [...all]
      .filter(([folder]) => folders.size === 0 || folders.has(folder))
      .map(([folder, residents]) => ({
        folder,
        expected: residents.map(({ container }) => ({ container: container.name, printed: container.printed })),
      }))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposables.disposeAsync()
  }
}

/** The settings of plugin and consumer that secure the connection by the files in `certs`, or secure nothing. */
const securedBy = (certs: string | undefined): Record<string, string> => ({
  KAFKA_TLS: certs === undefined ? '' : 'true',
  KAFKA_CA_FILE: certs === undefined ? '' : join(certs, 'ca.pem'),
  KAFKA_SASL_MECHANISM: certs === undefined ? '' : 'plain',
  KAFKA_SASL_USERNAME: certs === undefined ? '' : USER.name,
  KAFKA_SASL_PASSWORD_FILE: certs === undefined ? '' : join(certs, PASSWORD),
})

/**
 * Removes the containers of a run that was killed. The plugin has to be enabled for that: dockerd can't let go of one whose pipe
 * is full and read by nobody.
 */
async function clearAway(): Promise<void> {
  const plugin = await Plugin.find(PLUGIN)
  if (plugin && (await hasContainers('generator'))) {
    await plugin.enable().catch((error: { statusCode?: number }) => {
      const enabledAlready = error.statusCode === 409
      if (!enabledAlready) throw error
    })
    await plugin.answers()
  }
  await removeContainers()
}

/** @param name says which suite the house is for, in what it names */
export async function startHouse(name: string, options: HouseOptions = {}): Promise<House> {
  await using building = new AsyncDisposableStack()
  building.use(await lockEngine())
  await imageOf(BASE_IMAGE)
  await imageOf('tallyman-plugin-rootfs')
  await clearAway()

  const id = `tm-${name}-${randomBytes(3).toString('hex')}`
  const folder = mkdtempSync(join(tmpdir(), `${id}-`))
  building.defer(() => rmSync(folder, { recursive: true, force: true }))
  const certs = join(folder, 'certs')
  if (options.secured) {
    mkdirSync(certs)
    writeFileSync(join(certs, PASSWORD), `${USER.password}\n`)
  }
  const kafka = building.use(await Kafka.start(id, options.brokers, options.secured ? certs : undefined))
  const settings = {
    KAFKA_BROKERS: (options.secured ? kafka.secured : kafka.brokers).join(),
    KAFKA_TOPIC: id,
    ...securedBy(options.secured ? certs : undefined),
  }
  const consumer = building.use(
    await Consumer.create(
      {
        ...settings,
        KAFKA_GROUP: id,
        KAFKA_PARTITIONS: String(PARTITIONS),
        KAFKA_REPLICATION: String(Math.min(kafka.brokers.length, 2)),
        ROOT: join(folder, 'root'),
        TZ_FILES: 'UTC',
        LINE_FORMAT: 'text',
        LOG_LEVEL: 'info',
        ...options.consumer,
      },
      join(folder, 'consumer.log'),
      options.program,
    ),
  )
  await consumer.start()
  const [port] = await freePorts(1)
  const metrics = `127.0.0.1:${port}`
  const plugin = building.use(
    await Plugin.start(PLUGIN, {
      // A plugin keeps what the house before has set.
      ...Object.fromEntries(Object.keys(settingsSchema.shape).map((name) => [name, ''])),
      ...settings,
      ...securedBy(options.secured ? CERTS_IN_PLUGIN : undefined),
      'certs.source': options.secured ? certs : '/srv',
      LOG_LEVEL: 'info',
      METRICS_ADDR: metrics,
      ...options.plugin,
    }),
  )
  // Before the plugin goes: without it dockerd takes 15 s for each.
  building.defer(() => removeContainers('generator'))
  await plugin.answers()
  return new House({ id, folder, topic: id, kafka, plugin, metrics: `http://${metrics}`, consumer }, building.move())
}
