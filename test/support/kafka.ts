/** A Kafka of a test's own: one container a broker, KRaft, on the host's network because the plugin is there too. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Admin, type Kafka as Client, CompressionTypes } from 'kafkajs'
import pino from 'pino'
import { generate } from 'selfsigned'
import { GenericContainer, type StartedTestContainer, Wait } from 'testcontainers'
import { kafkaClient } from '../../wire/kafka.ts'
import { command, docker, imageOf, LABEL } from './engine.ts'
import { freePorts } from './ports.ts'
import { until } from './until.ts'

// Its reaper is an image of its own. What a killed run leaves is removed by label when the next house stands.
process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true'

const PULLED = 'apache/kafka:4.4.0'
const BUILT = 'tallyman-kafka:4.4.0'

type Broker = { id: number; port: number; controllerPort: number; securePort: number; mutualPort: number }

/** Who may log in over SASL_SSL. */
export const USER = { name: 'tallyman', password: 'correct horse' }

export class Kafka {
  /** Seeds, host:port. */
  readonly brokers: string[]
  /** The same brokers over SASL_SSL, where certificates were asked for; and where they ask their clients for one as well. */
  readonly secured: string[]
  readonly mutual: string[]
  readonly client: Client
  #containers: StartedTestContainer[]

  private constructor(brokers: readonly Broker[], secured: boolean, containers: StartedTestContainer[]) {
    const local = (port: number): string => `127.0.0.1:${port}`
    this.brokers = brokers.map(({ port }) => local(port))
    this.secured = secured ? brokers.map(({ securePort }) => local(securePort)) : []
    this.mutual = secured ? brokers.map(({ mutualPort }) => local(mutualPort)) : []
    this.#containers = containers
    this.client = kafkaClient({
      brokers: this.brokers,
      clientId: 'tallyman-test',
      logger: pino({ level: 'silent' }),
      requestTimeout: 5_000,
      retry: { retries: 2 },
    })
  }

  /**
   * @param name the containers are called by it
   * @param certs a folder: then the brokers speak SASL_SSL as well, with a certificate whose signer it holds as `ca.pem`, and beside
   *   that to clients alone who have the certificate in `client.pem`, whose key is in `client-key.pem`
   */
  static async start(name: string, count = 1, certs?: string): Promise<Kafka> {
    const image = await imageOf(...(process.env['KAFKA_IMAGE'] ? [process.env['KAFKA_IMAGE']] : [PULLED, BUILT]))
    const ports = await freePorts(4 * count)
    if (certs !== undefined) await makeCertificates(image, certs)
    const brokers = Array.from({ length: count }, (_, i): Broker => {
      const [port, controllerPort, securePort, mutualPort] = ports.slice(4 * i) as [number, number, number, number]
      return { id: i + 1, port, controllerPort, securePort, mutualPort }
    })
    const containers = await Promise.all(
      brokers.map((broker) =>
        new GenericContainer(image)
          .withName(`${name}-kafka-${broker.id}`)
          .withLabels({ [LABEL]: 'kafka' })
          .withNetworkMode('host')
          .withDefaultLogDriver()
          .withEnvironment({ ...environment(broker, brokers), ...(certs !== undefined && secureEnvironment(broker)) })
          .withBindMounts(certs === undefined ? [] : [{ source: certs, target: CERTS, mode: 'ro' }])
          .withWaitStrategy(Wait.forLogMessage(/Kafka Server started/))
          .withStartupTimeout(90_000)
          .start(),
      ),
    )
    const kafka = new Kafka(brokers, certs !== undefined, containers)
    await kafka.#ready()
    return kafka
  }

  /** Ends every broker in good order. Their data stay. */
  async stop(): Promise<void> {
    await Promise.all(this.#containers.map((container) => docker.getContainer(container.getId()).stop({ t: 20 })))
  }

  /** Starts those that do not run, on the same ports and data, and waits until they answer. */
  async start(): Promise<void> {
    await Promise.all(
      this.#containers.map(async (container) => {
        const broker = docker.getContainer(container.getId())
        if (!(await broker.inspect()).State.Running) await broker.start()
      }),
    )
    await this.#ready()
  }

  /** The process ids of the brokers, on this host. */
  async pids(): Promise<number[]> {
    return Promise.all(
      this.#containers.map(async (container) => (await docker.getContainer(container.getId()).inspect()).State.Pid),
    )
  }

  /** What `ask` says over a connection that is closed afterwards. */
  async admin<T>(ask: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = this.client.admin()
    await admin.connect()
    try {
      return await ask(admin)
    } finally {
      await admin.disconnect()
    }
  }

  /** Stores records as somebody who is not our driver. */
  async produce(
    topic: string,
    records: { partition: number; key: string; value: Uint8Array }[],
    compression = CompressionTypes.None,
  ): Promise<void> {
    const producer = this.client.producer()
    await producer.connect()
    try {
      const messages = records.map(({ value, ...record }) => ({ ...record, value: Buffer.from(value) }))
      const acks = await producer.send({ topic, acks: -1, compression, messages })
      // For a partition without a leader kafkajs sends nothing, and says nothing.
      const stored = new Set(acks.flatMap(({ partition, errorCode }) => (errorCode === 0 ? [partition] : [])))
      for (const { partition } of records) {
        if (!stored.has(partition)) throw new Error(`Kafka has stored nothing in partition ${partition}`)
      }
    } finally {
      await producer.disconnect()
    }
  }

  /** How many records of the topic the group has not claimed. */
  unclaimed(topic: string, groupId: string): Promise<number> {
    return this.admin(async (admin) => {
      const ends = await admin.fetchTopicOffsets(topic)
      const [group] = await admin.fetchOffsets({ groupId, topics: [topic] })
      const claimed = new Map(group?.partitions.map(({ partition, offset }) => [partition, Number(offset)]))
      if (ends.some(({ high }) => Number(high) < 0)) throw new Error('a partition has no leader')
      return ends.reduce(
        (sum, { partition, low, high }) => sum + Number(high) - Math.max(claimed.get(partition) ?? -1, Number(low)),
        0,
      )
    })
  }

  async #ready(): Promise<void> {
    await until('Kafka answers', () => this.admin(async (admin) => (await admin.listTopics()) && true))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#containers.map((container) => container.stop({ timeout: 0, removeVolumes: true })))
  }
}

/** As the image apache/kafka takes it; ours takes the same. */
function environment(broker: Broker, brokers: Broker[]): Record<string, string> {
  const replicas = String(Math.min(brokers.length, 2))
  return {
    CLUSTER_ID: 'dGFsbHltYW4tdGVzdC0wMQ',
    KAFKA_NODE_ID: String(broker.id),
    KAFKA_PROCESS_ROLES: 'broker,controller',
    KAFKA_LISTENERS: `PLAINTEXT://127.0.0.1:${broker.port},CONTROLLER://127.0.0.1:${broker.controllerPort}`,
    KAFKA_ADVERTISED_LISTENERS: `PLAINTEXT://127.0.0.1:${broker.port}`,
    KAFKA_CONTROLLER_LISTENER_NAMES: 'CONTROLLER',
    KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    KAFKA_CONTROLLER_QUORUM_VOTERS: brokers.map(({ id, controllerPort }) => `${id}@127.0.0.1:${controllerPort}`).join(),
    KAFKA_AUTO_CREATE_TOPICS_ENABLE: 'false',
    KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: replicas,
    KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS: '3',
    KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: replicas,
    KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '1',
    KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR: replicas,
    KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR: '1',
    KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: '0',
    KAFKA_LOG_DIRS: '/var/lib/kafka/data',
    KAFKA_HEAP_OPTS: '-Xms128m -Xmx512m',
  }
}

/** Where a broker finds its key. */
const CERTS = '/certs'
const STORE_PASSWORD = 'changeit'

/** A key for the brokers, self-signed, with the JRE that is in Kafka's image; its certificate is `ca.pem`. And one for a client. */
async function makeCertificates(image: string, certs: string): Promise<void> {
  const client = await generate([{ name: 'commonName', value: 'tallyman' }], { keyType: 'ec' })
  writeFileSync(join(certs, 'client.pem'), client.cert)
  writeFileSync(join(certs, 'client-key.pem'), client.private)
  const keytool = (...args: string[]) =>
    command(
      ...(['docker', 'run', '--rm', '--user', '0', '--network', 'none', '--entrypoint', 'keytool'] as const),
      ...['--volume', `${certs}:${CERTS}`, image, ...args],
      ...['-storepass', STORE_PASSWORD],
    )
  const server = ['-alias', 'kafka', '-keystore', `${CERTS}/server.p12`]
  const names = ['-dname', 'CN=test', '-ext', 'SAN=IP:127.0.0.1']
  await keytool('-genkeypair', ...server, '-keyalg', 'EC', ...names, '-validity', '30')
  await keytool('-exportcert', ...server, '-rfc', '-file', `${CERTS}/ca.pem`)
  const trusted = ['-keystore', `${CERTS}/clients.p12`, '-file', `${CERTS}/client.pem`]
  await keytool('-importcert', '-noprompt', '-alias', 'client', ...trusted)
  await command('chmod', '-R', 'a+rX', certs)
}

function secureEnvironment({ port, controllerPort, securePort, mutualPort }: Broker): Record<string, string> {
  const all = `PLAINTEXT://127.0.0.1:${port},SASL_SSL://127.0.0.1:${securePort},MUTUAL://127.0.0.1:${mutualPort}`
  const plain = `org.apache.kafka.common.security.plain.PlainLoginModule required user_${USER.name}="${USER.password}";`
  return {
    KAFKA_LISTENERS: `${all},CONTROLLER://127.0.0.1:${controllerPort}`,
    KAFKA_ADVERTISED_LISTENERS: all,
    KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,MUTUAL:SASL_SSL,CONTROLLER:PLAINTEXT',
    KAFKA_LISTENER_NAME_MUTUAL_SSL_CLIENT_AUTH: 'required',
    KAFKA_LISTENER_NAME_MUTUAL_SASL_ENABLED_MECHANISMS: 'PLAIN',
    KAFKA_LISTENER_NAME_MUTUAL_PLAIN_SASL_JAAS_CONFIG: plain,
    KAFKA_SSL_TRUSTSTORE_TYPE: 'PKCS12',
    KAFKA_SSL_TRUSTSTORE_LOCATION: `${CERTS}/clients.p12`,
    KAFKA_SSL_TRUSTSTORE_PASSWORD: STORE_PASSWORD,
    KAFKA_SSL_KEYSTORE_TYPE: 'PKCS12',
    KAFKA_SSL_KEYSTORE_LOCATION: `${CERTS}/server.p12`,
    KAFKA_SSL_KEYSTORE_PASSWORD: STORE_PASSWORD,
    KAFKA_SSL_KEY_PASSWORD: STORE_PASSWORD,
    KAFKA_SASL_ENABLED_MECHANISMS: 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
    KAFKA_LISTENER_NAME_SASL__SSL_PLAIN_SASL_JAAS_CONFIG: plain,
    ...Object.fromEntries(
      ['256', '512'].map((bits) => [
        `KAFKA_LISTENER_NAME_SASL__SSL_SCRAM___SHA___${bits}_SASL_JAAS_CONFIG`,
        'org.apache.kafka.common.security.scram.ScramLoginModule required;',
      ]),
    ),
  }
}
