/** Brokers of three that are killed, stopped or all of them deaf, with two replicas or one: lines flow again soon, or land afterwards. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { partitionOf, recordKey } from '../../wire/record.ts'
import { Consumer } from '../support/consumer.ts'
import { type Container, paced } from '../support/container.ts'
import { delay, MOST_DELAY } from '../support/delays.ts'
import { type House, startHouse } from '../support/house.ts'
import { compareModule, difference, expectedSize, sizeOf } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { inSoak } from '../support/soak.ts'
import { until } from '../support/until.ts'

/** From the moment that a broker goes, from a container to its file. Kafka takes 9 s to notice one that hangs, longer on a machine that is busy. */
const FLOWS_AGAIN_SECONDS = 20

let house: House
beforeAll(async () => {
  house = await startHouse('outage', { brokers: 3, plugin: { KAFKA_TOPICS_ALLOWED: '*-unreplicated' } })
})
afterAll(() => house?.[Symbol.asyncDispose]())

/** How soon the consumer takes up partitions that were added. */
const NOTICED_SECONDS = 15

const writing = (lines = 100_000) => house.run({ print: printed(numberedLines(lines, 105)), command: paced(10_000) })

const ends = () =>
  house.kafka.admin(async (admin) =>
    (await admin.fetchTopicOffsets(house.topic)).toSorted((a, b) => a.partition - b.partition).map(({ high }) => high),
  )

/** Containers that write, as many as it takes until records come to each partition. */
async function writingToAll(): Promise<Container[]> {
  const before = await ends()
  const containers: Container[] = []
  const moved = (now: string[]) => now.every((high, partition) => high !== before[partition])
  do {
    const print = printed(numberedLines(60_000, 105))
    const container = await house.run({ print, command: paced(2_000) })
    containers.push(container)
    await until('its lines land', () => sizeOf(house.folderOf(container)) > 0)
  } while (!moved(await ends()))
  return containers
}

/** Which broker, by its place, leads most partitions of the topic. */
async function leader(): Promise<number> {
  const { topics } = await house.kafka.admin((admin) => admin.fetchTopicMetadata({ topics: [house.topic] }))
  const leaders = topics[0]!.partitions.map((partition) => partition.leader)
  const count = (id: number) => leaders.filter((leader) => leader === id).length
  return leaders.toSorted((a, b) => count(b) - count(a))[0]! - 1
}

/** Waits until what is printed from now on is in its file, and more of what each of these writes. @returns after how many seconds */
async function flowsAgain(writing: readonly Container[]): Promise<number> {
  const begun = performance.now()
  // What Kafka had before the broker went may land without it.
  const now = await house.run({ print: printed(numberedLines(100, 105)) })
  await house.landed(now)
  const sizes = writing.map((container) => sizeOf(house.folderOf(container)))
  await until('lines of those that write land', () =>
    writing.every((container, i) => {
      const size = sizeOf(house.folderOf(container))
      return size > sizes[i]! || size === house.expectedSize(container)
    }),
  )
  return (performance.now() - begun) / 1000
}

describe('one of three brokers', () => {
  it('is stopped, and answers nobody: its partitions flow again, and all lines land', async () => {
    const before = await writingToAll()
    const [pid] = [(await house.kafka.pids())[await leader()]!]
    process.kill(pid, 'SIGSTOP')
    try {
      expect(await flowsAgain(before)).toBeLessThan(FLOWS_AGAIN_SECONDS)
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    expect(await Promise.all(before.map((container) => container.ended()))).toEqual(before.map(() => 0))
    await house.landed()
  })

  it('is killed: its partitions flow again, and all lines land', async () => {
    const before = await writingToAll()
    const [pid] = [(await house.kafka.pids())[await leader()]!]
    process.kill(pid, 'SIGKILL')
    expect(await flowsAgain(before)).toBeLessThan(FLOWS_AGAIN_SECONDS)
    await house.kafka.start()
    expect(await Promise.all(before.map((container) => container.ended()))).toEqual(before.map(() => 0))
    await house.landed()
  })
})

describe('one of three brokers, of a topic with one replica', () => {
  const PARTITIONS = 3
  let consumer: Consumer
  let folder: string
  const containers: Container[] = []

  /** Runs a container whose lines go to a partition. */
  async function run(partition: number, lines: number, command?: string[]): Promise<Container> {
    const service = 'unreplicated'
    const isThere = (module: string) => partitionOf(recordKey(service, module), PARTITIONS) === partition
    const module = Array.from({ length: 100 }, (_, i) => `m${containers.length}-${i}`).find(isThere)!
    const logOpts = { service, module, 'kafka-topic': `${house.topic}-unreplicated` }
    const print = printed(numberedLines(lines, 105))
    const container = await house.run({ print, service, module, logOpts, ...(command && { command }) })
    containers.push(container)
    return container
  }
  const folderOf = (container: Container) => house.folderOf(container).replace(house.root, join(folder, 'root'))
  const expected = (container: Container) => [{ container: container.name, printed: container.printed }]
  async function landed(...of: Container[]): Promise<void> {
    for (const container of of) {
      await until(
        () => `all lines land; ${difference(folderOf(container), expected(container))}: ${consumer.lastWords}`,
        () => sizeOf(folderOf(container)) >= expectedSize(expected(container)),
      )
      compareModule(folderOf(container), expected(container))
    }
  }
  const leaderless = async () =>
    /^tallyman_partitions_leaderless (\d+)$/m.exec(await (await fetch(`${consumer.url}/metrics`)).text())?.[1]

  beforeAll(async () => {
    const topic = `${house.topic}-unreplicated`
    folder = join(house.folder, 'unreplicated')
    mkdirSync(folder)
    const replicaAssignment = Array.from({ length: PARTITIONS }, (_, i) => ({ partition: i, replicas: [i + 1] }))
    const configEntries = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }]
    await house.kafka.admin((admin) => admin.createTopics({ topics: [{ topic, replicaAssignment, configEntries }] }))
    consumer = await Consumer.create(
      {
        ...{ KAFKA_BROKERS: house.kafka.brokers.join(), KAFKA_TOPIC: topic, KAFKA_GROUP: topic },
        ...{ KAFKA_PARTITIONS: String(PARTITIONS), KAFKA_REPLICATION: '1', MIN_FREE: '1m' },
        ...{ ROOT: join(folder, 'root'), TZ_FILES: 'UTC', LOG_LEVEL: 'info' },
      },
      join(folder, 'log'),
    )
    await consumer.start()
  })
  afterAll(async () => {
    for (const container of containers) await house.forget(container)
    await consumer?.stop()
  })

  it('is killed: the partitions of the others flow on, also for a consumer that starts, and when it is back all lands, once', async () => {
    const before = await Promise.all(Array.from({ length: PARTITIONS }, (_, i) => run(i, 100_000, paced(10_000))))
    await until('some lines of each have landed', () => before.every((each) => sizeOf(folderOf(each)) > 100_000))
    const gone = 1
    const others = [0, 2]
    process.kill((await house.kafka.pids())[gone]!, 'SIGKILL')
    const begun = performance.now()
    await landed(...(await Promise.all(others.map((partition) => run(partition, 100)))))
    expect((performance.now() - begun) / 1000).toBeLessThan(FLOWS_AGAIN_SECONDS)
    await until('the partition is known to have no leader', async () => (await leaderless()) === '1')
    await landed(...others.map((partition) => before[partition]!))

    // Printed while nobody takes them, by a run that begins then.
    const late = await run(gone, 1_000)
    await consumer.kill()
    await consumer.start()
    await landed(...(await Promise.all(others.map((partition) => run(partition, 100)))))

    await house.kafka.start()
    await landed(...before, late)
    await until('all partitions are read', async () => (await leaderless()) === '0')
  })
})

it('leaders of its partitions are moved to other brokers: they flow again, and all lines land', async () => {
  const before = await writingToAll()
  const topics = [house.topic]
  const partitions = () =>
    house.kafka.admin(async (admin) => (await admin.fetchTopicMetadata({ topics })).topics[0]!.partitions)
  const led = new Map((await partitions()).map(({ partitionId, leader }) => [partitionId, leader]))
  const partitionAssignment = [...led].map(([partition, leader]) => ({
    partition,
    replicas: [1, 2, 3].filter((id) => id !== leader),
  }))
  await house.kafka.admin((admin) =>
    admin.alterPartitionReassignments({ topics: [{ topic: house.topic, partitionAssignment }] }),
  )
  await until('other brokers lead', async () =>
    (await partitions()).every(({ partitionId, leader }) => leader > 0 && leader !== led.get(partitionId)),
  )
  expect(await flowsAgain(before)).toBeLessThan(FLOWS_AGAIN_SECONDS)
  expect(await Promise.all(before.map((container) => container.ended()))).toEqual(before.map(() => 0))
  await house.landed()
})

it('all brokers take connections and never answer: Docker does not notice, and all lines land afterwards', async () => {
  const before = await writing(40_000)
  const pids = await house.kafka.pids()
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  try {
    expect(await delay(house)).toBeLessThan(MOST_DELAY)
    expect(await before.ended()).toBe(0)
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT')
  }
  await house.landed()
})

it('all brokers are away while a container prints on, and come back: all lines land', async () => {
  // Two sources: as long as it prints at 5,000 lines/s, Kafka is away.
  const lines = numberedLines(inSoak(15_000, 750_000), 105)
  await house.kafka.stop()
  const writer = await house.run({ print: printed(lines, lines), command: paced(5_000) })
  expect(await writer.ended()).toBe(0)
  await house.kafka.start()
  await house.landed(writer)
})

it('partitions are added to the topic: what is started then lands, on whichever of them', async () => {
  await house.kafka.admin((admin) => admin.createPartitions({ topicPartitions: [{ topic: house.topic, count: 12 }] }))
  const begun = performance.now()
  await until('the consumer reads all of them', async () => {
    const metrics = await (await fetch(`${house.consumer.url}/metrics`)).text()
    return metrics.match(/^tallyman_lag_records\{partition="\d+"\}/gm)?.length === 12
  })
  expect((performance.now() - begun) / 1000).toBeLessThan(NOTICED_SECONDS)
  const containers = await Promise.all(
    Array.from({ length: 8 }, () => house.run({ print: printed(numberedLines(100, 105)) })),
  )
  await house.landed(...containers)
})

it.each([
  ['fewer', 2],
  ['more', 5],
])(
  'the topic is deleted and comes back with %s partitions: what is printed from then on lands, once',
  async (_, partitions) => {
    await until('every record is claimed', async () => (await house.kafka.unclaimed(house.topic, house.topic)) === 0)
    const configEntries = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }]
    await house.kafka.admin((admin) => admin.deleteTopics({ topics: [house.topic] }))
    await until('it is gone', () =>
      house.kafka.admin(async (admin) => !(await admin.listTopics()).includes(house.topic)),
    )
    const meanwhile = await house.run({ print: printed(numberedLines(1_000, 105)) })
    expect(await meanwhile.ended()).toBe(0)
    const topic = { topic: house.topic, numPartitions: partitions, replicationFactor: 2, configEntries }
    await house.kafka.admin((admin) => admin.createTopics({ topics: [topic] }))
    const after = await Promise.all(
      Array.from({ length: 6 }, () => house.run({ print: printed(numberedLines(1_000, 105)) })),
    )
    await house.landed(meanwhile, ...after)
  },
)

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
