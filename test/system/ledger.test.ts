/** The ledger and `tallyman verify`, over the real way: what they say of lines that land, are lost, and of files that somebody changes. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CompressionTypes } from 'kafkajs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { LedgerAnswer, RunRow } from '../../consumer/api-schema.ts'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf } from '../support/chunk.ts'
import { type Container, paced } from '../support/container.ts'
import { type House, startHouse } from '../support/house.ts'
import { dayFiles } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { tallyman as runTallyman } from '../support/tallyman.ts'
import { until } from '../support/until.ts'

let house: House
beforeAll(async () => {
  house = await startHouse('ledger')
})
afterAll(() => house?.[Symbol.asyncDispose]())

const tallyman = (...args: string[]) => runTallyman({ url: house.consumer.url }, ...args)

const ledger = async (query: string): Promise<LedgerAnswer> =>
  (await fetch(`${house.consumer.url}/api/v1/ledger?${query}`)).json() as Promise<LedgerAnswer>

const run = (lines: number): Promise<Container> => house.run({ print: printed(numberedLines(lines, 105)) })
const fileOf = (container: Container): string => dayFiles(house.folderOf(container))[0]!

/** Waits until the checkpoint covers a container's lines, which is what verify goes by. */
const checked = (container: Container, lines: number) =>
  until(`the checkpoint covers the lines of ${container.name}`, async () => {
    const { stdout } = await tallyman('verify', '--module', container.name, '--json')
    return JSON.parse(stdout).total.written === lines
  })

it('lines that land are counted by service, module, day, host and run, and the files agree', async () => {
  const container = await run(20_000)
  await house.landed(container)
  await checked(container, 20_000)
  const { total, rows } = await ledger(`module=${container.name}`)
  expect(total).toMatchObject({ lines: 20_000, written: 20_000, lost: 0, ratio: 0 })
  expect(rows).toEqual([expect.objectContaining({ service: house.id, module: container.name, lines: 20_000 })])
  const { rows: runs } = await ledger(`by=run&module=${container.name}`)
  expect(runs).toEqual([expect.objectContaining({ container: container.name, state: 'ended' })])
  const { code, stdout } = await tallyman('verify')
  expect(stdout).toContain('0 of 20,000 lines lost')
  expect(code).toBe(0)
  expect((await tallyman('ledger')).stdout).toContain(container.name)
})

it('a consumer that was killed counts as one that was not', async () => {
  const container = await run(100_000)
  await until('some lines land', () => dayFiles(house.folderOf(container)).length > 0)
  await house.consumer.kill()
  await house.consumer.start()
  await house.landed(container)
  await checked(container, 100_000)
  expect((await tallyman('verify', '--max-loss', '0')).code).toBe(0)
})

it('a line deleted by hand, a byte changed and a file cut short are found, each with its run and numbers', async () => {
  const containers = await Promise.all([1_000, 1_000, 1_000].map(run))
  await house.landed(...containers)
  for (const container of containers) await checked(container, 1_000)
  const [deleted, changed, cut] = containers.map(fileOf) as [string, string, string]
  const text = (file: string) => readFileSync(file, 'latin1')
  writeFileSync(deleted, text(deleted).replace(/.* line 500 .*\n/, ''), 'latin1')
  writeFileSync(changed, text(changed).replace(' line 500 .', ' line 500 ,'), 'latin1')
  truncateSync(cut, text(cut).length - 1)
  for (const [i, what] of ['short', 'changed', 'short'].entries()) {
    const { code, stdout } = await tallyman('verify', '--module', containers[i]!.name, '--json')
    expect(code).toBe(1)
    const { problems } = JSON.parse(stdout)
    const { rows } = await ledger(`by=run&module=${containers[i]!.name}`)
    const { run } = (rows as RunRow[])[0]!
    expect(problems).toEqual([expect.objectContaining({ run })])
    expect(['short', 'changed']).toContain(problems[0].what)
    if (what === 'changed') expect(problems[0].numbers[0][0]).toBeLessThanOrEqual(500)
    expect((await tallyman('verify', '--module', containers[i]!.name)).stdout).toContain(run)
    await house.forget(containers[i]!)
  }
})

it('a gap in Kafka is found, with run and range, until a late copy fills it', async () => {
  const line = (from: number, to: number) => ({
    partition: 0,
    key: 'x',
    value: new ChunkEncoder()
      .encode(
        chunkOf({
          ...{ run: 'ab'.repeat(16), service: 'gap', module: 'm', host: 'h', attrs: {}, first: [from, 1] },
          container: { id: 'c', name: 'gapped', image: 'i' },
          lines: Array.from({ length: to - from + 1 }, (_, i) => ({
            ...{ source: 'stdout' as const, number: from + i, time: `${Date.now()}000000`, text: `line ${from + i}` },
          })),
        }),
      )
      .slice(),
  })
  await house.kafka.produce(house.topic, [line(1, 5), line(9, 10)])
  const { stdout } = await until('the gap is found', async () => {
    const answer = await tallyman('verify', '--service', 'gap')
    return answer.code === 1 && answer
  })
  expect(stdout).toMatch(/gap\/m +h +gapped +(ab){16} +stdout +gap +6 +8 +3/)
  const metrics = await (await fetch(`${house.consumer.url}/metrics`)).text()
  expect(metrics).toContain('tallyman_lines_lost_total{reason="gap"} 3')
  await house.kafka.produce(house.topic, [line(4, 9)])
  await until(
    'the gap is filled',
    async () => (await tallyman('verify', '--service', 'gap', '--max-loss', '0')).code === 0,
  )
})

it('a record that inflates to more than is taken is a dead letter, the next one lands, and verify names what is missing', async () => {
  const record = (first: number, count: number, text: string) => ({
    partition: 0,
    key: 'x',
    value: new ChunkEncoder()
      .encode(
        chunkOf({
          ...{ run: 'cd'.repeat(16), service: 'inflated', module: 'm', host: 'h', attrs: {}, first: [first, 1] },
          container: { id: 'c', name: 'bomb', image: 'i' },
          lines: Array.from({ length: count }, (_, i) => ({
            ...{ source: 'stdout' as const, number: first + i, time: `${Date.now()}000000`, text },
          })),
        }),
      )
      .slice(),
  })
  // Seventeen megabytes, of which sixteen would be taken; in Kafka they are a few kilobytes.
  const records = [record(1, 17, 'x'.repeat(2 ** 20)), record(18, 1, 'the next one')]
  await house.kafka.produce(house.topic, records, CompressionTypes.GZIP)
  const { stdout } = await until('the gap is found', async () => {
    const answer = await tallyman('verify', '--service', 'inflated')
    return answer.code === 1 && answer
  })
  expect(stdout).toMatch(/inflated\/m +h +bomb +(cd){16} +stdout +gap +1 +17 +17/)
  const lines = dayFiles(join(house.root, 'inflated', 'm')).map((file) => readFileSync(file, 'utf8'))
  expect(lines.join('')).toMatch(/^\S+ bomb the next one\n$/)
  const letters = await tallyman('dead-letters')
  expect(letters.stdout).toMatch(/not-msgpack/)
})

// Behind all others: what is missing of a partition's new runs counts as expired from here on.
it('what Kafka drops before it is read is lost as expired, and told of with its run', async () => {
  const module = 'expiring'
  // Of a partition that nobody has read yet it is not known what was dropped of it.
  const earlier = await house.run({ print: printed('a line\n'), module })
  await house.landed(earlier)
  await house.consumer.stop()
  const shipped = async () => (await house.samples())['tallyman_driver_lines_shipped_total'] ?? 0
  const before = await shipped()
  const container = await house.run({
    print: printed(numberedLines(2_000, 105)),
    command: paced(20_000, 1_000),
    module,
  })
  await until('its first half is in Kafka', async () => (await shipped()) - before >= 1_000)
  await house.kafka.admin(async (admin) => {
    const ends = await admin.fetchTopicOffsets(house.topic)
    const partitions = ends.map(({ partition, high }) => ({ partition, offset: high }))
    await admin.deleteTopicRecords({ topic: house.topic, partitions })
  })
  container.go()
  expect(await container.ended()).toBe(0)
  await house.consumer.start()
  const { total } = await until('its other half lands', async () => {
    const answer = await ledger(`module=${module}`)
    return answer.total.lines === 2_001 && answer
  })
  expect(total).toMatchObject({ written: 1_001, lost: 1_000, lostBy: { expired: 1_000 } })
  // It goes by the checkpoint, which follows.
  await until('verify names them', async () =>
    /stdout +expired +1 +1,?000 +1,?000/.test((await tallyman('verify', '--module', module)).stdout),
  )
  const metrics = await (await fetch(`${house.consumer.url}/metrics`)).text()
  expect(metrics).toContain('tallyman_lines_lost_total{reason="expired"} 1000')
  expect(metrics).toMatch(/^tallyman_records_expired_total [1-9]/m)
  expect(metrics).toContain('tallyman_lines_lost_total{reason="disowned"} 0')
  await house.forget(container)
  await house.forget(earlier)
})

it.each([
  [['verify', '--max-loss', '2'], /share of all lines/],
  [['verify', '--since', 'yesterday'], /must be a day/],
  [['verify', '--since', '2026-02-30'], /must be a day/],
  [['ledger', '--by', 'run'], /Allowed choices are service, module, day, host/],
  [['verfy'], /unknown command.*verify/s],
])('%j is refused in words, with status 2', async (args, message) => {
  const { code, stderr } = await tallyman(...args)
  expect(code).toBe(2)
  expect(stderr).toMatch(message)
})

it('without a consumer the command says where it looked, with status 2', async () => {
  await house.consumer.stop()
  const { code, stderr } = await tallyman('verify')
  expect(code).toBe(2)
  expect(stderr).toContain(`no consumer answers at ${house.consumer.url}`)
})
