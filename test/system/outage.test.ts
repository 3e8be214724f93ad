/** Brokers of three that are killed, stopped or all of them deaf, with two replicas: lines flow again soon, or land afterwards. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Container, paced } from '../support/container.ts'
import { delay, MOST_DELAY } from '../support/delays.ts'
import { type House, startHouse } from '../support/house.ts'
import { sizeOf } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { until } from '../support/until.ts'

/** From the moment that a broker goes, from a container to its file. Kafka takes 9 s to notice one that hangs, longer on a machine that is busy. */
const FLOWS_AGAIN_SECONDS = 20

let house: House
beforeAll(async () => {
  house = await startHouse('outage', { brokers: 3 })
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
