/** What stands in Kafka, read by others than us; and topics of a container's own, that are there, come late, or are not allowed. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Container } from '../support/container.ts'
import { type House, startHouse } from '../support/house.ts'
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

async function createTopic(topic: string): Promise<void> {
  const configEntries = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }]
  await house.kafka.admin((admin) => admin.createTopics({ topics: [{ topic, numPartitions: 2, configEntries }] }))
}

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
  expect(read).toEqual({ [container.name]: { ...linesOf(AWKWARD), whole: true } })
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
  await createTopic(topic)
  await until('they are shipped', () => house.plugin.shipped)
  const read = await readChunks(house.kafka, topic)
  expect(read).toEqual({ [late.name]: { ...linesOf(AWKWARD), whole: true } })
  await house.forget(late)
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
