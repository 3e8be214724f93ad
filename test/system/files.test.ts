/** In which file a line lands: by options, labels, image and the day in TZ_FILES. */
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { recordKey } from '../../wire/record.ts'
import { chunkOf } from '../support/chunk.ts'
import { BASE_IMAGE, command, docker, LABEL } from '../support/engine.ts'
import { type House, startHouse } from '../support/house.ts'
import { dayFiles } from '../support/oracle.ts'
import { printed } from '../support/printed.ts'
import { until } from '../support/until.ts'
import { zoneOfAnotherDay } from '../support/zones.ts'

const BILLING_IMAGE = 'registry.tallyman.test:5000/team/billing:1.2'

let house: House
beforeAll(async () => {
  house = await startHouse('files')
  await docker.getImage(BASE_IMAGE).tag({ repo: BILLING_IMAGE.replace(/:1\.2$/, ''), tag: '1.2' })
})
afterAll(async () => {
  await docker.getImage(BILLING_IMAGE).remove()
  await house?.[Symbol.asyncDispose]()
})

describe('service and module', () => {
  const compose = { 'com.docker.compose.project': 'shop', 'com.docker.compose.service': 'web' }
  const swarm = { 'com.docker.stack.namespace': 'prod', 'com.docker.swarm.service.name': 'prod_api' }
  const own = { 'tallyman.service': 'orders', 'tallyman.module': 'worker' }

  it.each([
    ['Compose’s labels', compose, {}, 'shop', 'web'],
    ['Swarm’s labels, the stack left out of the module', swarm, {}, 'prod', 'api'],
    ['a Swarm service without a stack', { 'com.docker.swarm.service.name': 'lone' }, {}, 'debian', 'lone'],
    ['our own labels, before all others', { ...compose, ...swarm, ...own }, {}, 'orders', 'worker'],
    ['options, before labels', { ...compose, ...own }, { service: 'by-option', module: 'too' }, 'by-option', 'too'],
    ['one option, and a label for the other', compose, { service: 'half' }, 'half', 'web'],
    [
      'templates',
      {},
      { service: 'on-{{.ImageName}}', module: 'm-{{.Name}}' },
      'on-debian%3Abookworm-slim',
      'm-templates',
    ],
  ])('come from %s', async (_, labels, logOpts, service, module) => {
    const name = Object.values(logOpts).join().includes('{{')
      ? 'templates'
      : `${house.id}-${randomBytes(3).toString('hex')}`
    const container = await house.run({ print: printed('out\n', 'err\n'), name, labels, logOpts, service, module })
    await house.landed(container)
  })

  it('come from the image’s repository and the container’s name where nobody says anything', async () => {
    const name = `${house.id}-unnamed`
    const logOpts = {}
    const container = await house.run({
      print: printed('a\n'),
      name,
      logOpts,
      image: BILLING_IMAGE,
      service: 'billing',
      module: name,
    })
    await house.landed(container)
  })

  it.each([
    ['a way out of the root', '../../etc', '%2E.%2F..%2Fetc'],
    ['a dot', '.', '%2E'],
    ['two dots', '..', '%2E.'],
    ['slashes', '/a/b/', '%2Fa%2Fb%2F'],
    ['a folder of the root’s own', '.tallyman', '%2Etallyman'],
    ['blanks and umlauts', 'zwei Wörter', 'zwei%20W%C3%B6rter'],
    ['what is encoded already', '%2E', '%252E'],
    ['NUL', 'a\0b', 'a%00b'],
    ['a newline', 'a\nb', 'a%0Ab'],
  ])('that are %s become one folder each, inside of the root', async (_, said, safe) => {
    const container = await house.run({
      print: printed('safe\n'),
      logOpts: { service: said, module: said },
      service: safe,
      module: safe,
    })
    await house.landed(container)
  })

  it('of 300 characters become folders that a file system takes, and stay apart', async () => {
    const long = 'n'.repeat(299)
    const before = readdirSync(house.root)
    const [one, other] = await Promise.all(
      ['1', '2'].map((last) =>
        house.run({ print: printed(`${last}\n`), logOpts: { service: long + last, module: long + last } }),
      ),
    )
    const folders = await until('both have landed', () => {
      const now = readdirSync(house.root).filter((name) => !before.includes(name))
      return (
        now.length === 2 &&
        now.every((name) => dayFiles(join(house.root, name, ...readdirSync(join(house.root, name)))).length > 0) &&
        now
      )
    })
    for (const folder of folders) expect(folder).toMatch(/^n{100,}.{1,100}$/)
    await house.forget(one!)
    await house.forget(other!)
  })

  it('leave nothing beside the root and nothing hidden in it', () => {
    expect(readdirSync(house.folder).sort()).toEqual(['consumer.log', 'in', 'root'])
    expect(readdirSync(house.root).filter((name) => name.startsWith('.'))).toEqual(['.tallyman'])
    expect(
      readdirSync(house.root, { recursive: true, withFileTypes: true }).filter(
        (entry) => !entry.isFile() && !entry.isDirectory(),
      ),
    ).toEqual([])
  })
})

describe('docker run', () => {
  const run = (...logOpts: string[]) =>
    command(
      'docker',
      'run',
      '--rm',
      '--network',
      'none',
      '--label',
      LABEL,
      '--log-driver',
      house.plugin.name,
      ...logOpts.flatMap((opt) => ['--log-opt', opt]),
      BASE_IMAGE,
      'echo',
      'printed',
    )

  it('with an unknown option fails, and says which was meant', async () => {
    await expect(run('servce=shop')).rejects.toThrow(/servce is not known; the nearest known one is service/)
    await expect(run('modul=web')).rejects.toThrow(/modul is not known; the nearest known one is module/)
  })

  it('with a template that is none fails, and says which there are', async () => {
    await expect(run('service={{.Nmae}}')).rejects.toThrow(/service=.*\{\{\.Nmae\}\}.*\{\{\.Name\}\}/)
  })

  it('with an empty name fails', async () => {
    await expect(run('service=')).rejects.toThrow(/service=.*empty/)
  })

  it('that was refused leaves no FIFO behind', () => {
    expect(readdirSync(house.plugin.journal, { withFileTypes: true }).filter((entry) => entry.isFIFO())).toEqual([])
  })

  it('takes the options of dockerd itself', async () => {
    const container = await house.run({
      print: printed('a\nb\n'),
      service: 'dockerd',
      module: 'options',
      logOpts: {
        service: 'dockerd',
        module: 'options',
        mode: 'non-blocking',
        'max-buffer-size': '4m',
        'cache-disabled': 'false',
        'cache-max-size': '1m',
        'cache-max-file': '2',
        'cache-compress': 'false',
        'max-size': '10m',
        'max-file': '3',
        compress: 'true',
      },
    })
    await house.landed(container)
  })
})

describe('the day', () => {
  /** Puts lines with these times into Kafka, as a driver would, and waits for the last of them. */
  async function send(service: string, times: Record<string, string>): Promise<Record<string, string[]>> {
    const texts = Object.keys(times)
    const chunk = chunkOf({
      run: randomBytes(16).toString('hex'),
      service,
      module: 'm',
      host: 'h',
      container: { id: 'i', name: 'c', image: 'g' },
      attrs: {},
      first: [1, 1],
      lines: texts.map((text, i) => ({
        source: 'stdout',
        number: i + 1,
        // ms, and the rest of the ns that the format holds
        time: times[text]!.replace(/^(.*\d\d\.\d{3})(\d{6})Z$/, (_, ms, ns) => `${BigInt(Date.parse(`${ms}Z`))}${ns}`),
        text,
      })),
      end: [texts.length, 0],
    })
    await house.kafka.produce(house.topic, [
      { partition: 0, key: recordKey(service, 'm'), value: new ChunkEncoder().encode(chunk) },
    ])
    return until(`all lines of ${service} land`, () => {
      const files = dayFiles(join(house.root, service, 'm'))
      const days = Object.fromEntries(
        files.map((file) => [basename(file, '.log'), readFileSync(file, 'utf8').trimEnd().split('\n')]),
      )
      return Object.values(days).flat().length >= texts.length && days
    })
  }

  it('of a container’s lines is that of TZ_FILES, not that of UTC', async () => {
    const { zone, day } = zoneOfAnotherDay()
    await house.consumer.stop()
    await house.consumer.start({ TZ_FILES: zone })
    const container = await house.run({ print: printed('today\n') })
    await house.landed(container)
    expect(readdirSync(house.folderOf(container))).toEqual([`${day}.log`])
    expect(day).not.toBe(new Date().toISOString().slice(0, 10))
  })

  it('changes at midnight in TZ_FILES, to the nanosecond, in winter, in summer and in both nights between', async () => {
    await house.consumer.stop()
    await house.consumer.start({ TZ_FILES: 'Europe/Berlin', KEEP_DAYS: '3650' })
    const days = await send('midnights', {
      'last of a winter day': '2026-01-14T22:59:59.999999999Z',
      'first of a winter day': '2026-01-14T23:00:00.000000000Z',
      'last before the short day': '2026-03-28T22:59:59.999999999Z',
      'first of the short day': '2026-03-28T23:00:00.000000000Z',
      'last of the short day': '2026-03-29T21:59:59.999999999Z',
      'first after the short day': '2026-03-29T22:00:00.000000000Z',
      'last before the long day': '2026-10-24T21:59:59.999999999Z',
      'first of the long day': '2026-10-24T22:00:00.000000000Z',
      'last of the long day': '2026-10-25T22:59:59.999999999Z',
      'back in the long day: a clock was set': '2026-10-25T02:30:00.000000001Z',
      'first after the long day': '2026-10-25T23:00:00.000000000Z',
    })
    expect(days).toEqual({
      '2026-01-14': ['2026-01-14T22:59:59.999Z c last of a winter day'],
      '2026-01-15': ['2026-01-14T23:00:00.000Z c first of a winter day'],
      '2026-03-28': ['2026-03-28T22:59:59.999Z c last before the short day'],
      '2026-03-29': [
        '2026-03-28T23:00:00.000Z c first of the short day',
        '2026-03-29T21:59:59.999Z c last of the short day',
      ],
      '2026-03-30': ['2026-03-29T22:00:00.000Z c first after the short day'],
      '2026-10-24': ['2026-10-24T21:59:59.999Z c last before the long day'],
      '2026-10-25': [
        '2026-10-24T22:00:00.000Z c first of the long day',
        '2026-10-25T22:59:59.999Z c last of the long day',
        '2026-10-25T02:30:00.000Z c back in the long day: a clock was set',
      ],
      '2026-10-26': ['2026-10-25T23:00:00.000Z c first after the long day'],
    })
  })

  it('of a line from a clock far off is the day on which it arrived, with its own stamp', async () => {
    await house.consumer.stop()
    await house.consumer.start({ TZ_FILES: 'UTC', KEEP_DAYS: '7' })
    const before = new Date().toISOString().slice(0, 10)
    const days = await send('far-off', {
      old: '2001-09-09T01:46:40.000000000Z',
      early: '2200-01-01T00:00:00.000000000Z',
    })
    const after = new Date().toISOString().slice(0, 10)
    expect([before, after]).toContain(Object.keys(days)[0])
    expect(Object.values(days)).toEqual([['2001-09-09T01:46:40.000Z c old', '2200-01-01T00:00:00.000Z c early']])
  })
})

it('and when all has come to rest, nothing stands twice', async () => {
  expect(existsSync(house.root)).toBe(true)
  await house.settled()
})
