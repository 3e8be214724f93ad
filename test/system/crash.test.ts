/** Parts of the way are killed, stopped, disabled and away, while containers write: nothing is lost, nothing stands twice. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { median } from '../../bench/report.ts'
import { AWAITING_GO, type Container, paced } from '../support/container.ts'
import { delay, MOST_DELAY } from '../support/delays.ts'
import { type House, startHouse } from '../support/house.ts'
import { dayFiles, sizeOf } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { inSoak } from '../support/soak.ts'
import { until } from '../support/until.ts'
import { zoneAtNoon } from '../support/zones.ts'

const LINE_BYTES = 105
/** A container that writes at this rate is not done before it is disturbed. */
const PER_SECOND = 60_000
/**
 * From the kill of a consumer that is started again to lines in its files, of most kills: Kafka's session alone would take 6 s. A machine
 * that is busy with something else is slow now and then.
 */
const RESTART_MS = 2_000

let house: House
beforeAll(async () => {
  house = await startHouse('crash', { consumer: { TZ_FILES: zoneAtNoon() } })
})
afterAll(() => house?.[Symbol.asyncDispose]())

/** Waits until this part of a container's lines is in its file. */
async function landedInPart(container: Container, part: number): Promise<void> {
  const size = house.expectedSize(container) * part
  await until(`${part} of the lines land`, () => sizeOf(house.folderOf(container)) >= size)
}

/** Does something at each of `times` points of a container's output, while it writes. */
async function disturb(container: Container, times: number, doing: () => Promise<void>): Promise<void> {
  for (let i = 1; i <= times; i++) {
    await landedInPart(container, i / (times + 1))
    await doing()
  }
}

it('the plugin is killed again and again, each time while a container writes flat out', async () => {
  const kills = inSoak(5, 20)
  const both = await house.run({
    print: printed(numberedLines(40_000 * kills, LINE_BYTES), numberedLines(40_000 * kills, LINE_BYTES)),
    command: paced(PER_SECOND / 6),
  })
  const pids = new Set([house.plugin.pid])
  for (let i = 0; i < kills; i++) {
    await house.plugin.supervised()
    const flatOut = await house.run({ print: printed(numberedLines(600_000, LINE_BYTES)) })
    await landedInPart(flatOut, 0.1)
    expect((await flatOut.inspect()).State.Running).toBe(true)
    await house.plugin.killed()
    pids.add(house.plugin.pid)
    expect(await flatOut.ended()).toBe(0)
    await house.landed(flatOut)
    await house.forget(flatOut)
  }
  await house.landed(both)
  expect(pids.size).toBe(kills + 1)
})

it('the plugin is killed again and again under load from thirty containers', async () => {
  const containers = await Promise.all(
    Array.from({ length: 30 }, () =>
      house.run({
        print: printed(numberedLines(inSoak(16_000, 80_000), LINE_BYTES), numberedLines(2_000, LINE_BYTES)),
        command: paced(1_000),
      }),
    ),
  )
  await disturb(containers[0]!, inSoak(4, 20), () => house.plugin.killed())
  await house.landed(...containers)
})

it('containers that end while the plugin is dead', async () => {
  const containers = await Promise.all(
    Array.from({ length: 8 }, () =>
      house.run({ print: printed(numberedLines(300, LINE_BYTES)), command: AWAITING_GO }),
    ),
  )
  await Promise.all(containers.map((container) => landedInPart(container, 0.9)))
  house.plugin.kill()
  for (const container of containers) container.go()
  await Promise.all(containers.map((container) => container.ended()))
  await house.landed(...containers)
  await house.plugin.supervised()
  expect(await delay(house, () => house.plugin.kill())).toBeLessThan(MOST_DELAY)
})

it('the plugin is upgraded to another build, twice, while containers run on', async () => {
  const container = await house.run({ print: printed(numberedLines(200_000, LINE_BYTES)), command: paced(PER_SECOND) })
  const { StartedAt } = (await container.inspect()).State
  const builds = [await house.plugin.build()]
  await disturb(container, 2, async () => {
    await house.plugin.upgrade(String(builds.length))
    builds.push(await house.plugin.build())
  })
  expect(new Set(builds).size).toBe(3)
  expect(await container.ended()).toBe(0)
  expect((await container.inspect()).State.StartedAt).toBe(StartedAt)
  await house.landed(container)
})

it('the plugin is disabled and enabled while containers run on', async () => {
  const container = await house.run({ print: printed(numberedLines(200_000, LINE_BYTES)), command: paced(PER_SECOND) })
  const { StartedAt } = (await container.inspect()).State
  await disturb(container, 2, async () => {
    const begun = performance.now()
    await house.plugin.disable()
    expect(performance.now() - begun).toBeLessThan(2_000)
    await house.plugin.enable()
  })
  expect(await container.ended()).toBe(0)
  expect((await container.inspect()).State.StartedAt).toBe(StartedAt)
  await house.landed(container)
})

it('the consumer is killed again and again while it writes, and somebody tails the file', async () => {
  const container = await house.run({
    print: printed(numberedLines(250_000, LINE_BYTES), numberedLines(250_000, LINE_BYTES)),
    command: paced(2 * PER_SECOND),
  })
  const [file] = await until('the file is there', () => {
    const files = dayFiles(house.folderOf(container))
    return files.length > 0 && files
  })
  const tailed = join(house.folder, 'tailed')
  const output = openSync(tailed, 'w')
  const tail = spawn('tail', ['-n', '+1', '-f', file!], { stdio: ['ignore', output, 'ignore'] })
  closeSync(output)
  const gone = once(tail, 'exit')
  const took: number[] = []
  try {
    await disturb(container, inSoak(15, 200), async () => {
      const begun = performance.now()
      await house.consumer.kill()
      const size = () => sizeOf(house.folderOf(container))
      const before = size()
      await house.consumer.start()
      // It may have caught up, and been killed with all of the lines written.
      await until('lines land again', () => size() > before || before === house.expectedSize(container))
      took.push(performance.now() - begun)
    })
    await house.landed(container)
    expect(median(took)).toBeLessThan(RESTART_MS)
    expect(dayFiles(house.folderOf(container))).toEqual([file])
    await until('tail has shown all', () => statSync(tailed).size >= statSync(file!).size)
  } finally {
    tail.kill()
    await gone
  }
  expect(readFileSync(tailed).equals(readFileSync(file!))).toBe(true)
})

it('Kafka goes in mid flow and comes back; meanwhile the plugin is killed, and containers start, run and stop as ever', async () => {
  // As long as it takes to kill the plugin so often.
  const print = printed(numberedLines(inSoak(400_000, 2_000_000), LINE_BYTES))
  const writing = await house.run({ print, command: paced(PER_SECOND / inSoak(1, 3)) })
  const lasting = await house.run({
    print: printed('a line before it is stopped\n'),
    command: ['sh', '-c', 'cat /in/stdout; exec sleep 600'],
  })
  await landedInPart(writing, inSoak(0.2, 0.02))
  await house.kafka.stop()
  for (let i = 0; i < inSoak(2, 20); i++) await house.plugin.killed()
  expect((await writing.inspect()).State.Running).toBe(true)

  const begun = performance.now()
  const started = await house.run({ print: printed(numberedLines(1000, LINE_BYTES)) })
  expect(await started.ended()).toBe(0)
  await started.inspect()
  expect(performance.now() - begun).toBeLessThan(5000)
  expect(await lasting.stop(1)).toBeLessThan(3)
  expect(await writing.ended()).toBe(0)

  await house.kafka.start()
  await house.landed(writing, lasting, started)
})

it('the consumer is ended in good order while it writes, and started again', async () => {
  const container = await house.run({ print: printed(numberedLines(200_000, LINE_BYTES)), command: paced(PER_SECOND) })
  await disturb(container, 2, async () => {
    expect(await house.consumer.stop()).toBe(0)
    await house.consumer.start()
  })
  await house.landed(container)
})

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
