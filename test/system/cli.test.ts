/**
 * The command against a real consumer that real Kafka feeds: over pipes, at a terminal, and installed from its package with the
 * machine's own Node.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Consumer } from '../support/consumer.ts'
import { command, docker, imageOf, LABEL, removeContainer, repo } from '../support/engine.ts'
import { type Fed, Feeder } from '../support/feeder.ts'
import { Kafka } from '../support/kafka.ts'
import { freePorts } from '../support/ports.ts'
import { bundled, type CommandOptions, Tallyman, tallyman } from '../support/tallyman.ts'
import { until } from '../support/until.ts'

const TOPIC = 'tm-cli'
const MINUTE = 60_000
/** Of the lines that are there from the beginning: an hour ago, well within a day or two. */
const BEGIN = Date.now() - 60 * MINUTE

const stack = new AsyncDisposableStack()
let folder: string
let kafka: Kafka
let consumer: Consumer
let at: CommandOptions
let api: Feeder
let web: Feeder

const run = (...args: string[]) => tallyman(at, ...args)
const raw = async (...args: string[]): Promise<string[]> =>
  (await run(...args, '--output', 'raw')).stdout.split('\n').slice(0, -1)

/** Waits until a module has as many lines. */
const landed = (name: string, lines: number) =>
  until(`${name} has ${lines} lines`, async () => {
    const { stdout } = await run('ls', name, '--days', '--json')
    const days = stdout
      .split('\n')
      .filter(Boolean)
      .map((day) => JSON.parse(day) as { lines: number })
    return days.reduce((sum, { lines }) => sum + lines, 0) >= lines
  })

/** A feeder of a module that no other test has. */
let modules = 0
const newModule = (service = 'live'): { feeder: Feeder; name: string } => {
  const name = `${service}/m${++modules}`
  return { feeder: new Feeder(kafka, TOPIC, name, `${service}-m${modules}-1`), name }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tm-cli-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  kafka = stack.use(await Kafka.start(`tm-cli-${randomBytes(3).toString('hex')}`))
  const settings = {
    ...{ KAFKA_BROKERS: kafka.brokers.join(), KAFKA_TOPIC: TOPIC, KAFKA_GROUP: TOPIC },
    ...{ KAFKA_PARTITIONS: '1', KAFKA_REPLICATION: '1', ROOT: join(folder, 'root'), LOG_LEVEL: 'info' },
  }
  consumer = stack.use(await Consumer.create(settings, join(folder, 'consumer.log')))
  await consumer.start()
  at = { url: consumer.url, program: await bundled(folder) }
  api = new Feeder(kafka, TOPIC, 'shop/api', 'api-1')
  web = new Feeder(kafka, TOPIC, 'shop/web', 'web-1', 'host-2')
  const fed = (name: string, i: number): Fed[] =>
    Array.from({ length: 50 }, (_, n) => ({
      text: `${name} ${n}${n % 10 === 0 ? ' failed' : ''}`,
      source: n % 10 === 0 ? 'stderr' : 'stdout',
      time: BEGIN + (2 * n + i) * 1000,
    }))
  await api.feed(...fed('api', 0))
  await web.feed(...fed('web', 1))
  await landed('shop/api', 50)
  await landed('shop/web', 50)
})
afterAll(() => stack.disposeAsync())

describe('over a pipe', () => {
  it('cat is the file, byte for byte, where the file is text and the zone is UTC', async () => {
    const { stdout, code } = await run('cat', 'shop/api')
    const file = execFileSync('sh', ['-c', 'cat "$0"/shop/api/*.log', join(folder, 'root')], { encoding: 'utf8' })
    expect(stdout).toBe(file)
    expect(code).toBe(0)
  })

  it('several targets are merged by time', async () => {
    const both = Array.from({ length: 100 }, (_, i) => `${i % 2 ? 'web' : 'api'} ${Math.floor(i / 2)}`)
    for (const targets of [['shop/*'], ['shop'], ['shop/api', 'shop/web'], ['api-1', 'web-1'], ['*/api', '*/web']]) {
      expect((await raw('cat', ...targets)).map((line) => line.replace(' failed', ''))).toEqual(both)
    }
    const { stdout } = await run('cat', 'shop/*')
    expect(stdout.split('\n')[1]).toMatch(/^\d{4}-.*Z shop\/web web-1! web 0 failed$/)
  })

  it('tail ends with the last lines, and takes them by source, host, container, pattern and time', async () => {
    expect(await raw('tail', 'shop/*')).toHaveLength(10)
    expect(await raw('tail', '-n', '2', 'shop/*')).toEqual(['api 49', 'web 49'])
    expect(await raw('tail', '-n', '2', '--stderr', 'shop/api')).toEqual(['api 30 failed', 'api 40 failed'])
    expect(await raw('tail', '-n', '1', '--stdout', '-i', ' [34]0', '-i', '41', 'shop/api')).toEqual(['api 41'])
    expect(await raw('tail', '-n', '1', '-e', '9$', '--host', 'host-2', 'shop/*')).toEqual(['web 48'])
    expect(await raw('tail', '-n', '1', '--container', 'api-*', '--ignore-case', '-i', 'API', 'shop/*')).toEqual([
      'api 49',
    ])
    const since = new Date(BEGIN + 90_000).toISOString()
    expect(await raw('tail', '--since', since, '--until', '1m', 'shop/api')).toEqual([
      'api 45',
      'api 46',
      'api 47',
      'api 48',
      'api 49',
    ])
    expect(await raw('tail', '--since', since, '--until', new Date(BEGIN + 92_000).toISOString(), 'shop/*')).toEqual([
      'api 45',
      'web 45',
    ])
  })

  it('grep finds, counts, and says by its status whether it did', async () => {
    const failed = [0, 10, 20, 30, 40].flatMap((n) => [`api ${n} failed`, `web ${n} failed`])
    expect(await raw('grep', 'failed', 'shop/*')).toEqual(failed)
    expect(await raw('grep', '-i', 'FAILED', 'shop/api', '-m', '2')).toEqual(['api 0 failed', 'api 10 failed'])
    expect(await raw('grep', '--last', '-m', '1', 'failed', 'shop/*')).toEqual(['web 40 failed'])
    expect(await raw('grep', '-v', '-e', 'failed', '-e', '[1-9]$', 'shop/api')).toEqual([])
    expect(await raw('grep', '-w', '-F', 'api 4', 'shop/api')).toEqual(['api 4'])
    expect(await raw('grep', '-o', '4\\d', 'shop/api', '-m', '2')).toEqual(['40', '41'])
    expect(await raw('grep', '-C', '1', ' [1-4]0 ', 'shop/api', '-m', '2')).toEqual([
      ...['api 9', 'api 10 failed', 'api 11', '--', 'api 19', 'api 20 failed', 'api 21'],
    ])
    expect((await run('grep', '-c', 'failed', 'shop/*')).stdout).toBe('shop/api:5\nshop/web:5\n')
    expect((await run('grep', '-c', 'failed', 'shop/api')).stdout).toBe('5\n')
    expect((await run('grep', '-l', 'failed', 'shop/api')).stdout).toMatch(/^shop\/api\/\d{4}-\d\d-\d\d\.log\n/)
    expect((await run('grep', '-q', 'failed', 'shop/api')).code).toBe(0)
    expect(await run('grep', 'nowhere', 'shop/api')).toEqual({ code: 1, stdout: '', stderr: '' })
    expect(await run('grep', '(', 'shop/api')).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('(QUERY_REFUSED)'),
    })
    expect((await run('grep', '--color', 'always', '--output', 'raw', 'fail', 'shop/api', '-m', '1')).stdout).toBe(
      'api 0 \x1b[1;31mfail\x1b[0med\n',
    )
    expect((await run('grep', '-m', '1', 'failed', 'shop/api')).stderr).toContain('there are more')
  })

  it('context shows what is around a line that grep found', async () => {
    const line = (await run('grep', '-m', '1', '--output', 'json', 'web 20', 'shop/web')).stdout.trim()
    const lines = ['web 19', 'web 20 failed', 'web 21']
    expect(await raw('context', '-C', '1', line)).toEqual(lines)
    expect(await raw('context', '-C', '1', JSON.parse(line).at)).toEqual(lines)
    expect((await run('context', 'nothing')).code).toBe(2)
  })

  it('dead-letters lists what could not be decoded, gives it back byte for byte, and says why it stays', async () => {
    const value = Buffer.from([0xc1, 0x00, 0xff, 0x0a])
    await kafka.produce(TOPIC, [{ partition: 0, key: 'shop/api', value }])
    const [letter] = await until('there is a dead letter', async () => {
      const { stdout } = await run('dead-letters', '--json')
      return (
        stdout !== '' &&
        stdout
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line) as { name: string; bytes: number })
      )
    })
    expect(letter).toMatchObject({ bytes: 4, key: 'shop/api', reason: 'not-msgpack' })
    expect((await run('dead-letters')).stdout).toContain(letter!.name)
    expect((await run('dead-letters', letter!.name)).stdout).toContain('"refused"')
    const file = join(folder, 'record')
    execFileSync('sh', ['-c', `"$@" > "$0"`, file, ...at.program!, 'dead-letters', letter!.name, '--value'], {
      env: { PATH: process.env['PATH'], TALLYMAN_URL: consumer.url },
    })
    expect(readFileSync(file)).toEqual(value)
    const replayed = await run('dead-letters', '--replay')
    expect(replayed).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(`${letter!.name} stays`) })
    expect((await run('dead-letters', 'nothing')).stderr).toContain('there is no dead letter nothing')
  })

  it('ls and stats say what there is', async () => {
    expect((await run('ls')).stdout).toMatch(
      /module +days +size +lines +lost +last line\n(.*\n)*shop\/api +\d +\d.* +50 +0 +\d+ min/,
    )
    expect((await run('ls', 'shop/api')).stdout).toMatch(/shop\/api +\d{4}-\d\d-\d\d +text +1 +/)
    expect((await run('ls', 'nobody/*')).code).toBe(1)
    const { stdout } = await run('stats', 'shop/*')
    expect(stdout).toMatch(/shop\/api +█{32} +50 +\d.* k?B/)
    expect(stdout).toMatch(/\d{4}-\d\d-\d\d \d\d:00 +█+/)
    const { module, hour } = JSON.parse((await run('stats', 'shop/*', '--json')).stdout)
    expect(module['shop/api'].lines).toBe(50)
    const hours = Object.values(hour as Record<string, { lines: number; bytes: number }>)
    expect(Math.round(hours.reduce((sum, { lines }) => sum + lines, 0))).toBe(100)
    expect(
      Object.keys(JSON.parse((await run('stats', 'shop/*', '--by', 'host', '--json')).stdout).host).sort(),
    ).toEqual(['host-1', 'host-2'])
  })

  it('a tail that follows neither loses nor doubles a line while the consumer is killed and comes back', async () => {
    const { feeder, name } = newModule()
    await feeder.feed('line 0')
    await landed(name, 1)
    await using follow = Tallyman.start(at, 'tail', '-f', name, '--output', 'raw')
    await follow.prints('line 0\n')
    let next = 1
    const feed = async (count: number): Promise<void> => {
      await feeder.feed(...Array.from({ length: count }, () => `line ${next++}`))
    }
    await feed(200)
    await follow.prints(`line ${next - 1}\n`)
    for (let i = 0; i < 2; i++) {
      await feed(300)
      await consumer.kill()
      await feed(300)
      await follow.says(/Trying again until it answers/)
      await consumer.start()
      await feed(50)
      await follow.prints(`line ${next - 1}\n`)
    }
    follow.process.kill('SIGINT')
    const { stdout, stderr, code } = await follow.ended()
    expect(stdout).toBe(Array.from({ length: next }, (_, n) => `line ${n}\n`).join(''))
    expect(stderr.match(/answers again; it goes on behind the last line/g)).toHaveLength(2)
    expect(code).toBe(130)
  })
})

describe('at a terminal', () => {
  /** What the terminal shows, without colours and the redrawing of prompts. */
  const seen = ({ stdout }: Tallyman): string =>
    // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with an escape
    stdout.replaceAll(/\x1b\[[\d;?]*[A-Za-z]/g, '').replaceAll('\r\n', '\n')

  it('tail goes on with what comes, in colours, until q', async () => {
    const { feeder, name } = newModule()
    await feeder.feed('ERROR first')
    await landed(name, 1)
    await using tail = Tallyman.atTerminal(at, 'tail', name)
    await tail.prints('\x1b[31mERROR\x1b[0m first')
    await feeder.feed('second')
    await tail.prints('second')
    tail.type('q')
    expect((await tail.ended()).code).toBe(0)
    expect(seen(tail)).toMatch(/^\d.*Z live-m\d+-1 ERROR first\n.*Z live-m\d+-1 second\n$/)
  })

  it('space holds lines back, and each comes once when it is pressed again', async () => {
    const { feeder, name } = newModule()
    await using tail = Tallyman.atTerminal(at, 'tail', name, '-o', 'raw', '--color', 'never')
    await until('it follows', async () => {
      await feeder.feed('here')
      return tail.stdout.includes('here')
    })
    tail.type(' ')
    await tail.prints('paused')
    const held = Array.from({ length: 30 }, (_, i) => `held ${i}`)
    await feeder.feed(...held)
    await until('they have landed', async () => (await raw('grep', 'held 29$', name)).length === 1)
    expect(tail.stdout).not.toContain('held')
    tail.type(' ')
    await tail.prints('held 29')
    tail.type('q')
    expect((await tail.ended()).code).toBe(0)
    expect(
      seen(tail)
        .split('\n')
        .filter((line) => line.startsWith('held')),
    ).toEqual(held)
  })

  it('/ looks through what was shown, and marks it from then on', async () => {
    const { feeder, name } = newModule()
    await feeder.feed('needle one', 'hay')
    await landed(name, 2)
    await using tail = Tallyman.atTerminal(at, 'tail', name, '-o', 'raw')
    await tail.prints('hay')
    tail.type('/')
    await tail.prints('/')
    tail.type('NEE\x7f\x7f\x7fneedle\r')
    await tail.prints('1 of the last 2 lines match /needle/')
    await feeder.feed('needle two')
    await tail.prints('\x1b[30;43mneedle\x1b[0m two')
    tail.type('\x03')
    expect((await tail.ended()).code).toBe(130)
  })

  it('of a hostile line only the text and its colours reach it', async () => {
    const { feeder, name } = newModule()
    await feeder.feed('a\x1b]0;title\x07b\x1b[2J\x1b[31mred\x1b[0m\x1b[6nc')
    await landed(name, 1)
    await using tail = Tallyman.atTerminal(at, 'tail', '--no-follow', name, '-o', 'raw')
    expect((await tail.ended()).stdout).toContain('ab\x1b[31mred\x1b[0mc')
    expect(await raw('tail', name)).toEqual(['a\x1b]0;title\x07b\x1b[2J\x1b[31mred\x1b[0m\x1b[6nc'])
  })

  it('a module is picked where none is given', async () => {
    await using cat = Tallyman.atTerminal(at, 'cat', '-o', 'raw', '--color', 'never')
    await cat.prints('Whose lines?')
    cat.type('swb')
    await cat.prints('1 of them')
    cat.type('\r')
    expect((await cat.ended()).code).toBe(0)
    expect(
      seen(cat)
        .split('\n')
        .filter((line) => line.startsWith('web ')),
    ).toHaveLength(50)
  })

  it('Ctrl-C leaves the picker, with 130', async () => {
    await using cat = Tallyman.atTerminal(at, 'cat')
    await cat.prints('Whose lines?')
    cat.type('\x03')
    expect((await cat.ended()).code).toBe(130)
  })
})

describe('installed from its package', () => {
  /** Without what is in node_modules/.bin: as it is on somebody's machine. */
  const path = process.env['PATH']!.split(':')
    .filter((folder) => !folder.includes('node_modules'))
    .join(':')
  let program: string[]
  beforeAll(() => {
    const machine = { cwd: repo, env: { ...process.env, PATH: path }, encoding: 'utf8' as const }
    execFileSync(process.execPath, ['setup/bundle.ts', 'cli'], machine)
    const packed = execFileSync(process.execPath, ['setup/cli-package.ts'], machine).trim().split('\n').at(-1)!
    execFileSync(
      'npm',
      ['install', '--global', '--offline', '--prefix', join(folder, 'npm'), `./dist/${packed}`],
      machine,
    )
    program = [join(folder, 'npm/bin/tallyman')]
  })
  const installed = (...args: string[]) => tallyman({ ...at, program, env: { PATH: path } }, ...args)

  it("runs on the machine's own Node, and brings its man page", async () => {
    expect((await installed('tail', '-n', '1', '-o', 'raw', 'shop/api')).stdout).toBe('api 49\n')
    expect((await installed('grep', '-c', 'failed', 'shop/*')).stdout).toBe('shop/api:5\nshop/web:5\n')
    expect((await installed('stats')).code).toBe(0)
    expect(readFileSync(join(folder, 'npm/share/man/man1/tallyman.1'), 'utf8')).toContain('.TH TALLYMAN 1')
    writeFileSync(join(folder, 'config.toml'), `[servers.here]\nurl = "${consumer.url}"\n`)
    const env = { PATH: path, TALLYMAN_URL: '', TALLYMAN_CONFIG: join(folder, 'config.toml') }
    expect((await tallyman({ ...at, program, env }, 'ls', '--server', 'here')).stdout).toContain('shop/api')
  })

  it('shows the first line of a tail within 400 ms of its start', async () => {
    const took: number[] = []
    for (let i = 0; i < 10; i++) {
      const begin = performance.now()
      await using tail = Tallyman.start({ ...at, program, env: { PATH: path } }, 'tail', '-f', 'shop/api')
      await new Promise((resolve) => tail.process.stdout!.once('data', resolve))
      took.push(performance.now() - begin)
    }
    // What else runs on this machine costs some of them more.
    expect(Math.min(...took)).toBeLessThan(400)
  })
})

it("in the consumer's container asks that consumer, with docker exec", async () => {
  const [port] = await freePorts(1)
  const settings = {
    ...{ KAFKA_BROKERS: kafka.brokers.join(), KAFKA_TOPIC: TOPIC, KAFKA_GROUP: 'in-container' },
    ...{ HTTP_ADDR: `127.0.0.1:${port}`, TALLYMAN_URL: '' },
  }
  const container = await docker.createContainer({
    Image: await imageOf('tallyman-consumer'),
    Labels: { [LABEL]: 'consumer' },
    Env: Object.entries(settings).map(([name, value]) => `${name}=${value}`),
    HostConfig: { NetworkMode: 'host', LogConfig: { Type: 'local', Config: {} } },
  })
  stack.defer(() => removeContainer(container.id))
  await container.start()
  const tail = () => command('docker', 'exec', container.id, 'tallyman', 'tail', '-n', '2', '-o', 'raw', 'shop/api')
  await until('its lines have landed', async () => (await tail()) === 'api 48\napi 49')
})

describe('of two consumers that share a topic', () => {
  const topic = 'tm-cli-two'
  const numbered = (name: string, from: number, to: number): string[] =>
    Array.from({ length: to - from }, (_, i) => `${name} ${from + i}`)
  const sorted = (lines: string[]): string[] => lines.filter((line) => line !== '').sort()
  let consumers: Consumer[]
  let feeders: Feeder[]
  let both: CommandOptions
  beforeAll(async () => {
    const shared = {
      ...{ KAFKA_BROKERS: kafka.brokers.join(), KAFKA_TOPIC: topic, KAFKA_GROUP: topic, LOG_LEVEL: 'info' },
      ...{ KAFKA_PARTITIONS: '2', KAFKA_REPLICATION: '1' },
    }
    consumers = await Promise.all(
      ['a', 'b'].map((name) =>
        Consumer.create({ ...shared, ROOT: join(folder, name), CONSUMER_NAME: name }, join(folder, `${name}.log`)),
      ),
    )
    for (const one of consumers) stack.use(one)
    const [a, b] = consumers as [Consumer, Consumer]
    await Promise.all([a.start({ PEERS: b.url }), b.start({ PEERS: a.url })])
    both = { ...at, url: `${a.url},${b.url}` }
    feeders = ['x', 'y'].map((name, i) => new Feeder(kafka, topic, `two/${name}`, `${name}-1`, 'host-1', i))
    await Promise.all(feeders.map((feeder, i) => feeder.feed(...numbered('xy'[i]!, 0, 100))))
    await until(
      'all have landed',
      async () => (await tallyman(both, 'grep', '-c', '', 'two')).stdout === 'two/x:100\ntwo/y:100\n',
    )
  })

  it('each line comes once, whether one is asked for all, or both for theirs', async () => {
    const all = sorted([...numbered('x', 0, 100), ...numbered('y', 0, 100)])
    const one = { ...at, url: consumers[0]!.url }
    for (const options of [one, both]) {
      expect(sorted((await tallyman(options, 'cat', 'two', '-o', 'raw')).stdout.split('\n'))).toEqual(all)
      expect(sorted((await tallyman(options, 'grep', '--output', 'raw', '', 'two')).stdout.split('\n'))).toEqual(all)
      const { stdout } = await tallyman(options, 'ls', '--json')
      const modules = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { lines: number })
      expect(modules.map(({ lines }) => lines)).toEqual([100, 100])
    }
  })

  it('a tail of both goes on without one, and has each line once when it is back', async () => {
    await using follow = Tallyman.start(both, 'tail', '-f', '-n', '200', 'two', '-o', 'raw')
    await follow.prints(/x 99\n/)
    await follow.prints(/y 99\n/)
    const feed = (from: number, to: number) =>
      Promise.all(feeders.map((feeder, i) => feeder.feed(...numbered('xy'[i]!, from, to))))
    await feed(100, 200)
    await follow.prints('x 199\n')
    await follow.prints('y 199\n')
    await consumers[1]!.kill()
    await follow.says(/Trying again until it answers/)
    await feed(200, 300)
    await consumers[1]!.start()
    await feed(300, 400)
    await follow.prints('x 399\n')
    await follow.prints('y 399\n')
    follow.process.kill('SIGINT')
    const { stdout } = await follow.ended()
    const lines = sorted(stdout.split('\n'))
    expect(lines).toEqual(sorted([...numbered('x', 0, 400), ...numbered('y', 0, 400)]))
  })

  it('one that is away is said by its name', async () => {
    await consumers[1]!.kill()
    const ran = await tallyman(both, 'cat', 'two', '-o', 'raw')
    expect(ran.stderr).toContain(`no consumer answers at ${consumers[1]!.url}`)
    expect(ran.code).toBe(2)
  })
})

it('verify and ledger agree that all of it is there', async () => {
  await until('the checkpoint covers it', async () => (await run('verify')).code === 0)
  expect((await run('ledger')).stdout).toMatch(/shop +api +50 +50 +0 +0/)
})
