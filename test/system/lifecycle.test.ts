/** Containers that come and go in every way that Docker has: each line lands, and nothing of them is left behind. */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { AWAITING_GO } from '../support/container.ts'
import { BASE_IMAGE, command, docker, LABEL } from '../support/engine.ts'
import { type House, startHouse } from '../support/house.ts'
import { compareModule, dayFiles, expectedSize, sizeOf } from '../support/oracle.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { inSoak } from '../support/soak.ts'
import { until } from '../support/until.ts'

const SHORT_LIVED = inSoak(100, 1_000)
const AT_A_TIME = 10
const RUNS_MAX = 20

const execute = promisify(execFile)

let house: House
beforeAll(async () => {
  house = await startHouse('lifecycle', { plugin: { RUNS_MAX: String(RUNS_MAX) } })
})
afterAll(() => house?.[Symbol.asyncDispose]())

const fifos = () => readdirSync(house.plugin.journal, { withFileTypes: true }).filter((entry) => entry.isFIFO())
const descriptors = () => readdirSync(`/proc/${house.plugin.pid}/fd`).length

it(`${SHORT_LIVED} containers that print a line each and are removed at once: no FIFO, descriptor or folder too many is left`, async () => {
  // Once Kafka is connected.
  await house.landed(await house.run({ print: printed('first\n') }))
  const before = descriptors()
  const numbers = Array.from({ length: SHORT_LIVED }, (_, i) => i)
  const run = async () => {
    for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) {
      const options = ['--log-driver', house.plugin.name, '--log-opt', 'service=short', '--log-opt', 'module=lived']
      await command(
        'docker',
        'run',
        '--rm',
        '-d',
        '--network',
        'none',
        '--label',
        LABEL,
        ...options,
        BASE_IMAGE,
        'echo',
        `line ${number}`,
      )
    }
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, run))
  const folder = `${house.root}/short/lived`
  const lines = await until('each line lands', () => {
    const all = dayFiles(folder).flatMap((file) => readFileSync(file, 'utf8').trimEnd().split('\n'))
    return all.length >= SHORT_LIVED && all
  })
  expect(lines.map((line) => line.replace(/^.*line /, '')).sort()).toEqual(
    Array.from({ length: SHORT_LIVED }, (_, i) => `${i}`).sort(),
  )
  await until('no FIFO is left', () => fifos().length === 0)
  await until(
    () => `no descriptor is left: ${descriptors()} of ${before}`,
    () => descriptors() <= before,
    20,
  )
  await until('as many runs are kept as may be', () => readdirSync(`${house.plugin.journal}/runs`).length <= RUNS_MAX)
})

it('a container that is killed, and one that runs out of memory', async () => {
  const options = { print: printed(numberedLines(1_000, 105)), command: ['sh', '-c', 'cat /in/stdout; exec sleep 600'] }
  const killed = await house.run(options)
  await house.landed(killed)
  await docker.getContainer(killed.id).kill()
  const greedy = await house.run({
    print: printed('before\n'),
    command: ['sh', '-c', 'cat /in/stdout; exec tail /dev/zero'],
    memoryBytes: 16 * 1024 * 1024,
  })
  expect(await greedy.ended()).toBe(137)
  expect((await greedy.inspect()).State.OOMKilled).toBe(true)
  await house.landed(greedy)
})

it('a container that is killed while it writes: what dockerd had of it lands, as docker logs shows it', async () => {
  const all = numberedLines(2_000_000, 105)
  const container = await house.run({ print: printed(all) })
  await until('lines land', () => sizeOf(house.folderOf(container)) > 1_000_000)
  await docker.getContainer(container.id).kill()
  expect(await container.ended()).toBe(137)
  const folder = house.folderOf(container)
  const expected = (shown: Buffer) => [{ container: container.name, printed: printed(shown) }]
  const shown = await until('as much lands as docker logs shows', async () => {
    const { stdout } = await execute('docker', ['logs', container.name], { encoding: 'buffer', maxBuffer: all.length })
    return sizeOf(folder) === expectedSize(expected(stdout)) && stdout
  })
  expect(shown.length).toBeLessThan(all.length)
  expect(all.subarray(0, shown.length).equals(shown)).toBe(true)
  compareModule(folder, expected(shown))
  await house.forget(container)
})

it('a container that is started again and again: all of its lines, in the order of its runs', async () => {
  const container = await house.create({ print: printed('first\nlast\n') })
  const runs = 10
  for (let i = 0; i < runs; i++) {
    await container.start()
    await container.ended()
  }
  const size = house.expectedSize(container) * runs
  await until('the lines of all runs land', () => sizeOf(house.folderOf(container)) === size)
  const text = dayFiles(house.folderOf(container))
    .map((file) => readFileSync(file, 'utf8'))
    .join('')
  expect(text.match(/(first|last)$/gm)).toEqual(Array.from({ length: runs }, () => ['first', 'last']).flat())
  await house.forget(container)
})

it('a container that is renamed while it runs, and one that is paused', async () => {
  const container = await house.run({ print: printed(numberedLines(500, 105)), command: AWAITING_GO })
  const raw = docker.getContainer(container.id)
  await raw.pause()
  await raw.unpause()
  await raw.rename({ name: `${container.name}-renamed` })
  container.go()
  expect(await container.ended()).toBe(0)
  await house.landed(container)
})

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
