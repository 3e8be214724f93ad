/** What stands in Kafka, read by others than us; and topics of a container's own, that are there, come late, or are not allowed. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import type { ITopicConfig } from 'kafkajs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { AWAITING_GO, type Container, paced } from '../support/container.ts'
import { command } from '../support/engine.ts'
import { type House, type RunOptions, startHouse } from '../support/house.ts'
import { numberedLines, type Printed, printed, SOURCES } from '../support/printed.ts'
import { readChunks, readValues } from '../support/readers.ts'
import { until } from '../support/until.ts'

let house: House
beforeAll(async () => {
  house = await startHouse('formats', { plugin: { KAFKA_TOPICS_ALLOWED: 'team-*' } })
})
afterAll(() => house?.[Symbol.asyncDispose]())

const AWKWARD = printed(
  Buffer.concat([
    Buffer.from('größe "5" \\ \u001b[31mred\n\n'),
    Buffer.from([0xff, 0xfe, 0, 13, 10]),
    Buffer.alloc(40_000, '"'),
    Buffer.from('\n'),
    numberedLines(2_000, 105),
  ]),
  Buffer.concat([numberedLines(500, 300), Buffer.from('no newline behind it')]),
)

/** The lines of each source in base64. */
function linesOf(print: Printed): Record<string, string[]> {
  return Object.fromEntries(
    SOURCES.map((source) => {
      const text = print[source].toString('latin1').replace(/\n$/, '')
      return [source, text.split('\n').map((line) => Buffer.from(line, 'latin1').toString('base64'))]
    }),
  )
}

const logOpts = (container: string, differing: Record<string, string>) => ({
  service: house.id,
  module: container,
  ...differing,
})

async function createTopic(topic: string, options: Omit<ITopicConfig, 'topic'> = {}): Promise<void> {
  await house.kafka.admin((admin) => admin.createTopics({ topics: [{ topic, numPartitions: 2, ...options }] }))
}

/** A field of a tag template each, but for those that are the container's own. */
const TAG = ['ImageID', 'ImageFullID', 'ImageName', 'Name', 'Command', 'DaemonName'].map((field) => `{{.${field}}}`)

/** Runs a container to its end whose lines go to a topic that no consumer of ours reads. */
async function runApart(name: string, print: Printed, differing: Record<string, string>): Promise<Container> {
  const container = await house.run({ name, print, module: name, logOpts: logOpts(name, differing) })
  expect(await container.ended()).toBe(0)
  return container
}

it('chunks are read by Python and kcat, line by line, byte for byte', async () => {
  const topic = 'team-chunks'
  await createTopic(topic)
  const container = await runApart(`${house.id}-chunks`, AWKWARD, { 'kafka-topic': topic })
  await until('they are shipped', () => house.plugin.shipped)
  const read = await readChunks(house.kafka, topic)
  expect(read).toEqual({ [container.name]: { ...linesOf(AWKWARD), lost: [], whole: true } })
  await house.forget(container)
})

it('format=json is read by kcat, line by line, byte for byte', async () => {
  const topic = 'team-json'
  await createTopic(topic)
  const container = await runApart(`${house.id}-json`, AWKWARD, { 'kafka-topic': topic, format: 'json' })
  await until('they are shipped', () => house.plugin.shipped)
  const records = (await readValues(house.kafka, topic)).map((value) => JSON.parse(value))
  for (const source of SOURCES) {
    const lines = records.filter((record) => record.source === source)
    expect(lines.map(({ number }) => number)).toEqual(lines.map((_, i) => i + 1))
    const bytes = lines.map(({ line, base64 }) => base64 ?? Buffer.from(line).toString('base64'))
    expect(bytes).toEqual(linesOf(AWKWARD)[source])
  }
  expect(records.at(-1).end).toEqual({ stdout: 2_004, stderr: 501 })
  expect(records[0]).toMatchObject({ service: house.id, module: container.name, container: { name: container.name } })
  await house.forget(container)
})

it('format=json in our own topic: the consumer makes the same files of it', async () => {
  const name = `${house.id}-both`
  const container = await house.run({
    name,
    print: AWKWARD,
    module: name,
    logOpts: logOpts(name, { format: 'json' }),
  })
  await house.landed(container)
})

it('a topic that comes late: its lines wait for it, and those of others do not', async () => {
  const topic = 'team-late'
  const late = await runApart(`${house.id}-late`, AWKWARD, { 'kafka-topic': topic })
  const other = await house.run({ print: printed(numberedLines(1_000, 105)) })
  await house.landed(other)
  expect(house.plugin.shipped).toBe(false)
  // Kafka is not away because one container names a topic that is missing.
  const health = await fetch(`${house.metrics}/healthz`)
  expect([health.status, await health.json()]).toEqual([200, expect.objectContaining({ kafka: 'reached' })])
  await createTopic(topic)
  await until('they are shipped', () => house.plugin.shipped)
  const read = await readChunks(house.kafka, topic)
  expect(read).toEqual({ [late.name]: { ...linesOf(AWKWARD), lost: [], whole: true } })
  await house.forget(late)
})

/** Four containers that have one line left to print. Each run chooses its partition by its own id, so that they are in different ones. */
const fourWaiting = (topic: string): Promise<Container[]> =>
  Promise.all(
    Array.from({ length: 4 }, (_, i) => {
      const name = `${house.id}-${topic}-${i}`
      const opts = logOpts(name, { 'kafka-topic': topic, 'kafka-key': 'run', format: 'json' })
      return house.run({
        name,
        print: printed(numberedLines(100, 105)),
        module: name,
        logOpts: opts,
        command: AWAITING_GO,
      })
    }),
  )

it('a topic that gets more partitions while containers write: each run stays in its own', async () => {
  const topic = 'team-grown'
  await createTopic(topic)
  const runs = await fourWaiting(topic)
  const records = async () =>
    (await readValues(house.kafka, topic, '%p %s\n')).map((row) => {
      const [, partition, value] = /^(\d+) (.*)$/.exec(row)!
      return { partition: Number(partition), ...JSON.parse(value!) }
    })
  await until('they are shipped', async () => (await records()).length === 4 * 99)
  await house.kafka.admin((admin) => admin.createPartitions({ topicPartitions: [{ topic, count: 16 }] }))
  // The driver is killed, so that the next one asks for the partitions anew.
  await house.plugin.killed()
  for (const container of runs) {
    container.go()
    expect(await container.ended()).toBe(0)
  }
  const fresh = await runApart(`${house.id}-grown`, printed(numberedLines(1, 105)), {
    'kafka-topic': topic,
    format: 'json',
  })
  await until('they are shipped', () => house.plugin.shipped)
  const all = await records()
  for (const { name } of runs) {
    const own = all.filter((record) => record.container.name === name)
    expect(new Set(own.map(({ number }) => number).filter(Boolean)).size).toBe(100)
    expect(new Set(own.map(({ partition }) => partition)).size).toBe(1)
  }
  for (const container of [...runs, fresh]) await house.forget(container)
})

it('a topic that comes back with fewer partitions: what was not sent goes to those that it has', async () => {
  const topic = 'team-shrunk'
  await createTopic(topic)
  const runs = await fourWaiting(topic)
  const records = async () => (await readValues(house.kafka, topic)).map((value) => JSON.parse(value))
  await until('they are shipped', async () => (await records()).length === 4 * 99)
  await house.kafka.admin((admin) => admin.deleteTopics({ topics: [topic] }))
  await until('the topic is gone', () =>
    house.kafka.admin(async (admin) => !(await admin.listTopics()).includes(topic)),
  )
  await createTopic(topic, { numPartitions: 1 })
  for (const container of runs) {
    container.go()
    expect(await container.ended()).toBe(0)
  }
  await until('they are shipped', () => house.plugin.shipped)
  // The end of a run may come in a record of its own.
  const last = (await records()).filter(({ number }) => number !== undefined)
  expect(last.map(({ number }) => number)).toEqual([100, 100, 100, 100])
  expect(new Set(last.map(({ container }) => container.name))).toEqual(new Set(runs.map(({ name }) => name)))
  for (const container of runs) await house.forget(container)
})

it('a line that Kafka refuses for its size is given up and counted, and those around it arrive', async () => {
  const topic = 'team-small'
  await createTopic(topic, { configEntries: [{ name: 'max.message.bytes', value: '20000' }] })
  const noise = randomBytes(60_000).toString('base64').replaceAll('\n', '')
  const print = printed(`${numberedLines(1_000, 105)}${noise}\n${numberedLines(1_000, 105)}`)
  const container = await runApart(`${house.id}-small`, print, { 'kafka-topic': topic, format: 'json' })
  await until('they are shipped', () => house.plugin.shipped)
  const records = (await readValues(house.kafka, topic)).map((value) => JSON.parse(value))
  const numbers = Array.from({ length: 2_001 }, (_, i) => i + 1).filter((number) => number !== 1_001)
  expect(records.flatMap(({ number }) => number ?? [])).toEqual(numbers)
  const told = records.flatMap(({ lost }) => lost ?? [])
  expect(told).toEqual([{ source: 'stdout', from: 1_001, count: 1, reason: 'too-large' }])
  expect((await house.samples())['tallyman_driver_lines_lost_total{reason="too-large"}']).toBe(1)
  await house.forget(container)
})

it('so is one in a chunk, and the chunk tells of it', async () => {
  const topic = 'team-small-chunks'
  await createTopic(topic, { configEntries: [{ name: 'max.message.bytes', value: '20000' }] })
  const noise = randomBytes(60_000).toString('base64').replaceAll('\n', '')
  const print = printed(`${numberedLines(1_000, 105)}${noise}\n${numberedLines(1_000, 105)}`)
  const container = await runApart(`${house.id}-small-chunks`, print, { 'kafka-topic': topic })
  await until('they are shipped', () => house.plugin.shipped)
  const { [container.name]: read } = await readChunks(house.kafka, topic)
  expect(read!.stdout).toEqual(linesOf(print)['stdout']!.toSpliced(1_000, 1))
  expect(read).toMatchObject({ lost: [[0, 1_001, 1, 'too-large']], whole: true })
  await house.forget(container)
})

it('labels, env and tag select what they select with json-file', async () => {
  const topic = 'team-attributes'
  await createTopic(topic)
  const name = `${house.id}-attributes`
  const selecting = {
    labels: 'team,none',
    'labels-regex': '(?i)^COM\\.',
    env: 'HOME,none',
    'env-regex': '^PA',
    tag: TAG.join(' '),
  }
  const labels = { team: 'blue', 'com.example.tier': 'web, "front"', other: 'o' }
  const run = async (options: Pick<RunOptions, 'logDriver' | 'logOpts'>) => {
    const container = await house.run({ name, print: printed('a line\n'), module: name, labels, ...options })
    expect(await container.ended()).toBe(0)
    return container
  }
  const before = await run({ logDriver: 'json-file', logOpts: selecting })
  const detailed = await command('docker', 'logs', '--details', name)
  await house.forget(before)
  const ours = await run({ logOpts: logOpts(name, { ...selecting, 'kafka-topic': topic, format: 'json' }) })
  await until('it is shipped', () => house.plugin.shipped)
  const [record] = (await readValues(house.kafka, topic)).map((value) => JSON.parse(value))
  const details = new URLSearchParams(detailed.slice(0, detailed.indexOf(' ')).replaceAll(',', '&'))
  expect(record.attrs).toEqual(Object.fromEntries(details))
  expect(record.attrs).toMatchObject({ team: 'blue', 'com.example.tier': labels['com.example.tier'] })
  await house.forget(ours)
})

/** How the first batch of a partition is compressed: the lowest bits of its attributes, 21 bytes into the log. */
async function codecOf(topic: string): Promise<'none' | 'gzip' | 'other' | 'zstd'> {
  const { partition } = (await house.kafka.admin((admin) => admin.fetchTopicOffsets(topic))).find(
    ({ high }) => Number(high) > 0,
  )!
  const log = `/var/lib/kafka/data/${topic}-${partition}/00000000000000000000.log`
  const attributes = await command('docker', 'exec', `${house.id}-kafka-1`, 'od', '-An', '-tu1', '-j22', '-N1', log)
  return (['none', 'gzip', 'other', 'other', 'zstd'] as const)[Number(attributes) & 7]!
}

it('compression, linger, host name and client id are as they are set, and lines land with the leader alone', async () => {
  const topic = 'team-linger'
  await createTopic(topic)
  // What bootstrapping says of the client goes through here.
  const said: Buffer[] = []
  const proxy = createServer((client) => {
    const [host, port] = house.kafka.brokers[0]!.split(':')
    const broker = connect(Number(port), host!)
    client.on('data', (bytes: Buffer) => said.push(bytes))
    for (const socket of [client, broker]) socket.on('error', () => socket.destroy())
    client.pipe(broker).pipe(client)
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const { port } = proxy.address() as AddressInfo
  await house.plugin.disable()
  await house.plugin.set({
    KAFKA_BROKERS: `127.0.0.1:${port}`,
    KAFKA_COMPRESSION: 'gzip',
    KAFKA_ACKS: 'leader',
    KAFKA_CLIENT_ID: 'a client of its own',
    LINGER: '1s',
    HOST_NAME: 'a-host-of-its-own',
  })
  await house.plugin.enable()
  await house.plugin.answers()

  const lingering = await house.run({
    name: `${house.id}-linger`,
    print: printed(numberedLines(300, 105)),
    module: 'linger',
    logOpts: logOpts(`${house.id}-linger`, { 'kafka-topic': topic }),
    command: paced(100),
  })
  const begun = performance.now()
  expect(await lingering.ended()).toBe(0)
  const seconds = (performance.now() - begun) / 1000
  await until('they are shipped', () => house.plugin.shipped)
  const offsets = await house.kafka.admin((admin) => admin.fetchTopicOffsets(topic))
  const chunks = offsets.reduce((sum, { high }) => sum + Number(high), 0)
  expect(chunks).toBeLessThan(seconds + 4)
  const { [lingering.name]: read } = await readChunks(house.kafka, topic)
  expect(read).toMatchObject({ stdout: linesOf(lingering.printed)['stdout'], whole: true })
  const hosts = await readValues(house.kafka, topic, '%h\n')
  expect(hosts.every((headers) => headers.includes('host=a-host-of-its-own'))).toBe(true)
  expect(await codecOf(topic)).toBe('gzip')
  expect(await codecOf('team-chunks')).toBe('zstd')
  expect(Buffer.concat(said).includes('a client of its own')).toBe(true)
  proxy.close()
  await house.forget(lingering)
})

it('a topic that is not allowed is refused in words', async () => {
  const name = `${house.id}-refused`
  const container = await house.create({
    name,
    print: printed(''),
    module: name,
    logOpts: logOpts(name, { 'kafka-topic': 'audit' }),
  })
  await expect(container.start()).rejects.toThrow(/kafka-topic=audit: this host's plugin allows .*KAFKA_TOPICS_ALLOWED/)
  await house.forget(container)
})

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
