/** Input that nobody should send: each gets a clear answer or is set aside, and everything else goes on. */
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { basename, join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf } from '../support/chunk.ts'
import { AWAITING_GO, type Container } from '../support/container.ts'
import { removeContainer } from '../support/engine.ts'
import { FED_NAME, feedRun, JOURNAL, startRequest } from '../support/fed-run.ts'
import { HostDriver } from '../support/host-driver.ts'
import { type House, startHouse } from '../support/house.ts'
import { frame } from '../support/log-entry.ts'
import { compareModule, dayFiles } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { until } from '../support/until.ts'

const GARBAGE = { service: 'garbage', module: 'fifo' }

let house: House
beforeAll(async () => {
  house = await startHouse('garbage')
})
afterAll(() => house?.[Symbol.asyncDispose]())

describe('the plugin’s socket', () => {
  afterEach(async () => {
    const container = await house.run({ print: printed('still here\n') })
    await house.landed(container)
  })

  it.each([
    ['no body', ''],
    ['bytes that are no JSON', Buffer.from([0xff, 0x00, 0x7b, 0x0a])],
    ['half of a JSON', '{"File": "/run/docker/'],
    ['null', 'null'],
    ['a list', '[]'],
    ['a File that is a number', '{"File": 7, "Info": {}}'],
    ['no File', '{"Info": {"Config": {}}}'],
    ['no Info', `{"File": "${JOURNAL}/x"}`],
    ['a Config that is a list', `{"File": "${JOURNAL}/x", "Info": {"Config": ["service"]}}`],
    ['a million brackets', '['.repeat(1_000_000)],
  ])('StartLogging with %s is refused in words', async (_, body) => {
    const { status, body: answer } = await house.plugin.post('LogDriver.StartLogging', body)
    expect(status).toBeGreaterThanOrEqual(400)
    expect(answer.Err).toMatch(/StartLogging/)
  })

  it.each([
    ['is missing', `${JOURNAL}/nobody-made-this`],
    ['is a folder', JOURNAL],
    ['is a plain file', `${JOURNAL}/plain`],
    ['is a file of the plugin’s own', '/driver/main.js'],
    ['leads out of the folder of FIFOs', `${JOURNAL}/../../../etc`],
  ])('StartLogging with a File that %s is refused in words', async (_, file) => {
    const plain = join(house.plugin.journal, 'plain')
    writeFileSync(plain, 'keep me')
    const { status, body } = await house.plugin.post('LogDriver.StartLogging', startRequest(file, GARBAGE))
    expect(status).toBeGreaterThanOrEqual(400)
    expect(body.Err).toMatch(/FIFO/)
    expect(readFileSync(plain, 'utf8')).toBe('keep me')
  })

  it.each([
    ['no body', ''],
    ['no JSON', 'garbage'],
    ['a File that is a number', '{"File": 7}'],
    ['a File that nobody started', `{"File": "${JOURNAL}/nobody-started-this"}`],
  ])('StopLogging with %s is answered without an error, or dockerd would keep the plugin in use', async (_, body) => {
    expect(await house.plugin.post('LogDriver.StopLogging', body)).toEqual({ status: 200, body: { Err: '' } })
  })

  it('an endpoint that is none is answered with 404 and words', async () => {
    const { status, body } = await house.plugin.post('LogDriver.Nonsense', '{}')
    expect(status).toBe(404)
    expect(body.Err).toMatch(/Nonsense/)
  })

  it('a client that goes away in the middle of its request', async () => {
    const asking = request({ socketPath: house.plugin.socket, path: '/LogDriver.StartLogging', method: 'POST' })
    const failed = new Promise((resolve) => asking.once('error', resolve))
    asking.setHeader('Content-Length', 1_000_000)
    asking.write('{"File"', () => asking.destroy(new Error('gone')))
    expect(await failed).toMatchObject({ message: 'gone' })
  })
})

it('a FIFO with garbage between its frames: the lines around it land', async () => {
  const time = BigInt(Date.now()) * 1_000_000n
  const line = (text: string) => frame({ source: 'stdout', time, line: Buffer.from(text) })
  const tooLong = Buffer.from([0xff, 0xff, 0xff, 0xff])
  const garbage = [line('before'), randomBytes(3000), line('between'), tooLong, randomBytes(10), line('after')]
  await feedRun(house.plugin, GARBAGE, garbage)
  const folder = join(house.root, 'garbage', 'fifo')
  const texts = await until('the last line lands', () => {
    const lines = dayFiles(folder).flatMap((file) => readFileSync(file, 'utf8').trimEnd().split('\n'))
    return lines.at(-1)?.endsWith(' after') && lines.map((text) => text.slice(25))
  })
  expect(texts).toEqual(['by-hand before', 'by-hand between', 'by-hand after'])
})

it('hosts whose clocks are two hours ahead and nine days behind: each line lands, with its own time', async () => {
  const now = Date.now()
  const hours = (count: number) => count * 3_600_000
  for (const [module, offset] of [
    ['ahead', hours(2)],
    ['behind', -hours(9 * 24)],
  ] as const) {
    const time = new Date(now + offset)
    const line = frame({ source: 'stdout', time: BigInt(time.getTime()) * 1_000_000n, line: Buffer.from('a line') })
    await feedRun(house.plugin, { service: 'clock', module }, [line])
    const folder = join(house.root, 'clock', module)
    const [file] = await until(`a line ${module} lands`, () => {
      const files = dayFiles(folder)
      return files.length > 0 && readFileSync(files[0]!).length > 0 && files
    })
    expect(readFileSync(file!, 'utf8')).toBe(`${time.toISOString()} ${FED_NAME} a line\n`)
    // What is older than what is kept stands with the day of its arrival, which midnight may end meanwhile.
    const days = module === 'ahead' ? [time] : [new Date(now), new Date()]
    expect(days.map((day) => `${day.toISOString().slice(0, 10)}.log`)).toContain(basename(file!))
  }
})

it('a driver whose clock is two hours ahead, then nine days behind, then right: containers start, run and stop, each line lands', async () => {
  const settings = { KAFKA_BROKERS: house.kafka.brokers.join(), KAFKA_TOPIC: house.topic, METRICS_ADDR: 'off' }
  const [ahead, behind] = [2 * 3_600_000, -9 * 24 * 3_600_000]
  const driver = await HostDriver.start(`${house.id}-clock`, join(house.folder, 'clock'), settings, ahead)
  try {
    const logDriver = driver.name
    const print = () => printed(numberedLines(1_000, 105))
    const throughout = await house.run({ print: print(), logDriver, command: AWAITING_GO })
    const others: Container[] = []
    for (const offset of [ahead, behind, 0]) {
      driver.setClock(offset)
      const command = ['sh', '-c', 'cat /in/stdout; exec sleep 600']
      const container = await house.run({ print: print(), logDriver, command })
      await house.landed(container)
      expect(await container.stop(0)).toBeLessThan(4)
      others.push(container)
    }
    throughout.go()
    expect(await throughout.ended()).toBe(0)
    await house.landed(throughout, ...others)
    const times = driver.log.match(/(?<="time":)\d+/g)!.map(Number)
    expect(Math.max(...times) - Date.now()).toBeGreaterThan(ahead / 2)
    expect(driver.log).not.toMatch(/"level":[4-6]0/)
    for (const container of [throughout, ...others]) await removeContainer(container.id)
  } finally {
    await driver[Symbol.asyncDispose]()
  }
})

it('a journal with foreign files in it: the driver starts, and says where it put them', async () => {
  const runs = join(house.plugin.journal, 'runs')
  await house.plugin.disable()
  const foreign = randomUUID()
  mkdirSync(join(runs, foreign), { recursive: true })
  writeFileSync(join(runs, foreign, 'run.json'), '{"v": 1, "file": ')
  mkdirSync(join(runs, 'not-a-run'))
  writeFileSync(join(runs, 'not-a-run', '0000000000000000.segment'), randomBytes(1000))
  writeFileSync(join(runs, 'a-file'), 'neither')
  await house.plugin.enable()
  await house.plugin.answers()
  const container = await house.run({ print: printed('after the foreign files\n') })
  await house.landed(container)
  const aside = readdirSync(join(house.plugin.journal, 'set-aside'))
  expect(aside.some((name) => name.startsWith(foreign))).toBe(true)
  expect(aside.some((name) => name.startsWith('not-a-run'))).toBe(true)
})

it('records that are no chunks: each is kept as a dead letter, and the next one is processed', async () => {
  const valid = (text: string) =>
    new ChunkEncoder()
      .encode(
        chunkOf({
          run: randomBytes(16).toString('hex'),
          service: 'after',
          module: 'garbage',
          host: 'h',
          container: { id: 'i', name: 'c', image: 'g' },
          attrs: {},
          first: [1, 1],
          lines: [{ source: 'stdout', number: 1, time: `${Date.now()}000000`, text }],
          end: [1, 0],
        }),
      )
      .slice()
  const inflated = Buffer.from(valid('version 2'))
  inflated[inflated.indexOf('\xa1v', 0, 'latin1') + 2] = 2
  const garbage = [Buffer.from('not MessagePack'), Buffer.alloc(0), randomBytes(100_000), inflated]
  const records = [...garbage, valid('the next one')].map((value) => ({ partition: 1, key: 'garbage', value }))
  await house.kafka.produce(house.topic, records)
  const folder = join(house.root, 'after', 'garbage')
  await until('the next one lands', () => dayFiles(folder).length > 0)
  await until('it is whole', () => {
    compareModule(folder, [{ container: 'c', printed: printed('the next one\n') }])
    return true
  })
  const letters = join(house.root, '.tallyman', 'dead-letters')
  const about = readdirSync(letters)
    .filter((name) => name.endsWith('.json'))
    .map((name) => JSON.parse(readFileSync(join(letters, name), 'utf8')))
  expect(about).toHaveLength(garbage.length)
  for (const letter of about) {
    expect(letter).toMatchObject({ topic: house.topic, partition: 1, offset: expect.any(String) })
    expect(letter.reason).toMatch(/^(not-msgpack|unknown-version|invalid-chunk)$/)
    expect(letter.message).not.toBe('')
  }
  const kept = readdirSync(letters)
    .filter((name) => name.endsWith('.value'))
    .map((name) => readFileSync(join(letters, name)))
  for (const bytes of garbage) expect(kept.some((value) => value.equals(bytes))).toBe(true)
})

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
