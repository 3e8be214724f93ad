/** The lookup of topics, over clients that answer as Kafka does, and as it does on a bad day. */
import type { Kafka } from 'kafkajs'
import { expect, it } from 'vitest'
import { Topics } from '../../wire/topics.ts'

type Partition = { partitionId: number; leader: number }
type Answer = () => Promise<{ topics: { partitions: Partition[] }[] }>

/** A topic whose partitions have these leaders. */
const led =
  (...leaders: number[]): Answer =>
  async () => ({ topics: [{ partitions: leaders.map((leader, partitionId) => ({ partitionId, leader })) }] })
const answering = (...counts: number[]): Answer => {
  const [count] = counts
  return count === undefined ? async () => ({ topics: [] }) : led(...Array(count).fill(1))
}
const missing: Answer = () => Promise.reject(Object.assign(new Error('x'), { type: 'UNKNOWN_TOPIC_OR_PARTITION' }))
const hanging: Answer = () => new Promise(() => {})

/** A lookup in which each topic's clients answer as told, in turn. */
function lookingUp(answers: Record<string, Answer[]>, attemptTimeout = 60_000) {
  const seen = {
    found: [] as [string, number][],
    leaderless: [] as [string, number[]][],
    failed: [] as [string, string, boolean, number][],
    disconnected: 0,
  }
  const connect = () =>
    ({
      admin: () => ({
        connect: async () => {},
        disconnect: async () => void seen.disconnected++,
        fetchTopicMetadata: ({ topics: [topic] }: { topics: [string] }) => answers[topic]!.shift()!(),
      }),
    }) as unknown as Kafka
  const topics = new Topics(
    connect,
    {
      found: (topic, partitions) => seen.found.push([topic, partitions]),
      leaderless: (topic, partitions) => seen.leaderless.push([topic, [...partitions]]),
      failed: (topic, { message }, missing, attempts) => seen.failed.push([topic, message, missing, attempts]),
    },
    { attemptTimeout, backoff: 1, maxBackoff: 4, forgotten: 1, refresh: 60_000, leaderless: 1 },
  )
  return { topics, seen }
}

it('a topic is looked up until it has partitions, and told of once', async () => {
  const { topics, seen } = lookingUp({ lines: [answering(), answering(0), missing, answering(12)] })
  expect(topics.partitions('lines')).toBeUndefined()
  expect(topics.partitions('lines')).toBeUndefined()
  await expect.poll(() => seen.found).toEqual([['lines', 12]])
  expect(topics.partitions('lines')).toBe(12)
  expect(seen.failed).toEqual([
    ['lines', 'topic lines has no partitions', false, 1],
    ['lines', 'topic lines has no partitions', false, 2],
    ['lines', 'x', true, 3],
  ])
  expect(seen.disconnected).toBe(4)
})

it('a lookup that hangs is given up, and keeps no other topic waiting', async () => {
  const { topics, seen } = lookingUp({ deaf: [hanging, answering(1)], lines: [answering(12)] }, 50)
  topics.partitions('deaf')
  topics.partitions('lines')
  await expect
    .poll(() => seen.found)
    .toEqual([
      ['lines', 12],
      ['deaf', 1],
    ])
  expect(seen.failed).toEqual([['deaf', 'Kafka did not answer within 50 ms', false, 1]])
})

it('a topic that is forgotten is unknown until it is found again', async () => {
  const { topics, seen } = lookingUp({ lines: [answering(12), answering(3)] })
  topics.partitions('lines')
  await expect.poll(() => topics.partitions('lines')).toBe(12)
  topics.forget('lines')
  expect(topics.partitions('lines')).toBeUndefined()
  await expect.poll(() => topics.partitions('lines')).toBe(3)
  expect(seen.found).toEqual([
    ['lines', 12],
    ['lines', 3],
  ])
})

it('a partition without a leader is looked up until it has one, and all others are known meanwhile', async () => {
  const { topics, seen } = lookingUp({ lines: [led(1, -1, 2), led(1, -1, 2), led(1, 3, 2)] })
  const leaderless = () => topics.partitions('lines') === 3 && [...topics.leaderless('lines')]
  await expect.poll(leaderless).toEqual([1])
  await expect.poll(leaderless).toEqual([])
  expect(seen).toMatchObject({
    found: [['lines', 3]],
    leaderless: [
      ['lines', [1]],
      ['lines', []],
    ],
  })
})

it('a partition that takes nothing counts as one without a leader until it is known better, or not to be there any more', async () => {
  const { topics, seen } = lookingUp({ lines: [led(1, 1, 1), led(1, 1, -1), led(1, 1)] })
  await expect.poll(() => topics.partitions('lines')).toBe(3)
  topics.lost('lines', [1, 2])
  expect([...topics.leaderless('lines')]).toEqual([1, 2])
  await expect.poll(() => [...topics.leaderless('lines')]).toEqual([2])
  await expect.poll(() => topics.partitions('lines')).toBe(2)
  expect(seen).toMatchObject({
    found: [['lines', 3]],
    leaderless: [
      ['lines', [1, 2]],
      ['lines', [2]],
      ['lines', []],
    ],
  })
})

it('after a stop nothing is looked up', async () => {
  const { topics } = lookingUp({})
  topics.stop()
  expect(topics.partitions('lines')).toBeUndefined()
  topics.forget('lines')
})
