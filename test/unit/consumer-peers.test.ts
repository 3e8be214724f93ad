/** Several consumers, each with a root of its own, asked through any of them. */
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer, type IncomingMessage, request } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setImmediate as turn } from 'node:timers/promises'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { describe, expect, it } from 'vitest'
import type { z } from 'zod'
import { ANYBODY } from '../../consumer/access.ts'
import * as shapes from '../../consumer/api-schema.ts'
import { encodeBatch } from '../../consumer/batch.ts'
import { ConsumerError } from '../../consumer/errors.ts'
import { BATCHES } from '../../consumer/event-decoder.ts'
import { type Events, sendEvents, wireOf } from '../../consumer/event-stream.ts'
import { mergeHistograms } from '../../consumer/merge-answers.ts'
import { mergeSearches } from '../../consumer/merge-streams.ts'
import { followPeer } from '../../consumer/peer-events.ts'
import { Peers } from '../../consumer/peers.ts'
import { reindexRoutes } from '../../consumer/reindex-routes.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Api, type TokenNames } from '../support/http-api.ts'
import { freePorts } from '../support/ports.ts'
import { Following } from '../support/reading.ts'
import { until } from '../support/until.ts'

type LineOf = { second: number; file?: string; service?: string; text?: string; context?: true }

const DAY = '2026-11-23'
const FILE = `shop/web/${DAY}.log`

function line({ second, file = FILE, service = 'shop', text = `at ${second}`, context }: LineOf): shapes.Line {
  const time = new Date(Date.parse(`${DAY}T12:00:00Z`) + second * 1000).toISOString()
  const names = { service, module: 'web', host: 'h', container: 'web-1', source: 'stdout' as const }
  return {
    type: 'line',
    at: `${file}:${second}`,
    file,
    position: second,
    time,
    ...names,
    line: text,
    ...(context && { context }),
  }
}

/** An event as it goes over the wire to who takes batches. */
function landed(event: shapes.TailEvent): Buffer {
  if (event.type !== 'line') return Buffer.from(`${JSON.stringify(event)}\n`)
  const { file, position, service, module, host, container, time, line } = event
  const bytes = Buffer.from(`${time} ${container} ${line}\n`)
  const head = { file, position, bytes: bytes.length, service, module, host, container }
  return encodeBatch({ type: 'batch', until: time, stretches: [{ head, bytes }] })
}

/** What a consumer holds. */
type Holdings = {
  lines?: shapes.LinesEvent[]
  search?: shapes.SearchEvent[][]
  /** Until then it finds nothing. */
  searching?: Promise<void>
  tail?: (query: shapes.TailQuery, signal: AbortSignal) => AsyncGenerator<shapes.TailEvent[]>
  services?: Partial<shapes.ModuleOverview>[]
  /** Until then it does not say which services there are. */
  ready?: Promise<void>
  ledger?: Omit<shapes.LedgerAnswer, 'partial'>
  runs?: shapes.RunRow[]
  verify?: Partial<shapes.VerifyAnswer>
  histogram?: Omit<shapes.HistogramAnswer, 'partial'>
  days?: shapes.ModuleDay[]
  /** Offsets of dead letters. */
  letters?: number[]
  roots?: shapes.RootClaims[]
  /** What comes of mending the index. */
  reindexed?: Partial<shapes.ReindexedDay>
}

const NO_LINES: shapes.LineCount = { lines: 0, written: 0, lost: 0, lostBy: {}, claimed: 0, doubled: 0, ratio: 0 }
const end = (lines: number, limited = false): shapes.EndEvent => ({ type: 'end', lines, limited, partial: [] })

const routesOf =
  (name: string, holdings: Holdings): FastifyPluginAsyncZod =>
  async (api) => {
    const get = <A extends object>(path: string, querystring: z.ZodObject, response: z.ZodObject, answer: A) =>
      api.get(path, { schema: { querystring, response: { 200: response } } }, async () => ({ partial: [], ...answer }))
    const modules = (holdings.services ?? []).map((of) => ({ ...MODULE, ...of }))
    api.get('/services', { schema: { response: { 200: shapes.servicesAnswer } } }, async ({ access }) => {
      await holdings.ready
      return { modules: modules.filter(({ service }) => access.may(service)), partial: [] }
    })
    api.get('/status', { schema: { response: { 200: shapes.statusAnswer } } }, async () => ({
      consumers: [{ ...STATUS, name }],
      partial: [],
    }))
    if (holdings.ledger)
      api.get(
        '/ledger',
        { schema: { querystring: shapes.ledgerQuery, response: { 200: shapes.ledgerAnswer } } },
        async ({ query }) =>
          query.by === 'run'
            ? { total: NO_LINES, rows: holdings.runs ?? [], partial: [] }
            : { ...holdings.ledger!, partial: [] },
      )
    if (holdings.verify)
      get('/verify', shapes.verifyQuery, shapes.verifyAnswer, {
        files: 1,
        bytes: 10,
        total: NO_LINES,
        rebuilt: 3,
        removed: 1,
        problems: [],
        losses: [],
        ...holdings.verify,
      })
    if (holdings.histogram) get('/histogram', shapes.histogramQuery, shapes.histogramAnswer, holdings.histogram)
    if (holdings.days) get('/days', shapes.daysQuery, shapes.daysAnswer, { days: holdings.days })
    async function* say(batches: object[][]): Events {
      for (const batch of batches) {
        yield batch.map((event) => JSON.stringify(event))
        await turn()
      }
    }
    api.get('/lines', { config: { stream: true }, schema: { querystring: shapes.linesQuery } }, (request, reply) =>
      sendEvents(request, reply, () => say([holdings.lines ?? [end(0)]])),
    )
    api.get('/search', { schema: { querystring: shapes.searchQuery } }, (request, reply) =>
      sendEvents(request, reply, async function* () {
        yield []
        await holdings.searching
        yield* say(holdings.search ?? [[end(0)]])
      }),
    )
    api.get('/tail', { schema: { querystring: shapes.tailQuery } }, (request, reply) =>
      sendEvents(
        request,
        reply,
        async function* (signal) {
          let landing = false
          for await (const batch of holdings.tail!(request.query, signal)) {
            if (landing && wireOf(request, true).format === 'batches') yield Buffer.concat(batch.map(landed))
            else yield batch.map((event) => JSON.stringify(event))
            landing ||= batch.some(({ type }) => type === 'cursor')
          }
        },
        { wire: { format: wireOf(request, true).format, packing: undefined } },
      ),
    )
    api.get(
      '/context',
      { schema: { querystring: shapes.contextQuery, response: { 200: shapes.contextAnswer } } },
      async ({ query }) => {
        const [, file, position] = /^(.*):(\d+)$/.exec(query.at)!
        if (file !== FILE) throw new ConsumerError('NOT_FOUND', `there is no ${file}`)
        return { lines: [line({ second: Number(position), text: `of ${name}` })], index: 0, partial: [] }
      },
    )
    const letters = (holdings.letters ?? []).map(letterAt)
    const taken = { dropped: [], bytes: 10, max: 100, partial: [] }
    api.get(
      '/dead-letters',
      { schema: { querystring: shapes.deadLettersQuery, response: { 200: shapes.deadLettersAnswer } } },
      async ({ query }) => ({
        letters: letters.slice(0, query.limit),
        limited: letters.length > query.limit,
        ...taken,
      }),
    )
    api.get(
      '/dead-letters/:name',
      { schema: { params: shapes.deadLetterParams, response: { 200: shapes.deadLetterAnswer } } },
      async ({ params }) => {
        const letter = letters.find(({ name }) => name === params.name)
        if (!letter) throw new ConsumerError('NOT_FOUND', 'there is none')
        return { ...letter, value: name }
      },
    )
    api.post(
      '/dead-letters/replay',
      { schema: { body: shapes.replayBody, response: { 200: shapes.replayAnswer } } },
      async ({ body: { names = letters.map(({ name }) => name) } }) => ({
        replayed: names
          .filter((name) => letters.some((letter) => letter.name === name))
          .map((name) => ({ name, lines: 1 })),
        failed: names
          .filter((name) => !letters.some((letter) => letter.name === name))
          .map((name) => ({ name, reason: 'missing', message: 'm' })),
        partial: [],
      }),
    )
    api.get('/roots', { schema: { response: { 200: shapes.rootsAnswer } } }, async () => ({
      roots: holdings.roots ?? [],
      partial: [],
    }))
    api.post(
      '/roots/:root/disown',
      { schema: { params: shapes.disownParams, response: { 200: shapes.rootClaims } } },
      async ({ params }) => {
        const claims = holdings.roots?.find(({ root }) => root === params.root)
        if (!claims) throw new ConsumerError('NOT_FOUND', 'it owes nothing')
        return { ...claims, state: 'disowned' as const }
      },
    )
    api.get('/files/*', {}, async (request, reply) => {
      const { '*': file } = request.params as { '*': string }
      if (file.startsWith('none')) throw new ConsumerError('NOT_FOUND', `there is no ${file}`)
      reply.header('content-type', 'text/plain').header('accept-ranges', 'bytes')
      if (request.headers.range) reply.code(206).header('content-range', 'bytes 0-3/100')
      return `${name} ${file}`
    })
  }

const letterAt = (offset: number): shapes.DeadLetterRow => ({
  ...{ name: `t-0-${offset}`, topic: 't', partition: 0, offset, time: `${DAY}T01:00:00Z`, reason: 'not-json' },
  ...{ message: 'm', key: 'k', headers: {}, bytes: 1 },
})

const REINDEXED: shapes.ReindexedDay = {
  ...{ day: DAY, damaged: 0, blank: 0, fromKafka: 0, fromFiles: 0, guessed: 0, changed: true },
}

const MODULE: shapes.ModuleOverview = {
  ...{ service: 'shop', module: 'web', days: 1, files: 1, lines: 10, bytes: 100, lost: 0 },
  ...{ first: `${DAY}T01:00:00Z`, last: `${DAY}T02:00:00Z`, rate: [1, 2], hosts: ['h1'], containers: ['web-1'] },
}
const STATUS = {
  ...{ root: 'r', version: '1', ready: true, lag: 0, timeZone: 'UTC', lineFormat: 'text' as const, keepDays: 7 },
  disk: { free: 1, size: 2 },
}

/** Consumers a, b, …, which know each other; each has its own list of all. */
async function consumers(
  holdings: Holdings[],
  { more = [], tokens, names = [] }: { more?: string[]; tokens?: TokenNames; names?: string[] } = {},
) {
  const stack = new AsyncDisposableStack()
  const ports = await freePorts(holdings.length)
  const folder = stack.use(temporaryFolder()).path
  const urls = [...ports.map((port) => `http://127.0.0.1:${port}`), ...more]
  const apis: Api[] = []
  for (const [i, held] of holdings.entries()) {
    const name = names[i] ?? 'abc'[i]!
    const tokenFile = tokens && join(folder, 'peer-token')
    const self = { name, uuid: `uuid-${i}` }
    const peers = new Peers({ urls, tokenFile, self, silenceMs: 100, probeMs: 2_000, awayMs: 100 })
    const several = { peers, runsOf: () => held.runs ?? [] }
    const run = async function* (): AsyncGenerator<shapes.ReindexEvent> {
      if (!held.reindexed) throw new Error('the disk is full')
      yield { type: 'progress', step: 'index', done: 0, total: 1 }
      yield { type: 'end', days: [{ ...REINDEXED, ...held.reindexed }], partial: [] }
    }
    const routes = [routesOf(name, held), reindexRoutes({ reindex: { run }, peers })]
    const api = await Api.create(tokens, { several, routes }, apis[0]?.tokens)
    stack.use(api)
    stack.defer(() => peers.close())
    await api.server.listen({ host: '127.0.0.1', port: ports[i]! })
    apis.push(api)
  }
  if (tokens) writeFileSync(join(folder, 'peer-token'), `${apis[0]!.tokens.token('peer')}\n`)
  return {
    urls,
    apis,
    get: async <T>(path: string, init?: RequestInit): Promise<T> =>
      (await fetch(`${urls[0]}/api/v1${path}`, init)).json() as T,
    events: async (path: string): Promise<Record<string, unknown>[]> =>
      (await (await fetch(`${urls[0]}/api/v1${path}`)).text())
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line)),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

/** A port that takes connections and says nothing. */
async function deaf() {
  const server = createServer(() => {}).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.dispose]: () => void server.close(),
  }
}

describe('any consumer', () => {
  it('lists what all of them hold, as one', async () => {
    await using several = await consumers([
      { services: [{ days: 2, dates: ['2026-11-22', DAY] }, { service: 'bank' }] },
      {
        services: [
          {
            lines: 5,
            lost: -2,
            days: 2,
            dates: ['2026-11-21', '2026-11-22'],
            first: `${DAY}T00:00:00Z`,
            rate: [1, 1, 1],
            hosts: ['h2'],
            containers: ['web-2'],
          },
        ],
      },
    ])
    const { modules, partial } = await several.get<shapes.ServicesAnswer>('/services')
    expect(partial).toEqual([])
    expect(modules.map(({ service }) => service)).toEqual(['bank', 'shop'])
    expect(modules[1]).toEqual({
      ...{ service: 'shop', module: 'web', days: 3, dates: ['2026-11-21', '2026-11-22', DAY] },
      ...{ files: 2, lines: 15, bytes: 200, lost: -2 },
      ...{ first: `${DAY}T00:00:00Z`, last: `${DAY}T02:00:00Z`, rate: [2, 3, 1], hosts: ['h1', 'h2'] },
      containers: ['web-1', 'web-2'],
    })
    const { consumers: all } = await several.get<shapes.StatusAnswer>('/status')
    expect(all.map(({ name }) => name)).toEqual(['a', 'b'])
  })

  it('answers for itself alone where another one asks', async () => {
    await using several = await consumers([{ services: [{}] }, { services: [{}] }])
    const headers = { 'tallyman-hop': 'x' }
    expect((await several.get<shapes.ServicesAnswer>('/services', { headers })).modules[0]!.lines).toBe(10)
  })

  it('names the consumers of files', async () => {
    const day = {
      service: 'shop',
      module: 'web',
      day: DAY,
      files: [{ file: FILE, bytes: 10 }],
      lines: 1,
      bytes: 10,
      lost: 0,
      first: `${DAY}T01`,
      last: `${DAY}T02`,
    }
    await using several = await consumers([{ days: [day] }, { days: [day, { ...day, day: '2026-11-24' }] }])
    const { days } = await several.get<shapes.DaysAnswer>('/days')
    expect(days).toMatchObject([
      { day: '2026-11-24', lines: 1 },
      { day: DAY, lines: 2, bytes: 20, files: [{ file: `a:${FILE}` }, { file: `b:${FILE}` }] },
    ])
  })

  it('puts histograms of other ranges into one, with no line lost on the way', async () => {
    const of = (since: string, until: string, lines: number[]) => ({
      ...{ since: `${DAY}T${since}:00.000Z`, until: `${DAY}T${until}:00.000Z` },
      step: (Date.parse(`${DAY}T${until}:00Z`) - Date.parse(`${DAY}T${since}:00Z`)) / lines.length,
      series: [{ key: 'shop/web', lines, bytes: lines }],
    })
    await using several = await consumers([
      { histogram: of('00:00', '01:00', [6, 12, 18, 24]) },
      { histogram: of('00:30', '02:00', [10, 20, 30, 40]) },
    ])
    const { since, until, step, series } = await several.get<shapes.HistogramAnswer>('/histogram?buckets=4')
    expect([since, until, step]).toEqual([`${DAY}T00:00:00.000Z`, `${DAY}T02:00:00.000Z`, 1_800_000])
    const [first, second, third, fourth] = series[0]!.lines
    expect(first).toBeCloseTo(18)
    expect(second).toBeCloseTo(42 + 10 + 20 / 3)
    expect(first! + second! + third! + fourth!).toBeCloseTo(160)
  })

  it('says of the ledger what all of them come to, and of a run what the one knows that read the most', async () => {
    const count = (written: number, lost: number) => ({
      lines: written + lost,
      written,
      lost,
      lostBy: lost === 0 ? {} : { gap: lost },
      claimed: 0,
      doubled: 0,
      ratio: 0,
    })
    const row = (written: number, lost: number) => ({
      service: 'shop',
      module: 'web',
      ...count(written, lost),
      last: `${DAY}T0${written % 10}`,
    })
    const run = (written: number, holes: { from: number; to: number; reason: string }[]): shapes.RunRow => ({
      ...{
        run: 'r1',
        service: 'shop',
        module: 'web',
        host: 'h',
        container: 'web-1',
        first: `${DAY}T01`,
        last: `${DAY}T02`,
        state: 'open',
      },
      agrees: true,
      sources: {
        stdout: { ...count(written, holes.length * 5), numbered: written + holes.length * 5, holes },
        stderr: { ...NO_LINES, numbered: 0, holes: [] },
      },
    })
    const hole = { from: 6, to: 10, reason: 'gap' }
    await using several = await consumers([
      {
        ledger: { total: count(10, 5), rows: [row(10, 5)] },
        runs: [run(10, [hole])],
        verify: { total: count(10, 5), losses: [] },
      },
      {
        ledger: { total: count(7, -5), rows: [row(7, -5)] },
        runs: [run(22, [])],
        verify: { total: count(7, -5), problems: [{ file: FILE, what: 'short', lines: 1, message: 'm' }] },
      },
    ])
    const { total, rows } = await several.get<shapes.LedgerAnswer>('/ledger')
    expect(total).toEqual({ ...NO_LINES, lines: 17, written: 17 })
    expect(rows).toEqual([{ service: 'shop', module: 'web', ...NO_LINES, lines: 17, written: 17, last: `${DAY}T07` }])
    expect((await several.get<shapes.LedgerAnswer>('/ledger?by=run')).rows).toEqual([run(22, [])])
    expect(await several.get<shapes.VerifyAnswer>('/verify')).toEqual({
      ...{ files: 2, bytes: 20, total: { ...NO_LINES, lines: 17, written: 17 }, losses: [], partial: [], rebuilt: 6 },
      removed: 2,
      problems: [{ file: `b:${FILE}`, what: 'short', lines: 1, message: 'm' }],
    })
  })

  it('mends the index of each, and says whose could not be', async () => {
    const tokens = { all: ['*'], some: ['shop'], peer: ['*'] }
    await using several = await consumers([{ reindexed: { blank: 7 } }, {}, { reindexed: { blank: 9 } }], { tokens })
    const ask = (token: string) =>
      fetch(`${several.urls[0]}/api/v1/reindex`, {
        ...{ method: 'POST', body: '{}' },
        headers: { 'content-type': 'application/json', ...several.apis[0]!.as(token) },
      })
    const events = (await (await ask('all')).text())
      .split('\n')
      .filter(Boolean)
      .map((event) => JSON.parse(event))
    expect(events[0]).toMatchObject({ type: 'progress', consumer: 'a' })
    expect(events.at(-1)).toMatchObject({
      type: 'end',
      days: [
        { consumer: 'a', blank: 7 },
        { consumer: 'c', blank: 9 },
      ],
      partial: [{ consumer: 'b', message: expect.stringContaining('the disk is full') }],
    })
    expect((await ask('some')).status).toBe(403)
  })

  it('finds a line, its neighbours and its file where they are', async () => {
    await using several = await consumers([{}, {}])
    const context = await several.get<shapes.ContextAnswer>(`/context?at=${encodeURIComponent(`b:${FILE}:7`)}`)
    expect(context.lines).toMatchObject([{ at: `b:${FILE}:7`, file: `b:${FILE}`, line: 'of b' }])
    for (const at of [`a:${FILE}:7`, `${FILE}:7`]) {
      const own = await several.get<shapes.ContextAnswer>(`/context?at=${encodeURIComponent(at)}`)
      expect(own.lines).toMatchObject([{ at: `a:${FILE}:7`, line: 'of a' }])
    }
    const file = await fetch(`${several.urls[0]}/api/v1/files/b:a%2525b/web/x.log`, { headers: { range: 'bytes=0-3' } })
    expect(file.status).toBe(206)
    expect(file.headers.get('content-range')).toBe('bytes 0-3/100')
    expect(await file.text()).toBe('b a%25b/web/x.log')
    expect((await fetch(`${several.urls[0]}/api/v1/files/b:none`)).status).toBe(404)
    expect(await several.get('/context?at=c:x/y:1')).toMatchObject({
      error: 'NOT_FOUND',
      message: expect.stringContaining('called c'),
    })
    expect(await several.get('/context?at=b:x/y:1')).toMatchObject({ error: 'NOT_FOUND', message: 'there is no x/y' })
  })

  it('lists dead letters by their consumers, shows one, and replays those that are named where they are', async () => {
    await using several = await consumers([{ letters: [3, 5] }, { letters: [1, 4] }])
    const post = (body: object) =>
      several.get<shapes.ReplayAnswer>('/dead-letters/replay', {
        ...{ method: 'POST', headers: { 'content-type': 'application/json' } },
        body: JSON.stringify(body),
      })
    const list = await several.get<shapes.DeadLettersAnswer>('/dead-letters?limit=3')
    expect(list.letters.map(({ name }) => name)).toEqual(['b:t-0-1', 'a:t-0-3', 'b:t-0-4'])
    expect(list).toMatchObject({ limited: true, bytes: 20, max: 200, partial: [] })
    expect(await several.get('/dead-letters/b:t-0-4')).toMatchObject({ name: 'b:t-0-4', value: 'b' })
    expect(await several.get('/dead-letters/a:t-0-3')).toMatchObject({ name: 'a:t-0-3', value: 'a' })
    expect(await several.get('/dead-letters/b:t-0-3')).toMatchObject({ error: 'NOT_FOUND' })
    const names = ({ replayed, failed }: shapes.ReplayAnswer) =>
      [replayed, failed].map((all) => all.map(({ name }) => name).toSorted())
    expect(names(await post({}))).toEqual([['a:t-0-3', 'a:t-0-5', 'b:t-0-1', 'b:t-0-4'], []])
    expect(names(await post({ names: ['b:t-0-1', 't-0-3', 'a:t-0-9', 'z:t-0-1'] }))).toEqual([
      ['a:t-0-3', 'b:t-0-1'],
      ['a:t-0-9', 'z:t-0-1'],
    ])
    expect(await post({ names: 'all' })).toMatchObject({ error: 'QUERY_INVALID' })
  })

  it('disowns a root wherever its partitions are', async () => {
    const [root, other] = ['3e0c55d4-9cf6-4d3b-a5a4-3c4b8b0a1a01', '3e0c55d4-9cf6-4d3b-a5a4-3c4b8b0a1a02']
    const claims = (partition: number) => ({
      root,
      state: 'claimed' as const,
      partitions: [partition],
      lines: 5,
      uncounted: 1,
    })
    await using several = await consumers([{ roots: [] }, { roots: [claims(2)] }, { roots: [claims(1)] }])
    expect(await several.get('/roots')).toEqual({
      roots: [{ root, state: 'claimed', partitions: [1, 2], lines: 10, uncounted: 2 }],
      partial: [],
    })
    const disown = (which: string) => several.get(`/roots/${which}/disown`, { method: 'POST' })
    expect(await disown(root)).toEqual({ root, state: 'disowned', partitions: [1, 2], lines: 10, uncounted: 2 })
    expect(await disown(other)).toMatchObject({ error: 'NOT_FOUND' })
  })

  it('tells no more of another than the caller may read', async () => {
    const services = [{}, { service: 'bank' }]
    const tokens = { peer: ['*'], clerk: ['shop'] }
    await using several = await consumers([{ services: [] }, { services }], { tokens })
    const headers = several.apis[0]!.as('clerk')
    const { modules, partial } = await several.get<shapes.ServicesAnswer>('/services', { headers })
    expect([modules.map(({ service }) => service), partial]).toEqual([['shop'], []])
    // Nor does anybody read more by saying so.
    const wider = { ...headers, 'tallyman-hop': 'x', 'tallyman-services': encodeURIComponent('["*"]') }
    const told = (await (
      await fetch(`${several.urls[1]}/api/v1/services`, { headers: wider })
    ).json()) as shapes.ServicesAnswer
    expect(told.modules.map(({ service }) => service)).toEqual(['shop'])
  })
})

const said = (events: Record<string, unknown>[]) => events.map(({ type, line, file }) => line ?? file ?? type)

describe('the token for the others', () => {
  it('goes nowhere but to them, whatever host the caller names', async () => {
    let strangers = 0
    const stranger = createServer(() => strangers++).listen(0, '127.0.0.1')
    await once(stranger, 'listening')
    const url = `http://127.0.0.1:${(stranger.address() as AddressInfo).port}/api/v1/services`
    await using several = await consumers([{ services: [] }, { services: [{}] }], {
      tokens: { peer: ['*'], clerk: ['*'] },
    })
    const { hostname, port } = new URL(several.urls[0]!)
    const headers = several.apis[0]!.as('clerk')
    const [answer] = (await once(request({ hostname, port, path: url, headers }).end(), 'response')) as [
      IncomingMessage,
    ]
    expect(answer.statusCode).toBe(400)
    expect(JSON.parse(await text(answer))).toMatchObject({ error: 'REQUEST_INVALID' })

    const peers = new Peers({ urls: [several.urls[1]!], tokenFile: undefined, self: { name: 'x', uuid: 'x' } })
    const question = { access: ANYBODY, signal: AbortSignal.timeout(5_000) }
    await expect(peers.others[0]!.json(shapes.servicesAnswer, { path: url, ...question })).rejects.toThrow('401')
    peers.close()
    stranger.close()
    expect(strangers).toBe(0)
  })
})

describe('history of all of them', () => {
  const of = (...seconds: number[]): shapes.LinesEvent[] => [
    ...seconds.map((second) => line({ second })),
    end(seconds.length),
  ]

  it('is in the order of time, with the consumers named', async () => {
    await using several = await consumers([{ lines: of(1, 4, 5) }, { lines: of(2, 3, 6) }, { lines: of() }])
    const events = await several.events('/lines')
    expect(said(events)).toEqual([...[1, 2, 3, 4, 5, 6].map((second) => `at ${second}`), 'end'])
    expect(events[1]).toMatchObject({ at: `b:${FILE}:2`, file: `b:${FILE}` })
    expect(events.at(-1)).toEqual(end(6))
  })

  it('has no more lines than were asked for, the first or the last', async () => {
    await using several = await consumers([{ lines: of(1, 4, 5) }, { lines: of(2, 3, 6) }])
    const first = await several.events('/lines?limit=3')
    expect(said(first)).toEqual(['at 1', 'at 2', 'at 3', 'end'])
    expect(first.at(-1)).toEqual(end(3, true))
    const last = await several.events('/lines?limit=3&last=true')
    expect(said(last)).toEqual(['at 4', 'at 5', 'at 6', 'end'])
    expect(last.at(-1)).toEqual(end(3, true))
    expect((await several.events('/lines?limit=6')).at(-1)).toEqual(end(6, false))
  })

  it('says what one of them could not read, and that one broke off', async () => {
    const gap = { file: 'x', message: 'unreadable' }
    await using several = await consumers([
      { lines: of(1) },
      { lines: [line({ second: 2 }), { ...end(1), partial: [gap] }] },
      { lines: [line({ second: 3 })] },
    ])
    const { partial, lines } = (await several.events('/lines')).at(-1)!
    expect(lines).toBe(3)
    expect(partial).toEqual([
      { consumer: 'b', ...gap },
      { consumer: 'c', message: 'it broke off' },
    ])
  })

  it('comes as server-sent events where those are asked for', async () => {
    await using several = await consumers([{ lines: of(1) }, { lines: of(2) }])
    const answer = await fetch(`${several.urls[0]}/api/v1/lines`, { headers: { accept: 'text/event-stream' } })
    expect(answer.headers.get('content-type')).toMatch(/^text\/event-stream/)
    expect((await answer.text()).match(/^data: /gm)).toHaveLength(3)
  })

  it('that is refused here is refused', async () => {
    await using several = await consumers([{ lines: of(1) }, { lines: of(2) }])
    expect(await several.get('/lines?limit=0')).toMatchObject({ error: 'QUERY_INVALID' })
  })
})

describe('a search of all of them', () => {
  const progress = (matched: number): shapes.ProgressEvent => ({
    type: 'progress',
    files: 1,
    filesTotal: 2,
    bytes: 3,
    bytesTotal: 4,
    matched,
  })
  const other = `shop/web/2026-11-24.log`
  const asked = '/search?pattern=at'

  it('goes day by day and file by file, adds up progress, and keeps to the limit', async () => {
    const one = [[line({ second: 1 }), line({ second: 3 })], [line({ second: 9, file: other })], [progress(3), end(3)]]
    const two = [[line({ second: 2 })], [line({ second: 8, file: other })], [progress(2), end(2, true)]]
    await using several = await consumers([{ search: one }, { search: two }])
    const events = await several.events(asked)
    expect(events.filter(({ type }) => type === 'line').map(({ at }) => at)).toEqual([
      ...[`a:${FILE}:1`, `a:${FILE}:3`, `b:${FILE}:2`, `a:${other}:9`, `b:${other}:8`],
    ])
    expect(events.findLast(({ type }) => type === 'progress')).toEqual({
      ...progress(5),
      files: 2,
      filesTotal: 4,
      bytes: 6,
      bytesTotal: 8,
    })
    expect(events.at(-1)).toEqual(end(5, true))
    const few = await several.events(`${asked}&limit=2`)
    expect(few.filter(({ type }) => type === 'line')).toHaveLength(2)
    expect(few.at(-1)).toEqual(end(2, true))
  })

  it('leaves a match among its own context', async () => {
    const context = (from: number) => [
      line({ second: from, context: true }),
      line({ second: from + 1 }),
      line({ second: from + 2, context: true }),
    ]
    const separator: shapes.SearchEvent = { type: 'separator' }
    await using several = await consumers([
      { search: [[...context(1), separator, ...context(11)], [end(2)]] },
      { search: [context(21).slice(0, 2), [context(21)[2]!, separator, ...context(31)], [end(2)]] },
    ])
    const events = await several.events(`${asked}&before=1&after=1`)
    const of = (from: number) => [0, 1, 2].map((i) => `at ${from + i}`)
    const groups = said(events.slice(0, -1))
      .join(' ')
      .split(' separator ')
      .map((group) => group.split(/ (?=at)/))
    expect(groups.flat()).toHaveLength(12)
    expect(groups.toSorted((a, b) => Number(a[0]!.slice(3)) - Number(b[0]!.slice(3)))).toEqual([
      of(1),
      of(11),
      of(21),
      of(31),
    ])
    expect(events.at(-1)).toEqual(end(4))
  })

  it('has the last of all, by time, whichever file and consumer they are of', async () => {
    const bank = `bank/web/${DAY}.log`
    const early = [line({ second: 1, file: bank }), line({ second: 2, file: bank }), line({ second: 9 })]
    const late = [line({ second: 30, file: other }), line({ second: 7, file: bank }), line({ second: 8 })]
    await using several = await consumers([{ search: [early, [end(3, true)]] }, { search: [late, [end(3, true)]] }])
    const events = await several.events(`${asked}&limit=3&last=true`)
    expect(events.filter(({ type }) => type === 'line').map(({ at }) => at)).toEqual([
      ...[`b:${other}:30`, `a:${FILE}:9`, `b:${FILE}:8`],
    ])
    expect(events.at(-1)).toEqual(end(3, true))
    const all = await several.events(`${asked}&limit=6&last=true`)
    expect(all.filter(({ type }) => type === 'line').map(({ at }) => at)).toEqual([
      ...[`b:${other}:30`, `a:${bank}:1`, `a:${bank}:2`, `b:${bank}:7`, `a:${FILE}:9`, `b:${FILE}:8`],
    ])
  })

  it('tells none of the last before all have told theirs', async () => {
    async function* slow(): AsyncGenerator<shapes.SearchEvent[]> {
      for (let i = 0; i < 20; i++) await turn()
      yield [line({ second: 5 }), end(1)]
    }
    async function* quick(): AsyncGenerator<shapes.SearchEvent[]> {
      yield [line({ second: 1 }), end(1)]
    }
    const feeds = [
      { name: 'a', events: quick() },
      { name: 'b', events: slow() },
    ]
    const bounds = { limit: 1, last: true, before: 0, after: 0 }
    const events = (await Array.fromAsync(mergeSearches(feeds, bounds, 0))).flat()
    expect(events).toMatchObject([{ at: `b:${FILE}:5` }, end(1, true)])
  })

  it('leaves the last matches among their context, and cuts what stands around others off', async () => {
    const context = (second: number) => line({ second, context: true })
    const separator: shapes.SearchEvent = { type: 'separator' }
    // Two matches that share their context, of which the first is too early.
    const shared = [context(1), line({ second: 2 }), context(3), line({ second: 4 }), context(5)]
    const one = [...shared, separator, context(21), line({ second: 22 })]
    await using several = await consumers([
      { search: [one, [context(23)], [end(3)]] },
      { search: [[context(11), line({ second: 12 }), context(13)], [end(1)]] },
    ])
    const events = await several.events(`${asked}&before=1&after=1&limit=3&last=true`)
    const shown = events.map((event) =>
      event['type'] === 'line' ? `${event['position']}${event['context'] ? 'c' : ''}` : event['type'],
    )
    expect(shown).toEqual([
      ...['3c', '4', '5c', 'separator', '21c', '22', '23c', 'separator', '11c', '12', '13c', 'end'],
    ])
    expect(events.at(-1)).toEqual(end(3, true))
  })

  it('counts by file and consumer', async () => {
    const count = (lines: number): shapes.SearchEvent => ({
      type: 'count',
      file: FILE,
      service: 'shop',
      module: 'web',
      lines,
    })
    await using several = await consumers([{ search: [[count(2), end(2)]] }, { search: [[count(3), end(3)]] }])
    const events = await several.events(`${asked}&count=true`)
    expect(said(events).toSorted()).toEqual([`a:${FILE}`, `b:${FILE}`, 'end'])
    expect(events.at(-1)).toEqual(end(5))
  })

  it('tells what is found while another one still searches', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const slow: Holdings = { searching: promise, search: [[line({ second: 1 }), end(1)]] }
    await using several = await consumers([slow, { search: [[line({ second: 2 })], [end(1)]] }])
    const answer = await fetch(`${several.urls[0]}/api/v1${asked}`)
    const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader()
    const { value } = await reader.read()
    expect(JSON.parse(value!)).toMatchObject({ at: `b:${FILE}:2` })
    resolve()
    let rest = ''
    for (let read = await reader.read(); !read.done; read = await reader.read()) rest += read.value
    expect(rest).toContain(`a:${FILE}:1`)
  })
})

describe.each([
  ['line by line', 'application/x-ndjson'],
  ['in batches', BATCHES],
])('a tail of all of them, %s', (_, accept) => {
  /** Says window and history, then what is put in, until the reader leaves; `queries` are those of the readers that came. */
  class Live {
    readonly queries: shapes.TailQuery[] = []
    /** What a reader who comes back with a cursor gets. */
    behind: shapes.TailEvent[] = []
    left = 0
    #history: shapes.TailEvent[]
    #put: ((events: shapes.TailEvent[] | 'break') => void) | undefined
    constructor(...history: shapes.TailEvent[]) {
      this.#history = history
    }
    put(...events: shapes.TailEvent[]): void {
      this.#put!(events)
    }
    break(): void {
      this.#put!('break')
    }
    tail = async function* (
      this: Live,
      query: shapes.TailQuery,
      signal: AbortSignal,
    ): AsyncGenerator<shapes.TailEvent[]> {
      this.queries.push(query)
      const stream = new Readable({ objectMode: true, read() {} })
      signal.addEventListener('abort', () => stream.push(null))
      this.#put = (events) => stream.push(events === 'break' ? null : events)
      try {
        yield [
          { type: 'window', ms: 7 },
          ...(query.cursor === undefined ? this.#history : this.behind),
          { type: 'cursor', cursor: 'c0' },
        ]
        yield* stream
      } finally {
        this.left++
      }
    }.bind(this)
  }

  /** The line of a second, as far from its neighbours as its bytes need. */
  const at = (second: number): shapes.Line => ({ ...line({ second }), position: 100 * second })

  async function follow(url: string) {
    const reader = new Following(url, { accept })
    await until('it has begun', () => reader.events.length > 0)
    return Object.assign(reader, { texts: () => reader.lines.map(({ line }) => line) })
  }

  it('has the last lines of history first, then what lands in the order of time', async () => {
    const [a, b] = [new Live(at(1), at(4)), new Live(at(2), at(3))]
    await using several = await consumers([{ tail: a.tail }, { tail: b.tail }])
    await using reader = await follow(`${several.urls[0]}/api/v1/tail?last=3`)
    await until('history is there', () => reader.texts().length === 3)
    expect(reader.events[0]).toEqual({ type: 'window', ms: 107 })
    expect(reader.inBatches).toBe(accept === BATCHES)
    expect(reader.texts()).toEqual(['at 2', 'at 3', 'at 4'])
    b.put(at(8))
    a.put(at(7), { type: 'missed', lines: 3 })
    await until('what landed is there', () => reader.texts().length === 5)
    expect(reader.events.filter(({ type }) => type === 'missed')).toEqual([{ type: 'missed', lines: 3 }])
    expect(reader.texts().slice(3)).toEqual(['at 7', 'at 8'])
  })

  it('says where each of them is, and goes on there', async () => {
    const [a, b] = [new Live(), new Live()]
    await using several = await consumers([{ tail: a.tail }, { tail: b.tail }])
    let cursor = ''
    {
      await using reader = await follow(`${several.urls[0]}/api/v1/tail`)
      a.put(at(1), { type: 'cursor', cursor: 'a1' })
      b.put(at(2), { type: 'cursor', cursor: 'b1' })
      await until('both are in it', () => {
        cursor = String(reader.events.findLast(({ type }) => type === 'cursor')?.['cursor'])
        return cursor === 'a:a1,b:b1'
      })
    }
    await until('both know that the reader left', () => a.left === 1 && b.left === 1)
    await using again = await follow(`${several.urls[0]}/api/v1/tail?last=5&cursor=${encodeURIComponent(cursor)}`)
    await until('both were asked', () => a.queries.length === 2 && b.queries.length === 2)
    expect([a.queries[1]!.cursor, b.queries[1]!.cursor, b.queries[1]!.last]).toEqual(['a1', 'b1', 0])
    expect(again.texts()).toEqual([])
  })

  it('tells that one went away, and goes on behind where it was, with nothing twice', async () => {
    const [a, b] = [new Live(), new Live()]
    await using several = await consumers([{ tail: a.tail }, { tail: b.tail }])
    await using reader = await follow(`${several.urls[0]}/api/v1/tail`)
    await until('it follows', () => b.queries.length === 1)
    b.put(at(1), { type: 'cursor', cursor: 'b1' }, at(2))
    await until('they came', () => reader.texts().length === 2)
    b.behind = [at(1), at(2), at(3)]
    b.break()
    await until('it is asked again', () => b.queries.length === 2)
    expect(b.queries[1]).toMatchObject({ cursor: 'b1' })
    a.put(at(4))
    await until('the rest came', () => reader.texts().length === 4)
    expect(reader.texts()).toEqual(['at 1', 'at 2', 'at 3', 'at 4'])
    expect(reader.events.filter(({ type }) => type === 'gap')).toEqual([
      { type: 'gap', consumer: 'b', message: 'it broke off' },
    ])
  })

  it('goes on where a consumer is missing from the start', async () => {
    using silent = await deaf()
    const a = new Live(at(1))
    await using several = await consumers([{ tail: a.tail }], { more: [silent.url] })
    await using reader = await follow(`${several.urls[0]}/api/v1/tail?last=1`)
    await until('history is there', () => reader.texts().length === 1)
    await until('who is missing is told', () => reader.events.some(({ type }) => type === 'gap'))
    a.put(at(2))
    await until('what lands is there', () => reader.texts().length === 2)
  })

  it('keeps the place of one that says nothing, and goes on there once its name is known', async () => {
    const [closed] = await freePorts(1)
    const [a, b] = [new Live(), new Live()]
    await using several = await consumers([{ tail: a.tail }, { tail: b.tail }], {
      more: [`http://127.0.0.1:${closed}`],
    })
    await using reader = await follow(`${several.urls[0]}/api/v1/tail?cursor=a:a1,b:b1,c:c1`)
    await until('both that are there are in it', () => reader.events.some(({ cursor }) => cursor === 'a:c0,b:c0,c:c1'))
    const peers = new Peers({ urls: [several.urls[1]!], tokenFile: undefined, self: { name: 'x', uuid: 'x' } })
    const leave = new AbortController()
    const asked = { access: ANYBODY, url: '/api/v1/tail?cursor=b:b1' }
    const events = followPeer(peers.others[0]!, asked, new Map([['b', 'b1']]), leave.signal)
    await events.next()
    expect(b.queries.at(-1)).toMatchObject({ cursor: 'b1' })
    leave.abort()
    await events.return(undefined)
    peers.close()
  })

  it('ends for a reader who left while the others were asked for their names', async () => {
    using silent = await deaf()
    const a = new Live()
    await using several = await consumers([{ tail: a.tail }], { more: [silent.url] })
    const leave = new AbortController()
    const came = once(several.apis[0]!.server.server, 'request')
    const asked = fetch(`${several.urls[0]}/api/v1/tail`, { signal: leave.signal }).catch(() => {})
    await came
    leave.abort()
    await asked
    await until('it has begun and ended', () => a.queries.length === 1 && a.left === 1)
  })
})

describe('a consumer that is missing', () => {
  it('is named in the answer, whether it refuses, is deaf, or is something else', async () => {
    using silent = await deaf()
    const [closed] = await freePorts(1)
    const more = [`http://127.0.0.1:${closed}`, silent.url]
    await using several = await consumers([{ services: [{}] }, { services: [{}] }], { more })
    const { modules, partial } = await several.get<shapes.ServicesAnswer>('/services')
    expect(modules[0]!.lines).toBe(20)
    expect(partial).toMatchObject([
      { consumer: `127.0.0.1:${closed}`, message: expect.stringContaining('ECONNREFUSED') },
      { consumer: new URL(silent.url).host, message: expect.stringContaining('says nothing') },
    ])
    const events = await several.events('/lines')
    expect(events.at(-1)).toMatchObject({
      type: 'end',
      partial: [{ consumer: expect.any(String) }, { consumer: expect.any(String) }],
    })
  })

  it('is told where its name is taken, its token is wrong, or its answer is not understood', async () => {
    await using namesakes = await consumers([{}, {}], { names: ['a', 'a'] })
    expect((await namesakes.get<shapes.ServicesAnswer>('/services')).partial).toMatchObject([
      { message: expect.stringContaining('CONSUMER_NAME') },
    ])
    await using several = await consumers([{ services: [] }, { services: [] }], {
      tokens: { peer: ['*'], clerk: ['*'] },
    })
    const [a] = several.apis
    const headers = a!.as('clerk')
    a!.tokens.write({ clerk: ['*'] })
    const told = await until(
      'the token is refused',
      async () => (await several.get<shapes.ServicesAnswer>('/services', { headers })).partial?.[0],
    )
    expect(told).toMatchObject({ consumer: 'b', message: expect.stringContaining('401') })
  })

  it('is told where it closed the connection and our own token is gone', async () => {
    using folder = temporaryFolder()
    const tokenFile = join(folder.path, 'token')
    writeFileSync(tokenFile, 'secret')
    let asked = 0
    const server = createHttpServer((request, response) => {
      if (++asked === 1) return void response.setHeader('tallyman-consumer', 'b uuid-b').end('{}')
      rmSync(tokenFile)
      request.socket.destroy()
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const peers = new Peers({ urls: [url], tokenFile, self: { name: 'a', uuid: 'uuid-a' } })
    const [peer] = peers.others
    const signal = AbortSignal.timeout(5_000)
    await peer!.introduce(ANYBODY, signal)
    await expect(peer!.introduce(ANYBODY, signal)).rejects.toThrow('PEERS_TOKEN_FILE')
    expect(asked).toBe(2)
    peers.close()
    server.close()
  })

  it('that answers slowly is waited for, because it lives', async () => {
    let probes = 0
    const asked = Promise.withResolvers<void>()
    await using several = await consumers([{ services: [] }, { services: [{}], ready: asked.promise }])
    several.apis[1]!.server.server.on('request', ({ url }) => {
      if (url === '/healthz' && ++probes === 3) asked.resolve()
    })
    const { modules, partial } = await several.get<shapes.ServicesAnswer>('/services')
    expect([modules.length, partial]).toEqual([1, []])
  })
})

it('a histogram is of the range of the consumers that hold any of the lines', () => {
  const some = { since: `${DAY}T12:00:00.000Z`, until: `${DAY}T12:00:10.000Z`, step: 5_000, partial: [] }
  const series = [{ key: 'shop/web', lines: [1, 2], bytes: [10, 20] }]
  const none = { ...some, since: '2026-12-24T00:00:00.000Z', until: '2026-12-24T00:00:00.001Z', step: 0.5, series: [] }
  const partial = [{ message: 'x' }]
  expect(
    mergeHistograms(
      [
        { name: 'a', answer: { ...some, series } },
        { name: 'b', answer: { ...none, partial } },
      ],
      2,
    ),
  ).toEqual({ ...some, series, partial: [{ consumer: 'b', message: 'x' }] })
  expect(mergeHistograms([{ name: 'b', answer: none }], 2)).toEqual(none)
})
