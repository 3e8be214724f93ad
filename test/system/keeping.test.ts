/** What becomes of files that nobody writes any more, of a disk that fills up, and of records that can't be decoded. */
import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf } from '../support/chunk.ts'
import { Consumer } from '../support/consumer.ts'
import { command } from '../support/engine.ts'
import { FailingDisk } from '../support/failing-disk.ts'
import { FedTopic } from '../support/fed-topic.ts'
import { Kafka } from '../support/kafka.ts'
import { filesOf } from '../support/landing.ts'
import { meaningOf } from '../support/reindexing.ts'
import { Tallyman, tallyman } from '../support/tallyman.ts'
import { until } from '../support/until.ts'

const DAY_MS = 86_400_000
const YESTERDAY = Date.now() - DAY_MS
const DAY = new Date(YESTERDAY).toISOString().slice(0, 10)
const SMALL_DISK_BYTES = 64 * 1024 * 1024

const stack = new AsyncDisposableStack()
let folder: string
let kafka: Kafka
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tallyman-keeping-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  kafka = stack.use(await Kafka.start('keeping'))
})
afterAll(() => stack.disposeAsync())

/** A consumer of a topic of its own, which is there once it has started. */
async function consumerOf(topic: string, root: string, differing: Record<string, string> = {}): Promise<Consumer> {
  const settings = {
    ...{ KAFKA_BROKERS: kafka.brokers.join(), KAFKA_TOPIC: topic, KAFKA_GROUP: topic, ROOT: root },
    ...{ KAFKA_PARTITIONS: '2', KAFKA_REPLICATION: '1', MIN_FREE: '1m', ...differing },
  }
  return Consumer.create(settings, join(folder, `${topic}.log`))
}

async function ask<T>(consumer: Consumer, path: string, init?: RequestInit): Promise<T> {
  return (await fetch(`${consumer.url}/api/v1/${path}`, init)).json() as Promise<T>
}

const landed = (consumer: Consumer, lines: number): Promise<unknown> =>
  until(`${lines} lines have landed`, async () => {
    const { total } = await ask<{ total: { written: number } }>(consumer, 'ledger')
    return total.written === lines
  })

const problemsOf = async (consumer: Consumer): Promise<unknown[]> =>
  (await ask<{ problems: unknown[] }>(consumer, 'verify')).problems

const execute = promisify(execFile)

/** A reader of a module's folder that is not ours. @returns undefined when it has to look again, which it knows by itself */
async function readBy(reader: 'zstdcat' | 'rg', module: string): Promise<string | undefined> {
  const names = readdirSync(module)
  // The moment between two calls of the kernel, in which a file has both of its names.
  if (names.some((name) => names.includes(`${name}.zst`))) return undefined
  const files = names.map((name) => join(module, name))
  const [file, ...args] =
    reader === 'rg' ? ['rg', '-z', '-a', '-N', '--no-filename', '', module] : ['zstdcat', '-f', ...files]
  try {
    return (await execute(file!, args, { maxBuffer: 64 * 1024 * 1024, encoding: 'latin1' })).stdout
  } catch (error) {
    // It had a file's name from before the file was compressed, and says so.
    if (/No such file|can't stat/.test((error as { stderr: string }).stderr)) return undefined
    throw error
  }
}

it('SIGKILLed while it compresses: zstdcat and rg find each line once all the time', async () => {
  const root = join(folder, 'compressed')
  await using consumer = await consumerOf('compressed', root, { COMPRESS: 'none', COMPRESS_AFTER: '0s' })
  await consumer.start()
  const topic = new FedTopic(kafka, 'compressed', 2, 60)
  for (let i = 0; i < 15; i++) await topic.feed(100, YESTERDAY)
  await landed(consumer, topic.lines)
  await consumer.stop()
  const modules = readdirSync(join(root, 'fed')).map((name) => join(root, 'fed', name))
  const plain = new Map(modules.map((module) => [module, readFileSync(join(module, `${DAY}.log`), 'latin1')]))

  let reading = true
  let reads = 0
  const readers = (['zstdcat', 'rg'] as const).map(async (reader) => {
    for (let i = 0; reading; i++) {
      const module = modules[i % modules.length]!
      const text = await readBy(reader, module)
      if (text === undefined) continue
      reads++
      expect(text === plain.get(module), `${reader} ${module}: ${text.length} bytes`).toBe(true)
    }
  })
  const compressed = () => modules.filter((module) => readdirSync(module).includes(`${DAY}.log.zst`)).length
  try {
    for (const target of [3, 12, 25, 40]) {
      consumer.start({ COMPRESS: 'zst' }).catch(() => {})
      await until(`${target} files are compressed. It said:\n${consumer.lastWords}`, () => compressed() >= target)
      await consumer.kill()
    }
    await consumer.start()
    await until('all files are compressed', () => compressed() === modules.length)
    await until('readers have seen that', () => reads > 2 * modules.length)
  } finally {
    reading = false
    await Promise.all(readers)
  }
  for (const module of modules) expect(readdirSync(module)).toEqual([`${DAY}.log.zst`])
  expect(await problemsOf(consumer)).toEqual([])

  await topic.feed(1, YESTERDAY)
  await landed(consumer, topic.lines)
  const segments = readdirSync(modules[0]!).filter((name) => !name.startsWith(`${DAY}.log`))
  expect(segments).toEqual([expect.stringMatching(/\.1\.log/)])
  expect(await readBy('zstdcat', modules[0]!)).toContain(plain.get(modules[0]!)!)

  await topic.feed(1)
  await landed(consumer, topic.lines)
  await consumer.stop()
  await consumer.start({ KEEP_BYTES: '1' })
  await until('yesterday is removed', () => modules.every((module) => !readdirSync(module).join().includes(DAY)))
  const { problems, removed, total } = await ask<{ problems: unknown[]; removed: number; total: { written: number } }>(
    consumer,
    'verify',
  )
  expect(problems).toEqual([])
  expect({ removed, written: total.written }).toEqual({ removed: 90_060, written: 60 })
})

it('an index that somebody damaged is mended from the files, then from Kafka, SIGKILLed or not', async () => {
  const root = join(folder, 'reindexed')
  const days = [2, 1, 0].map((days) => new Date(Date.now() - days * DAY_MS).toISOString().slice(0, 10))
  const settings = { COMPRESS: 'none', COMPRESS_AFTER: '0s' }
  await using consumer = await consumerOf('reindexed', root, settings)
  await consumer.start()
  const topic = new FedTopic(kafka, 'reindexed', 2, 8)
  for (let i = 0; i < 30; i++) {
    await topic.feed(40, Date.now() - (i % 3) * DAY_MS)
    if (i % 5 === 4) await landed(consumer, topic.lines)
  }
  await consumer.stop()
  const pathOf = (day: string) => join(root, '.tallyman/index', day)
  const index = () => days.map((day) => meaningOf(root, day, statSync(pathOf(day)).size))
  const before = index()
  expect(before.flat().reduce((sum, { lines }) => sum + lines, 0)).toBe(topic.lines)
  await consumer.start({ COMPRESS: 'zst' })
  const stored = () =>
    readdirSync(root, { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.log/.test(name))
      .sort()
  await until('days that are over are compressed', () => stored().filter((name) => name.endsWith('.zst')).length === 16)
  await consumer.stop()

  const damage = () => {
    rmSync(pathOf(days[0]!), { force: true })
    truncateSync(pathOf(days[1]!), Math.floor(statSync(pathOf(days[1]!)).size / 2))
    const bytes = readFileSync(pathOf(days[2]!))
    for (let at = 200; at < bytes.length; at += 700) bytes[at]! ^= 0x55
    writeFileSync(pathOf(days[2]!), bytes)
  }
  damage()
  await consumer.start()
  await until('all of it is mended from the files', async () => (await problemsOf(consumer)).length === 0)
  expect(readFileSync(join(folder, 'reindexed.log'), 'utf8').match(/"code":"INDEX_DAMAGED"/g)).toHaveLength(3)
  const options = { url: consumer.url }
  const grep = async (pattern: string) => (await tallyman(options, 'grep', '-c', pattern, 'fed/m3')).stdout
  const found = await grep('^m3 ')
  expect(found).toBe(`${topic.lines / 8}\n`)
  const { rebuilt } = await ask<{ rebuilt: number }>(consumer, 'verify')
  expect(rebuilt).toBeGreaterThan(0)

  for (let i = 0; i < 3; i++) {
    await using command = Tallyman.start(options, 'reindex')
    await until(
      'it has begun',
      () => existsSync(join(root, '.tallyman/reindexing', days[1]!)) || command.process.exitCode !== null,
    )
    await consumer.kill()
    await command.ended()
    damage()
    await consumer.start()
  }
  // It goes on while lines land.
  const feeding = topic.feed(40)
  const { code, stdout, stderr } = await tallyman(options, 'reindex')
  await feeding
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  for (const day of days) expect(stdout).toContain(day)
  await landed(consumer, topic.lines)
  expect(await ask(consumer, 'verify')).toMatchObject({ problems: [], rebuilt: 0, total: { lost: 0 } })
  expect(await tallyman(options, 'reindex')).toMatchObject({
    code: 0,
    stderr: 'tallyman: the index of all 3 days is whole\n',
  })
  expect(await grep('^m3 ')).toBe(`${topic.lines / 8}\n`)
  await consumer.stop()
  expect(index().slice(0, 2)).toEqual(before.slice(0, 2))
  // With the lines that came since.
  const files = (rows: (typeof before)[number]) =>
    rows.map(({ file, position, run, names }) => ({ file, position, run, names }))
  expect(files(index()[2]!)).toEqual(files(before[2]!))
  expect(topic.wrong([root]).doubled).toEqual([])
})

it('a disk that is nearly full: it pauses, says so, and goes on by itself', async () => {
  const root = join(folder, 'small')
  await command('mkdir', root)
  await command('mount', '-t', 'tmpfs', '-o', `size=${SMALL_DISK_BYTES}`, 'tallyman-test', root)
  stack.defer(() => void command('umount', '-l', root))
  await using consumer = await consumerOf('small', root, { MIN_FREE: '32m' })
  await consumer.start()
  const topic = new FedTopic(kafka, 'small', 2, 4)
  await topic.feed(100)
  await landed(consumer, topic.lines)
  writeFileSync(join(root, 'somebody-elses'), Buffer.alloc(SMALL_DISK_BYTES * 0.6))
  const before = topic.lines
  await topic.feed(100)
  const reason = await until('it says why it pauses', async () => {
    const answer = await fetch(`${consumer.url}/readyz`)
    return answer.status === 503 && ((await answer.json()) as { reason: string }).reason
  })
  expect(reason).toMatch(/MIN_FREE keeps 33554432/)
  expect(await (await fetch(`${consumer.url}/metrics`)).text()).toContain('tallyman_disk_paused 1')
  const { total } = await ask<{ total: { written: number } }>(consumer, 'ledger')
  expect(total.written).toBe(before)
  // It ends in good order, too.
  expect(await consumer.stop()).toBe(0)
  const starting = consumer.start()
  await until('it pauses again', async () => (await fetch(`${consumer.url}/readyz`)).status === 503)
  rmSync(join(root, 'somebody-elses'))
  await starting
  await landed(consumer, topic.lines)
  expect(topic.wrong([root])).toEqual({ lost: [], doubled: [] })
})

describe('a disk that', () => {
  /** A consumer whose root is on such a disk, and another one of all the same lines, which is not disturbed. */
  async function consumers(topic: string, onError: 'continue' | 'remount-ro') {
    const stack = new AsyncDisposableStack()
    const [root, calmRoot] = [join(folder, topic), join(folder, `${topic}-calm`)]
    const disk = stack.use(await FailingDisk.mount(root, onError))
    const consumer = stack.use(await consumerOf(topic, root))
    await consumer.start()
    const calm = stack.use(await consumerOf(topic, calmRoot, { KAFKA_GROUP: `${topic}-calm` }))
    await calm.start()
    const fed = new FedTopic(kafka, topic, 2, 4)
    await fed.feed(100)
    await landed(consumer, fed.lines)
    return {
      ...{ disk, consumer, fed },
      /** Waits until the consumer says that it lands nothing. @returns why */
      reason: () =>
        until('it says why it lands nothing', async () => {
          const answer = await fetch(`${consumer.url}/readyz`)
          return answer.status === 503 && ((await answer.json()) as { reason: string }).reason
        }),
      /** All lines land, and stand on the disk itself as they do where nothing was amiss. */
      async whole(): Promise<void> {
        await fed.feed(100)
        for (const each of [consumer, calm]) await landed(each, fed.lines)
        expect(await problemsOf(consumer)).toEqual([])
        expect(await consumer.stop()).toBe(0)
        await disk.remount()
        const [files, calmFiles] = [filesOf(root), filesOf(calmRoot)]
        expect(Object.keys(files)).toEqual(Object.keys(calmFiles))
        for (const [file, text] of Object.entries(calmFiles)) expect(files[file] === text, file).toBe(true)
      },
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    }
  }

  it('loses what it took, and takes bytes again: what was not durable is written again, and nothing else', async () => {
    await using house = await consumers('thin', 'continue')
    const { disk, consumer, fed, reason } = house
    disk.refuse()
    await fed.feed(1_000)
    expect(await reason()).toMatch(/i\/o error/)
    expect(consumer.running).toBe(true)
    disk.relent()
    await until('it ends, to go on from its checkpoint', () => !consumer.running)
    expect(consumer.lastWords).toContain('DISK_REFUSED')
    await consumer.start()
    await house.whole()
  })

  it('is read-only all of a sudden: it says so, ends when it is told to, and goes on once the disk is mended', async () => {
    await using house = await consumers('damaged', 'remount-ro')
    const { disk, consumer, fed, reason } = house
    disk.damage()
    await until('it is read-only', () => disk.isReadOnly)
    for (let i = 0; i < 4; i++) await fed.feed(1_000)
    expect(await reason()).toMatch(/read-only file system|i\/o error/)
    expect(await consumer.stop()).toBe(1)
    await disk.remount()
    await consumer.start()
    await house.whole()
  })
})

it('a record that can be decoded by now is replayed, and what it left as lost is taken back', async () => {
  const root = join(folder, 'letters')
  await using consumer = await consumerOf('letters', root, {})
  await consumer.start()
  const record = (first: number) =>
    new ChunkEncoder()
      .encode(
        chunkOf({
          ...{ run: 'ab'.repeat(16), service: 'shop', module: 'web', host: 'h', attrs: {}, first: [first, 1] },
          container: { id: 'c', name: 'web-1', image: 'i' },
          lines: [
            { source: 'stdout', number: first, time: String(BigInt(Date.now()) * 1_000_000n), text: `line ${first}` },
          ],
        }),
      )
      .slice()
  const values = [record(1), Buffer.from('what a newer driver wrote'), record(3)]
  await kafka.produce(
    'letters',
    values.map((value) => ({ partition: 1, key: 'shop/web', value })),
  )
  await landed(consumer, 2)
  const { letters } = await ask<{ letters: { name: string }[] }>(consumer, 'dead-letters')
  expect(letters).toMatchObject([{ name: 'letters-1-1', partition: 1, offset: 1, reason: 'not-msgpack' }])
  const replay = () => ask(consumer, 'dead-letters/replay', { method: 'POST', headers, body: '{}' })
  const headers = { 'content-type': 'application/json' }
  expect(await replay()).toMatchObject({ replayed: [], failed: [{ name: 'letters-1-1' }] })
  // In place of a version that can read it.
  writeFileSync(join(root, '.tallyman/dead-letters/letters-1-1.value'), record(2))
  expect(await replay()).toMatchObject({ replayed: [{ name: 'letters-1-1', lines: 1 }], failed: [] })
  await landed(consumer, 3)
  expect(await ask(consumer, 'ledger')).toMatchObject({ total: { written: 3, lost: 0 } })
  expect(await ask(consumer, 'dead-letters')).toMatchObject({ letters: [] })
  const text = readFileSync(join(root, `shop/web/${new Date().toISOString().slice(0, 10)}.log`), 'utf8')
  expect(text.match(/line \d/g)).toEqual(['line 1', 'line 3', 'line 2'])
})
