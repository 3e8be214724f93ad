/** What there is, as it is asked for over HTTP: overviews, histograms, context, downloads; and who may ask for what. */
import { mkdirSync, renameSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { BATCHES } from '../../consumer/event-decoder.ts'
import { temporaryFolder } from '../support/folder.ts'
import { untilKilled } from '../support/housekeeping.ts'
import { NOON, type Said } from '../support/landing.ts'
import { linesOf, Reading } from '../support/reading.ts'
import { until } from '../support/until.ts'

const DAY_MS = 86_400_000

const said = (more: Partial<Said> = {}): Said => ({
  ...{ partition: 0, module: 'web', run: 1, first: 1, count: 10, ms: NOON, bytes: 30 },
  ...more,
})

describe('what there is', () => {
  it('modules with their days, files, lines, hosts and containers', async () => {
    await using reading = await Reading.create()
    await reading.land([
      said(),
      said({ first: 11, ms: NOON - DAY_MS }),
      said({ run: 2, module: 'db', service: 'other', host: 'h2', count: 3 }),
    ])
    const { modules, partial } = (await reading.get('services')).json()
    expect(partial).toEqual([])
    expect(modules).toEqual([
      expect.objectContaining({ service: 'other', module: 'db', days: 1, files: 1, lines: 3, hosts: ['h2'] }),
      expect.objectContaining({
        ...{ service: 's', module: 'web', days: 2, files: 2, lines: 20, lost: 0, hosts: ['h'], containers: ['c1'] },
        ...{ first: '2026-11-22T12:00:00.000Z', last: '2026-11-23T12:00:00.009Z' },
      }),
    ])
    expect(modules[1].rate).toHaveLength(60)
    const only = (await reading.get('services', { target: 's/*' })).json()
    expect(only.modules.map(({ module }: { module: string }) => module)).toEqual(['web'])
    const { days } = (await reading.get('days')).json()
    expect(days.map(({ day, module, lines }: Record<string, unknown>) => [day, module, lines])).toEqual([
      ['2026-11-23', 'db', 3],
      ['2026-11-23', 'web', 10],
      ['2026-11-22', 'web', 10],
    ])
    expect(days[2].files).toEqual([{ file: 's/web/2026-11-22.log', bytes: expect.any(Number) }])
    const since = (await reading.get('days', { since: '2026-11-23' })).json()
    expect(since.days).toHaveLength(2)
  })

  it('lines of the last hour by the minute', async () => {
    await using reading = await Reading.create()
    const now = Date.now()
    const appended = now
    await reading.land([
      said({ ms: now - 30_000, appended, count: 5 }),
      said({ run: 2, ms: now - 90_000, appended, count: 7 }),
    ])
    const { modules } = (await reading.get('services')).json()
    expect(modules[0].rate.slice(-2)).toEqual([7, 5])
  })

  it('a histogram spreads a row over the buckets that it spans, and holds every line', async () => {
    await using reading = await Reading.create()
    const lines = Array.from({ length: 100 }, (_, i) => ({
      ...{ source: i % 4 === 0 ? ('stderr' as const) : ('stdout' as const), ms: NOON + i * 101, text: 'x' },
    }))
    await reading.land([said({ printed: lines }), said({ run: 2, module: 'db', ms: NOON + 9_000, count: 10 })])
    const range = { since: '2026-11-23T12:00:00Z', until: '2026-11-23T12:00:10Z', buckets: 10 }
    const total = (await reading.get('histogram', { ...range, by: 'total' })).json()
    expect(total).toMatchObject({ since: '2026-11-23T12:00:00.000Z', step: 1000, partial: [] })
    const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0)
    expect(sum(total.series[0].lines)).toBeCloseTo(110, 1)
    expect(total.series[0].lines[3]).toBeCloseTo(10, 0)
    expect(total.series[0].lines[9]).toBeCloseTo(20, 0)
    const sources = (await reading.get('histogram', { ...range, by: 'source' })).json().series
    expect(sources.map(({ key, lines }: { key: string; lines: number[] }) => [key, Math.round(sum(lines))])).toEqual([
      ['stderr', 25],
      ['stdout', 85],
    ])
    const modules = (await reading.get('histogram', { ...range, source: 'stderr' })).json().series
    expect(modules.map(({ key }: { key: string }) => key)).toEqual(['s/web'])
  })
})

describe('context', () => {
  it('of a line: its neighbours in its file, whoever printed them', async () => {
    await using reading = await Reading.create()
    await reading.land([said(), said({ run: 2 }), said({ first: 11 })])
    const lines = linesOf(await reading.events('lines', {}))
    const inFile = lines.toSorted((a, b) => a.position - b.position)
    const answer = (await reading.get('context', { at: inFile[12]!.at, before: 5, after: 20 })).json()
    expect(answer.index).toBe(5)
    expect(answer.lines).toEqual(inFile.slice(7))
    const first = (await reading.get('context', { at: inFile[0]!.at, before: 5, after: 0 })).json()
    expect(first).toEqual({ lines: [inFile[0]], index: 0, partial: [] })
  })

  it.each([
    '',
    'x',
    's/web/2026-11-23.log:1',
    's/web/2026-11-23.log:99999',
    's/nn/2026-11-23.log:0',
    '../../etc/passwd:0',
    's/web/2026-11-23.log:-1',
  ])('of %j, where there is no line, is not found', async (at) => {
    await using reading = await Reading.create()
    await reading.land([said()])
    expect((await reading.get('context', { at })).statusCode).toBe(at === '' ? 400 : 404)
  })
})

describe('a download', () => {
  it('is the file as it lies on the disk, or a range of it', async () => {
    await using reading = await Reading.create()
    await reading.land([said()])
    const whole = await reading.get('files/s/web/2026-11-23.log')
    expect(whole.statusCode).toBe(200)
    expect(whole.headers).toMatchObject({
      'content-type': 'text/plain; charset=utf-8',
      'content-disposition': 'attachment; filename="s_web_2026-11-23.log"',
      'accept-ranges': 'bytes',
    })
    expect(whole.body.split('\n')).toHaveLength(11)
    const url = '/api/v1/files/s/web/2026-11-23.log'
    const part = await reading.api.server.inject({ url, headers: { range: 'bytes=5-9' } })
    expect([part.statusCode, part.body]).toEqual([206, whole.body.slice(5, 10)])
    const beyond = await reading.api.server.inject({ url, headers: { range: 'bytes=999999-' } })
    expect(beyond.statusCode).toBe(416)
  })

  it('is told in the log, with how much of it went out', async () => {
    await using reading = await Reading.create()
    await reading.land([said()])
    const answer = await fetch(`${await reading.api.listen()}/api/v1/files/s/web/2026-11-23.log`)
    const { length } = await answer.text()
    const told = await until('it is told', () => reading.api.log.find(({ audit }) => audit === 'download'))
    expect(told).toMatchObject({ params: { '*': 's/web/2026-11-23.log' }, status: 200, whole: true })
    expect(told['bytes']).toBeGreaterThan(length)
  })

  it('is of no file but those that hold lines, and follows no link', async () => {
    await using reading = await Reading.create()
    await reading.land([said(), said({ run: 2, module: 'db' })])
    using elsewhere = temporaryFolder()
    mkdirSync(join(elsewhere.path, 'db'))
    renameSync(join(reading.root, 's/db/2026-11-23.log'), join(elsewhere.path, 'db/2026-11-23.log'))
    renameSync(join(reading.root, 's/db'), join(reading.root, 's/db-before'))
    symlinkSync(join(elsewhere.path, 'db'), join(reading.root, 's/db'))
    for (const path of [
      's/db/2026-11-23.log',
      's/web/2026-11-24.log',
      's/web',
      '.tallyman/checkpoint',
      '../../../etc/passwd',
      '..%2f..%2f..%2fetc%2fpasswd',
      's/web/..%2f..%2f.tallyman%2fuuid',
      '%00',
    ]) {
      const { statusCode } = await reading.get(`files/${path}`)
      expect([path, statusCode]).toEqual([path, 404])
    }
    const partial = [expect.objectContaining({ file: 's/db/2026-11-23.log' })]
    expect((await reading.events('lines', {})).at(-1)).toMatchObject({ lines: 10, partial })
    expect((await reading.events('search', { pattern: '' })).at(-1)).toMatchObject({
      lines: 10,
      partial: [{ file: 's/db/2026-11-23.log' }],
    })
  })
})

describe.each(['zst', 'gz'] as const)('a day that is compressed (%s)', (as) => {
  it('is read as one that is not', async () => {
    using root = temporaryFolder()
    const ask = async (reading: Reading) => {
      const lines = await reading.events('lines', { limit: 10_000 })
      return {
        lines,
        some: await reading.events('lines', { since: '2026-11-20T12:00:01Z', until: '2026-11-20T12:00:02Z' }),
        last: await reading.events('lines', { limit: 3, last: true }),
        found: await reading.events('search', { pattern: '^1?999 ' }),
        around: await reading.events('search', { pattern: '^1000 ', before: 2, after: 2 }),
        context: (await reading.get('context', { at: linesOf(lines)[1000]!.at })).json(),
      }
    }
    const withoutProgress = (answers: Awaited<ReturnType<typeof ask>>) => ({
      ...answers,
      found: linesOf(answers.found),
      around: linesOf(answers.around),
    })
    let before: Awaited<ReturnType<typeof ask>>
    let text: string
    {
      await using reading = await Reading.create({ root: root.path })
      await reading.land([said({ count: 3000, ms: NOON - 3 * DAY_MS }), said({ run: 2, module: 'db' })])
      before = await ask(reading)
      text = (await reading.get('files/s/web/2026-11-20.log')).body
    }
    expect(linesOf(before.lines)).toHaveLength(3010)
    expect(linesOf(before.found)).toHaveLength(2)
    expect(linesOf(before.around)).toHaveLength(5)
    expect(await untilKilled(root.path, { now: NOON + DAY_MS, as, keepDays: 30 })).toBe('done')
    await using reading = await Reading.create({ root: root.path })
    const { days } = (await reading.get('days')).json()
    expect(days[1].files).toEqual([{ file: 's/web/2026-11-20.log', bytes: text.length, compressed: as }])
    expect(withoutProgress(await ask(reading))).toEqual(withoutProgress(before))
    const { rawPayload, headers } = await reading.get('files/s/web/2026-11-20.log')
    expect(headers['content-type']).toBe(as === 'zst' ? 'application/zstd' : 'application/gzip')
    const inflated = as === 'gz' ? gunzipSync(rawPayload).toString() : zstdDecompressSync(rawPayload).toString()
    expect(text.startsWith(inflated)).toBe(true)
  })
})

describe('who may read some services', () => {
  it('gets an answer that holds those alone, from every route', async () => {
    await using reading = await Reading.create({ tokens: { some: ['s'], all: ['*'] } })
    await reading.land([said(), said({ run: 2, service: 'secret', module: 'vault', container: 'safe' })])
    const all = linesOf(await reading.events('lines', {}, 'all'))
    expect(all).toHaveLength(20)
    const at = all.find(({ service }) => service === 'secret')!.at
    expect((await reading.get('context', { at }, 'all')).statusCode).toBe(200)
    expect((await reading.get('context', { at }, 'some')).statusCode).toBe(404)
    expect((await reading.get('files/secret/vault/2026-11-23.log', {}, 'all')).statusCode).toBe(200)
    expect((await reading.get('files/secret/vault/2026-11-23.log', {}, 'some')).statusCode).toBe(404)
    for (const [route, query] of [
      ['lines', {}],
      ['lines', { target: 'safe' }],
      ['lines', { container: 'safe' }],
      ['search', { pattern: '' }],
      ['search', { pattern: '', count: true }],
      ['services', {}],
      ['days', {}],
      ['histogram', { by: 'service' }],
    ] as const) {
      const { statusCode, body } = await reading.get(route, query, 'some')
      expect([route, statusCode]).toEqual([route, 200])
      expect(body).not.toMatch(/secret|vault|safe/)
      expect((await reading.get(route, query)).statusCode).toBe(401)
    }
  })

  it.each(['line by line', 'in batches'])('follows those alone, %s', async (how) => {
    await using reading = await Reading.create({ tokens: { some: ['s'], all: ['*'] } })
    const accept = { accept: how === 'in batches' ? BATCHES : 'application/x-ndjson' }
    const follow = (who: string, query = {}) =>
      reading.follow('tail', { window: 0, last: 10, ...query }, { ...accept, ...reading.api.as(who) })
    await using all = await follow('all')
    await using some = await follow('some')
    await using asked = await follow('some', { target: 'secret/*' })
    for (const tail of [all, some, asked]) await until('it follows', () => tail.cursor !== undefined)
    await reading.land([said({ run: 2, service: 'secret', module: 'vault', container: 'safe' }), said()])
    await until('all lines are there', () => all.lines.length === 20 && some.lines.length === 10)
    expect(JSON.stringify([some.events, some.lines, asked.events, asked.lines])).not.toMatch(/secret|vault|safe/)
  })
})

describe('a question', () => {
  it.each([
    ['search', { pattern: 'a\0' }],
    ['search', { pattern: 'a', exclude: '\0' }],
    ['lines', { include: 'a\0b' }],
    ['tail', { exclude: '\0' }],
  ])('to %s of %j is refused for its NUL', async (route, query) => {
    await using reading = await Reading.create()
    const { statusCode, body } = await reading.get(route, query)
    expect([statusCode, JSON.parse(body)]).toMatchObject([400, { message: expect.stringContaining('NUL') }])
  })

  it.each(['lines', 'tail', 'search'])('by HEAD does not set %s to work', async (route) => {
    await using reading = await Reading.create()
    const url = `/api/v1/${route}?pattern=x`
    expect(await reading.api.server.inject({ method: 'HEAD', url })).toMatchObject({ statusCode: 404 })
  })
})
