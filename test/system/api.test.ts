/** The HTTP API of real consumers: held against its own OpenAPI document by Schemathesis, and asked through any of several. */
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { DaysAnswer, LedgerAnswer, ServicesAnswer, StatusAnswer, VerifyAnswer } from '../../consumer/api-schema.ts'
import { BATCHES } from '../../consumer/event-decoder.ts'
import { Browser } from '../support/browser.ts'
import { Consumer } from '../support/consumer.ts'
import { command, repo } from '../support/engine.ts'
import { FedTopic } from '../support/fed-topic.ts'
import { temporaryFolder } from '../support/folder.ts'
import { TokensFile } from '../support/http-api.ts'
import { Kafka } from '../support/kafka.ts'
import { freePorts } from '../support/ports.ts'
import { Following } from '../support/reading.ts'
import { bundlePage } from '../support/site.ts'
import { until } from '../support/until.ts'

const PARTITIONS = 4
const RUNS = 12
const NAMES = ['logs-1', 'logs-2'] as const

const stack = new AsyncDisposableStack()
let consumers: Consumer[]
let folder: string
let topic: FedTopic
let tokens: TokensFile

beforeAll(async () => {
  await bundlePage()
  const id = `api-${randomBytes(3).toString('hex')}`
  folder = stack.use(temporaryFolder()).path
  const kafka = stack.use(await Kafka.start(id))
  tokens = new TokensFile(folder, { peer: ['*'], ops: ['*'], stranger: ['other-*'] })
  writeFileSync(join(folder, 'peers-token'), tokens.token('peer'))
  const ports = await freePorts(NAMES.length)
  consumers = await Promise.all(
    NAMES.map(async (name, i) => {
      const root = join(folder, name)
      mkdirSync(root)
      const consumer = await Consumer.create(
        {
          KAFKA_BROKERS: kafka.brokers.join(),
          KAFKA_TOPIC: id,
          KAFKA_GROUP: id,
          KAFKA_PARTITIONS: String(PARTITIONS),
          ROOT: root,
          HTTP_ADDR: `127.0.0.1:${ports[i]}`,
          CONSUMER_NAME: name,
          PEERS: ports.map((port) => `http://127.0.0.1:${port}`).join(),
          PEERS_TOKEN_FILE: join(folder, 'peers-token'),
          TOKENS_FILE: tokens.path,
          RATE_LIMIT: '0',
        },
        join(folder, `${name}.log`),
      )
      return stack.use(consumer)
    }),
  )
  await consumers[0]!.start()
  await consumers[1]!.start()
  topic = new FedTopic(kafka, id, PARTITIONS, RUNS)
  await topic.feed(100)
  await until('all lines are checkpointed', async () => {
    const { modules } = await ask<ServicesAnswer>(0, '/services')
    return modules.reduce((sum, { lines }) => sum + lines, 0) === topic.lines
  })
})
afterAll(() => stack.disposeAsync())

const bearer = (name = 'ops') => ({ authorization: `Bearer ${tokens.token(name)}` })
const ask = async <T>(of: number, path: string, name?: string): Promise<T> =>
  (await fetch(`${consumers[of]!.url}/api/v1${path}`, { headers: bearer(name) })).json() as T
const events = async (of: number, path: string, name?: string): Promise<Record<string, unknown>[]> => {
  const answer = await fetch(`${consumers[of]!.url}/api/v1${path}`, { headers: bearer(name) })
  return (await answer.text())
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
}

it('each of several consumers answers for all, and each with the same', async () => {
  for (const of of [0, 1]) {
    const { consumers: all } = await ask<StatusAnswer>(of, '/status')
    expect(all.map(({ name }) => name).toSorted()).toEqual([...NAMES])
    const { modules, partial } = await ask<ServicesAnswer>(of, '/services')
    expect(partial).toEqual([])
    expect(modules.map(({ lines }) => lines)).toEqual(Array.from({ length: RUNS }, () => 100))
    expect(await ask<VerifyAnswer>(of, '/verify')).toMatchObject({
      problems: [],
      losses: [],
      partial: [],
      total: { written: topic.lines, lost: 0 },
    })
    expect((await ask<LedgerAnswer>(of, '/ledger?by=run')).rows).toHaveLength(RUNS)
    const lines = await events(of, `/lines?limit=${2 * topic.lines}`)
    expect(lines.pop()).toEqual({ type: 'end', lines: topic.lines, limited: false, partial: [] })
    expect(new Set(lines.map(({ line }) => line)).size).toBe(topic.lines)
    const times = lines.map(({ time }) => String(time))
    expect(times).toEqual(times.toSorted())
    expect(new Set(lines.map(({ file }) => String(file).split(':')[0]))).toEqual(new Set(NAMES))
    const found = await events(of, '/search?pattern=m3%20(7|8)%24')
    expect(found.filter(({ type }) => type === 'line').map(({ line }) => line)).toEqual(['m3 7', 'm3 8'])
  }
})

it('a line, its neighbours and its file are found through either consumer', async () => {
  const [, line] = await events(0, '/lines?module=m1&limit=2')
  for (const of of [0, 1]) {
    const { lines, index } = await ask<{ lines: { line: string }[]; index: number }>(
      of,
      `/context?at=${encodeURIComponent(String(line!['at']))}`,
    )
    expect(lines[index]!.line).toBe(line!['line'])
    const file = await fetch(`${consumers[of]!.url}/api/v1/files/${line!['file']}`, { headers: bearer() })
    expect((await file.text()).trimEnd().split('\n')).toHaveLength(100)
  }
  const { days } = await ask<DaysAnswer>(0, '/days?module=m1')
  expect(days[0]!.files[0]!.file).toBe(line!['file'])
})

it('a token that may read another service finds nothing, at either consumer', async () => {
  const [line] = await events(0, '/lines?limit=1')
  for (const of of [0, 1]) {
    expect(await ask(of, '/services', 'stranger')).toEqual({ modules: [], partial: [] })
    expect(await ask(of, '/days', 'stranger')).toEqual({ days: [], partial: [] })
    expect(await ask(of, '/histogram?buckets=1&by=total', 'stranger')).toMatchObject({ series: [] })
    expect(await ask(of, `/context?at=${encodeURIComponent(String(line!['at']))}`, 'stranger')).toMatchObject({
      error: 'NOT_FOUND',
    })
    expect(await ask(of, `/files/${line!['file']}`, 'stranger')).toMatchObject({ error: 'NOT_FOUND' })
    expect(await ask(of, '/ledger', 'stranger')).toMatchObject({ total: { lines: 0 }, rows: [] })
    expect(await ask(of, '/verify', 'stranger')).toMatchObject({ files: 0, total: { lines: 0 } })
    for (const path of ['/lines', '/search?pattern=', '/lines?service=fed'])
      expect((await events(of, path, 'stranger')).filter(({ type }) => type !== 'progress')).toMatchObject([
        { type: 'end', lines: 0, partial: [] },
      ])
  }
})

it('a tail through one consumer has what lands at all of them, and says when one has gone', async () => {
  const url = `${consumers[0]!.url}/api/v1/tail`
  await using single = new Following(url, bearer())
  await using inBatches = new Following(url, { ...bearer(), accept: BATCHES })
  const tails = [single, inBatches]
  await until('both follow', () => tails.every(({ cursor }) => cursor !== undefined))
  const before = topic.lines
  await topic.feed(50)
  const landed = ({ lines }: Following) => new Set(lines.map(({ line }) => line)).size
  await until('all lines are told', () => tails.every((tail) => landed(tail) === topic.lines - before))
  await consumers[1]!.kill()
  await until('it is told that one has gone', () =>
    tails.every(({ events }) => events.some(({ type, consumer }) => type === 'gap' && consumer === NAMES[1])),
  )
  const { partial } = await ask<ServicesAnswer>(0, '/services')
  expect(partial).toMatchObject([{ consumer: NAMES[1] }])
  await consumers[1]!.start()
  await topic.feed(50)
  await until('what landed meanwhile is told as well', () =>
    tails.every((tail) => landed(tail) === topic.lines - before),
  )
  for (const tail of tails) expect(tail.lines).toHaveLength(topic.lines - before)
  expect(tails.map((tail) => tail.inBatches)).toEqual([false, true])
})

it('the page at one of them shows what lands at all', async () => {
  await using browser = await Browser.start()
  const page = await browser.open(`${consumers[0]!.url}/?page=lines`)
  await page.getByLabel('Token').fill(tokens.token('ops'))
  await page.keyboard.press('Enter')
  await page.locator('.live-state.live').waitFor()
  const rows = async () =>
    Number(/([\d,]+) rows/.exec(await page.locator('.status').innerText())?.[1]?.replace(',', ''))
  const before = await until('it shows what was there', async () => ((await rows()) >= 500 ? rows() : undefined))
  const landed = topic.lines
  await topic.feed(5)
  await until('each line is shown, once', async () => (await rows()) === before + topic.lines - landed)
  await page.getByRole('link', { name: 'Overview' }).click()
  await until('it lists what either has', async () => {
    const text = await page.locator('body').innerText()
    return Array.from({ length: RUNS }, (_, i) => i).every((i) => new RegExp(`\\bm${i}\\b`).test(text))
  })
  expect(await browser.close()).toEqual([])
})

it('a consumer that hangs keeps nobody waiting, and is asked again once it goes on', async () => {
  const { pid } = consumers[1]!
  process.kill(pid, 'SIGSTOP')
  try {
    const { modules, partial } = await ask<ServicesAnswer>(0, '/services')
    expect(partial).toMatchObject([{ consumer: NAMES[1], message: expect.stringContaining('says nothing') }])
    expect(modules.length).toBeGreaterThan(0)
    const lines = await events(0, '/lines?limit=100000')
    expect(lines.at(-1)).toMatchObject({ type: 'end', partial: [{ consumer: NAMES[1] }] })
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  await until('it is asked again', async () => (await ask<ServicesAnswer>(0, '/services')).partial.length === 0)
})

it('its answers are what its OpenAPI document says, whatever is asked, and nothing makes it fail', async () => {
  const schemathesis = (await command(join(repo, 'setup/schemathesis.sh'))).trim().split('\n').at(-1)!
  const spec = `${consumers[0]!.url}/api/v1/openapi.json`
  const { authorization } = bearer()
  // A tail does not end by itself, and a session that is ended is no failure.
  const args = [
    ...['run', spec, '--header', `Authorization: ${authorization}`, '--exclude-path', '/api/v1/tail'],
    ...['--phases', 'coverage,fuzzing', '--max-examples', '15', '--max-time', '25', '--generation-deterministic'],
    ...['--checks', 'not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance'],
    ...['--continue-on-failure', '--no-color', '--warnings', 'off'],
  ]
  // It keeps its notes where it runs. What it says of a failure holds the whole of a request, which may be long.
  const said = await command('env', '-C', folder, schemathesis, ...args).catch(
    ({ stdout }: { stdout: string }) => stdout,
  )
  expect(said.replace(/^(.{400}).*$/gm, '$1…')).toContain('No issues found')
})
