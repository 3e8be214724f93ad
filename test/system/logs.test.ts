/** `docker logs` from the driver's journal, held against what json-file gives for the same output. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listSegments, runFolder, runsFolder } from '../../driver/journal.ts'
import { AWAITING_GO, type Container, paced } from '../support/container.ts'
import { type House, startHouse } from '../support/house.ts'
import { numberedLines, type Printed, printed } from '../support/printed.ts'
import { inSoak } from '../support/soak.ts'
import { until } from '../support/until.ts'

const PARTS = 16_384
/** Bytes of a line of 105, with its newline. */
const LINE = 106

let house: House
/** Prints a line, keeps quiet for longer than dockerd waits for a plugin that was enabled without --timeout 0, prints another. */
let quiet: { container: Container; follow: Promise<Logs> }
beforeAll(async () => {
  house = await startHouse('logs')
  const container = await house.run({
    print: printed('before\nafter\n'),
    command: ['sh', '-c', `head -n 1 /in/stdout; sleep ${inSoak(32, 60)}; tail -n 1 /in/stdout`],
  })
  quiet = { container, follow: logs(container, '--follow') }
})
afterAll(() => house?.[Symbol.asyncDispose]())

type Logs = { stdout: Buffer; stderr: Buffer; code: number | null }

const dockerLogs = (container: Container, ...flags: string[]): ChildProcess =>
  spawn('docker', ['logs', ...flags, container.name], { stdio: ['ignore', 'pipe', 'pipe'] })

async function collected(client: ChildProcess): Promise<Logs> {
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []]
  client.stdout!.on('data', (part: Buffer) => stdout.push(part))
  client.stderr!.on('data', (part: Buffer) => stderr.push(part))
  const [code] = await once(client, 'close')
  return { stdout: Buffer.concat(stdout), stderr: Buffer.concat(stderr), code }
}

/** What `docker logs` prints. */
const logs = (container: Container, ...flags: string[]): Promise<Logs> => collected(dockerLogs(container, ...flags))

/** The same container twice: with us, and with json-file. */
async function twins(print: Printed, command?: string[]): Promise<[ours: Container, theirs: Container]> {
  const options = { print, ...(command && { command }) }
  const ours = await house.run(options)
  const theirs = await house.run({ ...options, logDriver: 'json-file', logOpts: {} })
  return [ours, theirs]
}

async function expectSame([ours, theirs]: [Container, Container], ...flags: string[]): Promise<Logs> {
  const [got, wanted] = [await logs(ours, ...flags), await logs(theirs, ...flags)]
  expect(got.code).toBe(0)
  expect(
    got.stdout.equals(wanted.stdout),
    `stdout of docker logs ${flags.join(' ')}: ${got.stdout.length} bytes of ${wanted.stdout.length}`,
  ).toBe(true)
  expect(got.stderr.equals(wanted.stderr), `stderr of docker logs ${flags.join(' ')}`).toBe(true)
  return got
}

/**
 * Lines of every kind that json-file keeps as it is: long ones, empty ones, several bytes a character, no newline at the end.
 * Long lines are ASCII: where it cuts one within a character, it makes U+FFFD of both halves.
 */
const text = (lines: number, source: string): string =>
  Array.from({ length: lines }, (_, i) => {
    if (i % 50 === 7) return `${source} ${i} ${'x'.repeat(40_000)}`
    if (i % 50 === 8) return ''
    if (i % 50 === 9) return `${i}`.padEnd(PARTS, '-')
    return `${source} ${i} ü€😀\r`
  }).join('\n')

describe('as with json-file', () => {
  let pair: [Container, Container]
  beforeAll(async () => {
    pair = await twins(printed(text(400, 'out')), paced(2_000))
    await Promise.all(pair.map((container) => container.ended()))
  })

  it('both sources, each in its own order', async () => {
    const both = await twins(printed(text(200, 'out'), text(200, 'err')))
    await Promise.all(both.map((container) => container.ended()))
    await expectSame(both)
  })

  it.each([
    [[]],
    [['--tail', 'all']],
    [['--tail', '0']],
    [['--tail', '1']],
    [['--tail', '50']],
    [['--tail', '100000']],
    [['--details']],
    [['--since', '1h']],
    [['--until', '1h']],
    [['--since', '2100-01-01T00:00:00Z']],
    [['--follow']],
    [['--follow', '--tail', '3']],
  ])('after the end, with %j', async (flags) => {
    await expectSame(pair, ...flags)
  })

  it('after the end, from one time on, up to another, and between two', async () => {
    const timed = await Promise.all(pair.map((container) => logs(container, '-t', '--tail', '300')))
    const times = timed.map(({ stdout }) => stdout.toString().match(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z(?= )/gm)!)
    expect(times[0]!.length).toBeGreaterThan(200)
    expect(times[0]!.length).toBe(times[1]!.length)
    for (const [from, to, tail] of [
      [100, undefined],
      [undefined, 150],
      [50, 200],
      // Of the last lines those from a time on and up to another, not the last of those.
      [250, undefined, 100],
      [undefined, 250, 100],
      [230, 280, 120],
      [50, 60, 5],
    ] as const) {
      const [got, wanted] = await Promise.all(
        pair.map((container, i) => {
          const since = from === undefined ? [] : ['--since', times[i]![from]!]
          const until = to === undefined ? [] : ['--until', times[i]![to]!]
          return logs(container, ...since, ...until, ...(tail === undefined ? [] : ['--tail', String(tail)]))
        }),
      )
      if (tail !== 5) expect(got!.stdout.length).toBeGreaterThan(500)
      expect(got!.stdout.equals(wanted!.stdout), `from ${from} to ${to} of the last ${tail}`).toBe(true)
    }
  })
})

it('of a container that is started again and again, all of its runs in turn', async () => {
  const pair = await twins(printed('one\ntwo\nthree\n'))
  for (let i = 0; i < 3; i++) {
    for (const container of pair) {
      await container.ended()
      await container.start()
    }
  }
  for (const container of pair) await container.ended()
  const { stdout } = await expectSame(pair)
  expect(stdout.toString()).toBe('one\ntwo\nthree\n'.repeat(4))
  await expectSame(pair, '--tail', '4')
  await expectSame(pair, '--tail', '7')
  for (const container of pair) await house.forget(container)
})

it('during the run, and followed to its end, with several who follow', async () => {
  const container = await house.run({ print: printed(numberedLines(5_000, 105)), command: AWAITING_GO })
  await until('all but the last line is there', async () => (await logs(container)).stdout.length === 4_999 * LINE)
  const following = Array.from({ length: 5 }, () => logs(container, '--follow'))
  const last = logs(container, '--follow', '--tail', '2')
  container.go()
  for (const { stdout, stderr, code } of await Promise.all(following)) {
    expect(code, stderr.toString()).toBe(0)
    expect(stdout.equals(container.printed.stdout)).toBe(true)
  }
  expect((await last).stdout.equals(container.printed.stdout.subarray(-2 * LINE))).toBe(true)
})

it('followed while segments are closed and begun', async () => {
  const container = await house.run({
    print: printed(numberedLines(60_000, 105)),
    service: 'rotated',
    module: 'cache',
    // Segments of a quarter of that.
    logOpts: { service: 'rotated', module: 'cache', 'cache-max-size': '4m', 'cache-max-file': '3' },
    command: paced(30_000),
  })
  const { stdout, code } = await logs(container, '--follow')
  expect(code).toBe(0)
  expect(stdout.equals(container.printed.stdout)).toBe(true)
})

it('with bytes that are no UTF-8, as they were printed', async () => {
  const bytes = Buffer.from([0xff, 0xfe, 0, 0x80, 10, 0xc3, 0x28, 13, 10])
  const container = await house.run({ print: printed(bytes) })
  await container.ended()
  expect((await logs(container)).stdout.equals(bytes)).toBe(true)
})

it('a million lines at once, while clients that are killed and one that does not read follow', async () => {
  const container = await house.create({ print: printed(numberedLines(1_000_000, 105)) })
  await container.start()
  const idle = dockerLogs(container, '--follow')
  idle.stdout!.pause()
  const killed = Array.from({ length: 3 }, () => dockerLogs(container, '--follow'))
  await Promise.all(killed.map((client) => once(client.stdout!, 'readable')))
  for (const client of killed) client.kill('SIGKILL')
  expect(await container.ended()).toBe(0)
  await house.landed(container)
  // 100 MB are kept, which is all of it but for what dockerd puts around each line.
  const { stdout } = await logs(container)
  expect(stdout.length).toBeGreaterThan(60_000_000)
  expect(stdout.equals(container.printed.stdout.subarray(-stdout.length))).toBe(true)
  idle.kill('SIGKILL')
  await once(idle, 'close')
  // Nobody who reads is waited for: containers that intake does not come to in a second block.
  expect((await house.samples())['tallyman_driver_intake_turn_max_seconds']).toBeLessThan(1)
})

/** Bytes that the journal holds. What goes while it is counted counts as gone. */
const journalSize = (): number =>
  readdirSync(runsFolder(house.plugin.journal)).reduce((sum, run) => {
    const folder = runFolder(house.plugin.journal, run)
    try {
      return sum + listSegments(folder).reduce((bytes, { length }) => bytes + length, 0)
    } catch {
      return sum
    }
  }, 0)

it('no more is kept than cache-max-size and cache-max-file say', async () => {
  const before = journalSize()
  const container = await house.run({
    print: printed(numberedLines(100_000, 105)),
    service: 'small',
    module: 'cache',
    logOpts: { service: 'small', module: 'cache', 'cache-max-size': '500k', 'cache-max-file': '2' },
  })
  await house.landed(container)
  await until('what is too much is gone', () => journalSize() - before <= 1_000 * 1024)
  const { stdout } = await logs(container)
  expect(stdout.length).toBeGreaterThan(400 * 1024)
  const tail = container.printed.stdout.subarray(-stdout.length)
  expect(stdout.equals(tail)).toBe(true)
  expect((await logs(container, '--tail', '10')).stdout.equals(tail.subarray(-10 * LINE))).toBe(true)
})

it('cache-disabled=true keeps nothing, and docker logs says so', async () => {
  const before = journalSize()
  const container = await house.run({
    print: printed(numberedLines(1_000, 105)),
    service: 'no',
    module: 'cache',
    logOpts: { service: 'no', module: 'cache', 'cache-disabled': 'true' },
  })
  await house.landed(container)
  await container.ended()
  await until('the journal is gone', () => journalSize() === before)
  const { stderr } = await logs(container)
  expect(stderr.toString()).toMatch(/cache-disabled=true.*the files of no\/cache/)
})

it('a follow that hears nothing for longer than 30 s goes on', async () => {
  const { stdout, stderr, code } = await quiet.follow
  expect(code, stderr.toString()).toBe(0)
  expect(stdout.toString()).toBe('before\nafter\n')
})

it('a driver that is killed still has what was printed before', async () => {
  const container = await house.run({ print: printed(numberedLines(3_000, 105)) })
  await container.ended()
  await house.landed(container)
  house.plugin.kill()
  await house.plugin.answers()
  expect((await logs(container)).stdout.equals(container.printed.stdout)).toBe(true)
  expect((await logs(container, '--tail', '5')).stdout.equals(container.printed.stdout.subarray(-5 * LINE))).toBe(true)
})
