/** Who gets in over HTTP and who does not: tokens, sessions, foreign pages, callers that ask too much. */
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type Events, sendEvents } from '../../consumer/event-stream.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Api } from '../support/http-api.ts'
import { until } from '../support/until.ts'

/** What the caller may read of two services, and a stream that goes on until somebody leaves. */
const routes: FastifyPluginAsyncZod[] = [
  async (api) => {
    api.get('/services', {}, async ({ access }) => ['shop', 'bank'].filter(access.may))
    api.get('/endless', { config: { stream: true, audit: 'tail' } }, async (_request, reply) =>
      reply.type('application/x-ndjson').send(Readable.from(endless())),
    )
    api.get(
      '/find',
      { config: { audit: 'search' }, schema: { querystring: z.object({ pattern: z.string() }) } },
      async (request) => {
        request.linesSent = 3
        return {}
      },
    )
    api.post('/replay', { schema: { body: z.object({}) } }, async () => ({ replayed: true }))
    api.get('/broken', {}, async () => {
      throw new Error('secret words')
    })
  },
]
async function* endless() {
  yield '{"type":"heartbeat"}\n'
  await new Promise(() => {})
}
const SERVICES = '/api/v1/services'

describe('a consumer that asks for tokens', () => {
  it('tells nothing without one, nor with a wrong one, and says how to send it', async () => {
    await using api = await Api.create({ clerk: ['shop'] }, { routes })
    for (const authorization of [undefined, 'Bearer', 'Bearer wrong', 'Basic Y2xlcms6', `Bearer ${'x'.repeat(5000)}`]) {
      for (const url of [SERVICES, '/api/v1/openapi.json', '/metrics', '/nowhere', '/api/v1/nowhere']) {
        const answer = await api.server.inject({ url, headers: authorization ? { authorization } : {} })
        expect(answer.statusCode, url).toBe(401)
        expect(answer.headers['www-authenticate']).toMatch(/^Bearer/)
        expect(answer.json()).toMatchObject({ error: 'TOKEN_REFUSED', message: expect.stringContaining('Bearer') })
      }
    }
    expect((await api.server.inject({ url: SERVICES, headers: api.as('clerk') })).json()).toEqual(['shop'])
    expect((await api.server.inject({ url: '/metrics', headers: api.as('clerk') })).statusCode).toBe(200)
  })

  it('answers probes without one, but does not say why it is not ready', async () => {
    const trouble = () => 'no broker answers at kafka-1.internal'
    await using api = await Api.create({ clerk: ['shop'] }, { trouble })
    expect((await api.server.inject('/healthz')).statusCode).toBe(200)
    expect((await api.server.inject('/readyz')).json()).toEqual({ status: 'not ready' })
    const told = await api.server.inject({ url: '/readyz', headers: api.as('clerk') })
    expect(told.statusCode).toBe(503)
    expect(told.json()).toEqual({ status: 'not ready', reason: trouble() })
  })

  it('heeds a changed file, and keeps the old one where the new one is damaged', async () => {
    await using api = await Api.create({ clerk: ['shop'] }, { routes })
    const asClerk = async () => (await api.server.inject({ url: SERVICES, headers: api.as('clerk') })).json()
    api.tokens.write({ clerk: ['shop', 'ba*'] })
    await until('the clerk may read more', async () => (await asClerk()).length === 2)
    appendFileSync(api.tokens.path, 'hunter2\n')
    await until('the damage is told', () => api.log.some(({ level }) => level === 40))
    expect(await asClerk()).toEqual(['shop', 'bank'])
    expect(JSON.stringify(api.log)).not.toContain('hunter2')
    api.tokens.write({ other: ['*'] })
    await until('the clerk is out', async () => (await asClerk()).error === 'TOKEN_REFUSED')
  })

  it('keeps the tokens while their file is written in place, and lists none for a moment', async () => {
    await using api = await Api.create({ clerk: ['shop'] }, { routes })
    const asClerk = async () => (await api.server.inject({ url: SERVICES, headers: api.as('clerk') })).json()
    writeFileSync(api.tokens.path, '')
    await until('the empty file is told', () =>
      api.log.some(({ level, msg }) => level === 40 && /heeded/.test(String(msg))),
    )
    expect(await asClerk()).toEqual(['shop'])
    api.tokens.write({ clerk: ['*'] })
    await until('the clerk may read more', async () => (await asClerk()).length === 2)
  })

  it('ends the stream of a token that is taken away, and no other', async () => {
    await using api = await Api.create({ clerk: ['shop'], boss: ['*'] }, { routes })
    const url = `${await api.listen()}/api/v1/endless`
    const [clerk, boss] = await Promise.all(['clerk', 'boss'].map((name) => fetch(url, { headers: api.as(name) })))
    const readers = [clerk!, boss!].map(({ body }) => body!.getReader())
    await Promise.all(readers.map((reader) => reader.read()))
    const ends = readers.map((reader) =>
      reader.read().then(
        () => 'end',
        () => 'broken off',
      ),
    )
    api.tokens.write({ boss: ['*'] })
    expect(await ends[0]).toBe('broken off')
    expect(await Promise.race([ends[1], 'goes on'])).toBe('goes on')
  })
})

describe('a session', () => {
  const login = (api: Api, token: string, headers = {}) =>
    api.server.inject({ method: 'POST', url: '/api/v1/session', headers, payload: { token } })

  it('is begun with a token, seen by no script, sent by no other site, and over when it is ended', async () => {
    await using api = await Api.create({ clerk: ['shop'] }, { routes })
    expect((await api.server.inject('/api/v1/session')).json()).toEqual({ required: true, services: [] })
    expect((await login(api, 'wrong')).statusCode).toBe(401)
    const begun = await login(api, api.tokens.token('clerk'))
    expect(begun.json()).toEqual({ required: true, name: 'clerk', services: ['shop'] })
    const [cookie] = begun.cookies
    expect(cookie).toMatchObject({ httpOnly: true, sameSite: 'Strict', path: '/', maxAge: 7 * 86_400 })
    expect(cookie).not.toHaveProperty('secure')
    const cookies = { [cookie!.name]: cookie!.value }
    expect((await api.server.inject({ url: SERVICES, cookies })).json()).toEqual(['shop'])
    expect((await api.server.inject({ url: '/api/v1/session', cookies })).json()).toMatchObject({ name: 'clerk' })
    const ended = await api.server.inject({ method: 'DELETE', url: '/api/v1/session', cookies })
    expect(ended.cookies[0]).toMatchObject({ value: '', sameSite: 'Strict' })
    expect((await api.server.inject({ url: SERVICES, cookies })).statusCode).toBe(401)
  })

  it('is for TLS alone behind a proxy that speaks TLS', async () => {
    await using api = await Api.create({ clerk: ['shop'] })
    const { cookies } = await login(api, api.tokens.token('clerk'), { 'x-forwarded-proto': 'https' })
    expect(cookies[0]).toMatchObject({ secure: true })
  })

  it('ends with its token, and one that is made up never began', async () => {
    await using api = await Api.create({ clerk: ['shop'], boss: ['*'] }, { routes })
    const [cookie] = (await login(api, api.tokens.token('clerk'))).cookies
    const status = async (value: string) =>
      (await api.server.inject({ url: SERVICES, cookies: { [cookie!.name]: value } })).statusCode
    expect(await status(cookie!.value)).toBe(200)
    expect(await status('__proto__')).toBe(401)
    expect(await status(`${cookie!.value}x`)).toBe(401)
    api.tokens.write({ boss: ['*'] })
    await until('the session is over', async () => (await status(cookie!.value)) === 401)
  })

  it('is not needed where no token is', async () => {
    await using api = await Api.create()
    const answer = { required: false, name: 'anybody', services: ['*'] }
    expect((await api.server.inject('/api/v1/session')).json()).toEqual(answer)
    const begun = await login(api, 'whatever')
    expect(begun.json()).toEqual(answer)
    expect(begun.cookies).toEqual([])
  })
})

describe("somebody else's page in a reader's browser", () => {
  const replay = { method: 'POST', url: '/api/v1/replay', payload: {} } as const

  it.each([
    [{ 'sec-fetch-site': 'cross-site' }, 403],
    [{ 'sec-fetch-site': 'same-site' }, 403],
    [{ origin: 'https://evil.example' }, 403],
    [{ origin: 'null' }, 403],
    [{ origin: 'http://localhost:8080' }, 403],
    [{ origin: 'http://localhost', 'sec-fetch-site': 'cross-site' }, 403],
    [{ origin: 'http://localhost' }, 200],
    [{ origin: 'https://logs.example', 'sec-fetch-site': 'same-origin' }, 200],
    [{}, 200],
  ])('which sends %j gets %i', async (headers, status) => {
    await using api = await Api.create(undefined, { routes })
    expect((await api.server.inject({ ...replay, headers: { host: 'localhost', ...headers } })).statusCode).toBe(status)
    expect((await api.server.inject({ url: SERVICES, headers: { host: 'localhost', ...headers } })).statusCode).toBe(
      status,
    )
  })

  it('logs nobody in or out', async () => {
    await using api = await Api.create({ clerk: ['shop'] })
    const headers = { 'sec-fetch-site': 'cross-site' }
    const payload = { token: api.tokens.token('clerk') }
    for (const method of ['POST', 'DELETE'] as const) {
      const answer = await api.server.inject({ method, url: '/api/v1/session', headers, payload })
      expect(answer.statusCode).toBe(403)
      expect(answer.cookies).toEqual([])
    }
  })

  it('reaches nothing by a name of its own that it points at 127.0.0.1', async () => {
    await using api = await Api.create(undefined, { routes })
    const status = async (host: string) => (await api.server.inject({ url: SERVICES, headers: { host } })).statusCode
    for (const host of [
      'evil.example',
      'evil.example:4680',
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      '@',
      '10.0.0.1',
    ])
      expect(await status(host), host).toBe(403)
    for (const host of ['localhost', 'localhost:4680', '127.0.0.1:4680', '127.1.2.3', '[::1]:4680', 'logs.localhost'])
      expect(await status(host), host).toBe(200)
  })
})

describe('a caller that asks too much', () => {
  it('is told when to ask again, by token and not by address', async () => {
    await using api = await Api.create({ clerk: ['shop'], boss: ['*'] }, { routes, requests: 3 })
    const ask = (headers: object) => api.server.inject({ url: SERVICES, headers: { ...headers } })
    for (let i = 0; i < 3; i++) expect((await ask(api.as('clerk'))).statusCode).toBe(200)
    const refused = await ask(api.as('clerk'))
    expect(refused.statusCode).toBe(429)
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    expect(refused.json()).toMatchObject({ error: 'ASKED_TOO_OFTEN', message: expect.stringContaining('RATE_LIMIT') })
    expect((await ask(api.as('boss'))).statusCode).toBe(200)
  })

  it('who tries tokens is held back like any other', async () => {
    await using api = await Api.create({ clerk: ['shop'] }, { routes, requests: 3 })
    const attempt = (i: number) => api.server.inject({ url: SERVICES, headers: { authorization: `Bearer ${i}` } })
    for (let i = 0; i < 3; i++) expect((await attempt(i)).statusCode).toBe(401)
    expect((await attempt(3)).statusCode).toBe(429)
    expect((await api.server.inject({ url: SERVICES, headers: api.as('clerk') })).statusCode).toBe(200)
  })

  it('may have so many streams open, and another one when one is closed', async () => {
    await using api = await Api.create(undefined, { routes, streams: 2 })
    const url = `${await api.listen()}/api/v1/endless`
    const leave = new AbortController()
    const first = await fetch(url, { signal: leave.signal })
    const second = await fetch(url)
    const third = await fetch(url)
    expect([first.status, second.status, third.status]).toEqual([200, 200, 429])
    expect(await third.json()).toMatchObject({ message: expect.stringContaining('STREAMS_MAX') })
    leave.abort()
    await until('there is room for another', async () => {
      const { status, body } = await fetch(url)
      await body?.cancel()
      return status === 200
    })
  })

  it('and leaves before it gets any leaves no work behind', async () => {
    const [came, left] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    let signal: AbortSignal | undefined
    let working = 0
    async function* work(gone: AbortSignal): Events {
      signal = gone
      working++
      try {
        yield ['{"type":"heartbeat"}']
        await new Promise(() => {})
      } finally {
        working--
      }
    }
    const early: FastifyPluginAsyncZod = async (api) => {
      const preHandler = async (_request: FastifyRequest, reply: FastifyReply) => {
        reply.raw.once('close', () => left.resolve())
        came.resolve()
        await left.promise
      }
      api.get('/work', { preHandler }, (request, reply) => sendEvents(request, reply, work))
    }
    await using api = await Api.create(undefined, { routes: [early] })
    const leave = new AbortController()
    const asked = fetch(`${await api.listen()}/api/v1/work`, { signal: leave.signal }).catch(() => {})
    await came.promise
    leave.abort()
    await asked
    await until('the work has begun and ended', () => signal?.aborted && working === 0)
  })

  it('with a request that never gets whole is cut off', async () => {
    const patience = { head: 100, request: 200, checkedEvery: 20 }
    await using api = await Api.create(undefined, { routes, patience })
    await api.listen()
    const { port } = api.server.server.address() as AddressInfo
    const never = [
      'GET /api/v1/services HTTP/1.1\r\nHost: localhost\r\nX-Slow: ',
      `POST /api/v1/replay HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`,
    ]
    for (const part of never) {
      const socket = connect(port, '127.0.0.1')
      socket.write(part)
      expect(await text(socket)).toMatch(/^HTTP\/1\.1 408 /)
    }
  })

  it('with a body or a head beyond all bounds is refused', async () => {
    await using api = await Api.create(undefined, { routes })
    const body = await api.server.inject({ method: 'POST', url: '/api/v1/replay', payload: { a: 'x'.repeat(70_000) } })
    expect(body.statusCode).toBe(413)
    expect(body.json()).toMatchObject({ error: 'REQUEST_INVALID' })
    const url = await api.listen()
    const head = await fetch(`${url}/api/v1/services?${'x'.repeat(100_000)}`)
    expect(head.status).toBe(431)
    expect(await head.json()).toMatchObject({ error: 'REQUEST_INVALID' })
  })
})

describe('an answer', () => {
  it('to what is broken within says nothing of it, and the log does', async () => {
    await using api = await Api.create(undefined, { routes })
    const answer = await api.server.inject('/api/v1/broken')
    expect(answer.statusCode).toBe(500)
    expect(answer.json()).toEqual({ error: 'INTERNAL', message: expect.not.stringContaining('secret') })
    expect(JSON.stringify(api.log)).toContain('secret words')
  })

  it.each([
    ['/nowhere', 404, 'NOT_FOUND'],
    ['/%', 400, 'REQUEST_INVALID'],
    ['/api/v1/%c0%ae', 400, 'REQUEST_INVALID'],
    ['/api/v1/../../../etc/passwd', 404, 'NOT_FOUND'],
    ['//etc/passwd', 404, 'NOT_FOUND'],
  ])('to %s is words with a code', async (url, status, error) => {
    await using api = await Api.create()
    const answer = await api.server.inject(url)
    expect(answer.statusCode).toBe(status)
    expect(answer.json()).toMatchObject({ error, message: expect.any(String) })
  })

  it('is bound to this origin by its headers', async () => {
    await using api = await Api.create()
    const { headers } = await api.server.inject('/healthz')
    expect(headers).toMatchObject({
      'content-security-policy': expect.stringMatching(/^default-src 'none';script-src 'self';style-src 'self';/),
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'cross-origin-resource-policy': 'same-origin',
      'referrer-policy': 'no-referrer',
    })
    expect(headers['content-security-policy']).not.toMatch(/unsafe|https?:|\*/)
    expect(headers).not.toHaveProperty('access-control-allow-origin')
  })
})

describe('the log', () => {
  it('says who searched for what and got how much, who logged in, and who was refused, but no token', async () => {
    await using api = await Api.create({ clerk: ['shop'] }, { routes })
    const token = api.tokens.token('clerk')
    await fetch(`${await api.listen()}/api/v1/find?pattern=a%1Bb`, { headers: api.as('clerk') })
    await until('the search is told', () => api.log.some(({ audit }) => audit === 'search'))
    await api.server.inject({ method: 'POST', url: '/api/v1/session', payload: { token } })
    await api.server.inject({ method: 'POST', url: '/api/v1/session', payload: { token: 'sesame' } })
    await api.server.inject({ url: SERVICES, headers: { authorization: 'Bearer sesame' } })
    const audits = api.log.filter(({ audit }) => audit)
    expect(audits).toMatchObject([
      {
        audit: 'search',
        who: 'clerk',
        address: '127.0.0.1',
        query: { pattern: 'a\x1bb' },
        lines: 3,
        status: 200,
        whole: true,
      },
      { audit: 'login', who: 'clerk' },
      { audit: 'refused', who: 'nobody', path: '/api/v1/session' },
      { audit: 'refused', who: 'nobody', path: SERVICES },
    ])
    expect(JSON.stringify(api.log)).not.toContain(token)
    expect(JSON.stringify(api.log)).not.toContain('sesame')
  })

  it('says that a reader left before the end', async () => {
    await using api = await Api.create(undefined, { routes })
    const leave = new AbortController()
    await fetch(`${await api.listen()}/api/v1/endless`, { signal: leave.signal })
    leave.abort()
    const told = await until('it is told', () => api.log.find(({ audit }) => audit === 'tail'))
    expect(told).toMatchObject({ who: 'anybody', whole: false })
  })
})

describe('a tokens file', () => {
  it('that can not be understood is refused with the lines that are wrong', async () => {
    await using api = await Api.create({ clerk: ['shop'] })
    const line = JSON.stringify({ name: 'twice', sha256: 'ab'.repeat(32), services: ['*'] })
    const bad = ['{"name":"a b","sha256":"12","services":"*"}', 'topsecret', line, line, '{"name":"x","hash":""}']
    writeFileSync(api.tokens.path, bad.join('\n'))
    const { message } = await until('it is refused', () => api.log.find(({ level }) => level === 40)?.['err'] as Error)
    expect(message).toMatch(/line 1: name: must be.*sha256: must be.*services: /)
    expect(message).toMatch(/line 2: is no JSON object/)
    expect(message).toMatch(/line 4: twice has the same token as twice/)
    expect(message).toMatch(/line 5: .*hash/)
    expect(message).not.toMatch(/line 3:|topsecret/)
  })
})

describe('the page', () => {
  /** A built page beside a secret. */
  function built(folder: string): string {
    const page = join(folder, 'web')
    mkdirSync(join(page, 'assets'), { recursive: true })
    writeFileSync(join(folder, 'secret'), 'secret')
    writeFileSync(join(page, 'index.html'), '<!doctype html><title>tallyman</title>')
    writeFileSync(join(page, 'assets/main-Bx91.js'), 'let x')
    return page
  }

  it('is served to whoever asks, its hashed files for ever and itself never from a cache', async () => {
    using folder = temporaryFolder()
    await using api = await Api.create({ clerk: ['shop'] }, { pageFolder: built(folder.path) })
    const page = await api.server.inject('/')
    expect(page).toMatchObject({ statusCode: 200, body: expect.stringContaining('tallyman') })
    expect(page.headers).toMatchObject({
      'cache-control': 'no-cache',
      'content-type': expect.stringMatching(/^text\/html/),
    })
    const script = await api.server.inject('/assets/main-Bx91.js')
    expect(script.headers).toMatchObject({ 'cache-control': 'public, max-age=31536000, immutable' })
    expect(script.headers['content-type']).toMatch(/javascript/)
    const again = await api.server.inject({ url: '/', headers: { 'if-none-match': String(page.headers['etag']) } })
    expect(again.statusCode).toBe(304)
  })

  it('is a folder that nobody climbs out of', async () => {
    using folder = temporaryFolder()
    await using api = await Api.create(undefined, { pageFolder: built(folder.path) })
    const url = await api.listen()
    const { port } = new URL(url)
    const paths = [
      '/../secret',
      '/assets/../../secret',
      '/%2e%2e/secret',
      '/..%2fsecret',
      '/assets/..%5c..%5csecret',
      '/%252e%252e/secret',
      '/assets/%00',
      '//secret',
      '/.',
      '/..;/secret',
      `/${folder.path}/secret`,
    ]
    for (const path of paths) {
      // Not by fetch, which makes a path tidy before it is sent.
      const { statusCode, body } = await new Promise<{ statusCode: number; body: string }>((resolve, reject) =>
        get({ port, host: '127.0.0.1', path }, async (answer) =>
          resolve({ statusCode: answer.statusCode!, body: await text(answer) }),
        ).on('error', reject),
      )
      expect([400, 404], path).toContain(statusCode)
      expect(body).not.toBe('secret')
    }
  })

  it('that was never built says where it is looked for', async () => {
    using folder = temporaryFolder()
    await using api = await Api.create(undefined, { pageFolder: folder.path })
    expect((await api.server.inject('/')).json()).toMatchObject({
      error: 'NOT_FOUND',
      message: expect.stringContaining(folder.path),
    })
  })
})
