/** Kafka is away for so long that the journals are full: what each on-full does then, and that Docker goes on. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Container, paced } from '../support/container.ts'
import { delay, MOST_DELAY } from '../support/delays.ts'
import { type House, startHouse } from '../support/house.ts'
import { dayFiles, sizeOf } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { until } from '../support/until.ts'

const JOURNAL_MAX = 64 * 1024 * 1024
/** dockerd adds some 40 bytes to each: a third more than the journals hold. */
const LINES = 600_000
const BLOCK_MAX_SECONDS = 3
const BLOCKING = { 'on-full': 'block', 'block-max': `${BLOCK_MAX_SECONDS}s` }

let house: House
beforeAll(async () => {
  house = await startHouse('full', { plugin: { JOURNAL_MAX: String(JOURNAL_MAX) } })
})
afterAll(() => house?.[Symbol.asyncDispose]())

const run = (module: string, lines: number, more: Record<string, string> = {}, perSecond?: number) =>
  house.run({
    print: printed(numberedLines(lines, 105)),
    module,
    logOpts: { service: house.id, module, ...more },
    ...(perSecond !== undefined && { command: paced(perSecond) }),
  })

const sample = async (name: string): Promise<number> => (await house.samples())[`tallyman_driver_${name}`] ?? 0
const lost = (): Promise<number> => sample('lines_lost_total{reason="journal-full"}')

/** The numbers in a container's lines, as they stand in its files, once there are so many. */
async function numbersOf(container: Container, count: number): Promise<number[]> {
  const folder = house.folderOf(container)
  const lines = () =>
    dayFiles(folder)
      .flatMap((file) => readFileSync(file, 'latin1').trimEnd().split('\n'))
      .map((line) => Number(/ line (\d+) /.exec(line)![1]))
  await until(
    () => `${count} lines land; there are ${lines().length}`,
    () => sizeOf(folder) > 0 && lines().length >= count,
  )
  return lines()
}

it('a container that writes flat out goes on, its oldest lines go and are counted, and a quiet one loses none', async () => {
  const quiet = await run('quiet', 2_000, {}, 1_000)
  await house.kafka.stop()
  const noisy = await run('noisy', LINES)
  expect(await noisy.ended()).toBe(0)
  expect(await delay(house)).toBeLessThan(MOST_DELAY)
  expect(await quiet.ended()).toBe(0)
  expect(await sample('journal_bytes')).toBeLessThan(1.3 * JOURNAL_MAX)
  const given = await lost()
  expect(given).toBeGreaterThan(0)

  await house.kafka.start()
  await house.landed(quiet)
  const numbers = await numbersOf(noisy, LINES - given)
  expect(await lost()).toBe(given)
  expect(await sample(`container_lines_lost_total{container="${noisy.name}",reason="journal-full"}`)).toBe(given)
  // What is on its way to Kafka when that goes is in memory, and arrives.
  const kept = numbers.findIndex((number, i) => number !== i + 1)
  expect(numbers).toEqual(Array.from({ length: LINES - given }, (_, i) => (i < kept ? 0 : given) + 1 + i))
  await house.forget(noisy)
})

const nearlyFull = () =>
  until('the journals are nearly full', async () => (await sample('journal_unshipped_bytes')) > 0.7 * JOURNAL_MAX)

it('with on-full=block a container waits for block-max, nobody else does, and then its oldest lines go', async () => {
  const before = await lost()
  await house.kafka.stop()
  const patient = await run('patient', LINES, BLOCKING)
  await nearlyFull()
  expect(await lost()).toBe(before)
  expect(await delay(house)).toBeLessThan(MOST_DELAY)
  await until('its oldest lines go', async () => (await lost()) > before)
  expect(await patient.ended()).toBe(0)
  await house.kafka.start()
  await house.forget(patient)
})

it('a container that waits with on-full=block is stopped in block-max and a little', async () => {
  await until('the journals are empty', async () => (await sample('journal_unshipped_bytes')) === 0)
  await house.kafka.stop()
  const patient = await run('stopped', LINES, BLOCKING)
  await nearlyFull()
  expect(await patient.stop(0)).toBeLessThan(BLOCK_MAX_SECONDS + 2)
  await house.kafka.start()
  await house.forget(patient)
})

it('with on-full=block nothing is lost where Kafka is back in time', async () => {
  await until('the journals are empty', async () => (await sample('journal_unshipped_bytes')) === 0)
  const before = await lost()
  await house.kafka.stop()
  const patient = await run('spared', LINES, { 'on-full': 'block', 'block-max': '60s' })
  await nearlyFull()
  await house.kafka.start()
  expect(await patient.ended()).toBe(0)
  await house.landed(patient)
  expect(await lost()).toBe(before)
})

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
