/** The journal's disk is full, by others: nothing hangs, room is made of what is shipped, and what has to be dropped is counted. */
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Container, paced } from '../support/container.ts'
import { MOST_DELAY } from '../support/delays.ts'
import { command } from '../support/engine.ts'
import { type House, startHouse } from '../support/house.ts'
import { dayFiles, sizeOf } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { until } from '../support/until.ts'

const DISK_BYTES = 24 * 1024 * 1024
/** More than fits into what there is to give, of all containers before. */
const LINES = 120_000
/** Small segments, so that there is something to give while the container runs. */
const CACHE = { 'cache-max-size': '1m', 'cache-max-file': '2' }

let house: House
beforeAll(async () => {
  house = await startHouse('disk')
  await house.plugin.disable()
  await command('mount', '-t', 'tmpfs', '-o', `size=${DISK_BYTES},mode=700`, 'tallyman-test', house.plugin.journal)
  await house.plugin.enable()
  await house.plugin.answers()
})
afterAll(async () => {
  // dockerd unmounts what it finds there when it disables the plugin.
  await house?.[Symbol.asyncDispose]()
})

const filler = () => join(house.plugin.journal, 'filler')

/** Takes every byte that is left. */
function fillDisk(): void {
  const fd = openSync(filler(), 'a')
  try {
    for (let block = Buffer.alloc(1024 * 1024, 1); block.length > 0; ) {
      try {
        writeSync(fd, block)
      } catch {
        block = block.subarray(0, Math.floor(block.length / 2))
      }
    }
  } finally {
    closeSync(fd)
  }
}

const lostToDisk = async (): Promise<number> =>
  (await house.samples())['tallyman_driver_lines_lost_total{reason="disk"}']!

/** Of the lines, those that are printed before the disk is full. */
const BEFORE = 20_000

/** @param goAfter as of `paced` */
const start = (module: string, goAfter?: number): Promise<Container> =>
  house.run({
    print: printed(numberedLines(LINES, 105)),
    command: paced(20_000, goAfter),
    service: 'disk',
    module,
    logOpts: { service: 'disk', module, ...CACHE },
  })

it('while Kafka takes lines, nothing is lost: what is shipped makes room', async () => {
  const container = await start('shipped')
  await until('some lines have landed', () => sizeOf(house.folderOf(container)) > 2_000_000)
  fillDisk()
  expect(await container.ended()).toBe(0)
  expect(existsSync(filler())).toBe(true)
  await house.landed(container)
  expect(await lostToDisk()).toBe(0)
  rmSync(filler())
})

it.each([
  ['', false],
  [', also when the plugin is killed meanwhile', true],
])(
  'while Kafka is away as well, containers go on and stop as ever; each line lands or is counted%s',
  async (_, kill) => {
    const container = await start(`dropped-${kill}`, BEFORE)
    // Not all of its lines will land, and whatever comes of that is told here.
    await using _forgotten = { [Symbol.asyncDispose]: () => house.forget(container) }
    const before = await lostToDisk()
    let lost = 0
    const lasting = await house.run({
      print: printed('a line\n'),
      command: ['sh', '-c', 'cat /in/stdout; exec sleep 600'],
    })
    await until('some lines have landed', () => sizeOf(house.folderOf(container)) > 1_000_000)
    await house.landed(lasting)
    await house.kafka.stop()
    fillDisk()
    container.go()
    const begun = performance.now()
    expect(await container.ended()).toBe(0)
    expect((performance.now() - begun) / 1000).toBeLessThan(30)
    for (const asked of [() => lasting.inspect(), () => command('docker', 'logs', '--tail', '1', lasting.name)]) {
      const since = performance.now()
      await asked()
      expect((performance.now() - since) / 1000).toBeLessThan(MOST_DELAY)
    }
    expect(await lasting.stop(1)).toBeLessThan(4)
    const told = await lostToDisk()
    if (kill) await house.plugin.killed()
    rmSync(filler())
    await house.kafka.start()

    const numbers = () =>
      dayFiles(house.folderOf(container)).flatMap((file) =>
        [...readFileSync(file, 'latin1').matchAll(/ line (\d+) \.+$/gm)].map(([, number]) => Number(number)),
      )
    await until(
      () => `each of ${LINES} lines has landed (${numbers().length}) or is counted (${lost})`,
      async () => {
        lost = (await lostToDisk()) - before + (kill ? told : 0)
        return lost > 0 && numbers().length + lost === LINES
      },
      20,
    )
    const landed = numbers()
    expect(landed).toEqual([...new Set(landed)].sort((a, b) => a - b))

    const after = await start(`afterwards-${kill}`)
    await house.landed(after)
  },
)

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
