import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { LineFormat } from '../../consumer/layout.ts'
import { ripgrep } from '../../consumer/ripgrep.ts'
import { NOON, type Said } from '../support/landing.ts'
import { type Event, linesOf, type Query, Reading } from '../support/reading.ts'
import { until } from '../support/until.ts'

/** Lines that a careless pattern finds in stamp and name, or not at all. */
const TEXTS = [
  'error: timeout',
  'an error',
  'Error',
  '  error indented',
  'web-1 says 2026',
  'terror errors',
  '2026-11-23T12:00:00.000Z web-1 not a stamp',
  '',
  ' ',
  'a)b|(c [x] {y} $z ^w \\q',
  'ünï cödé \u2028 ERROR',
  'quote " and \\ and \ttab error',
  'foo.bar foo_bar foo bar',
  'nul \0 error',
  'ÿþ error',
]
/** No UTF-8: searched as it is in `text`, and as U+FFFD in `jsonl`. */
const BYTES = Buffer.from([0xff, 0xfe, 0x20, 0x65, 0x72, 0x72, 0x6f, 0x72])

type Row = { ms: number; source: 'stdout' | 'stderr'; run: number; text: string }

/** Each of two containers, one called like what is searched for, prints every text, and both write one file. */
function rows(): { said: Said[]; all: Row[] } {
  const all: Row[] = []
  const said = Array.from({ length: 40 }, (_, i): Said => {
    const run = (i % 2) + 1
    const printed = TEXTS.map((text, j) => ({
      source: j % 3 === 0 ? ('stderr' as const) : ('stdout' as const),
      ms: NOON + i * 1000 + j,
      text,
    }))
    const first = Math.floor(i / 2) * TEXTS.length + 1
    all.push(...printed.map((line) => ({ ...line, run })))
    return {
      ...{ partition: 0, module: i % 5 === 4 ? 'db' : 'web', run: run + (i % 5 === 4 ? 2 : 0), first, count: 0 },
      ...{ container: run === 1 ? 'error-1' : 'web-1', printed },
    }
  })
  return { said, all }
}

const where = (events: readonly Event[]) =>
  linesOf(events).map(({ time, line }) => `${new Date(time).toISOString()} ${line}`)

describe.each(['text', 'jsonl', 'raw'] as LineFormat[])('search in %s', (format) => {
  let reading: Reading
  const { said, all } = rows()
  beforeAll(async () => {
    reading = await Reading.create({ format })
    await reading.land(said)
  })
  afterAll(() => reading[Symbol.asyncDispose]())

  const patterns = [
    'error',
    '^error',
    '^ *error',
    'error$',
    '^$',
    '^',
    '$',
    '',
    '^an|Error',
    '(^an|Error)',
    'an|^Error',
    'x*',
    '2026',
    '^2026',
    'web-1',
    'Z web-1',
    '\\berror\\b',
    '[^e]rror',
    'foo.bar',
    '\\d{4}',
    '^[^ ]+ [^ ]+$',
    'e[r]+or',
    'a\\)b',
    '\\^w',
    'ünï',
    '"',
    '\\\\',
    '\\t',
  ]

  it('finds what a naive look at each line finds', { timeout: 180_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...patterns),
        fc.record({
          fixed: fc.boolean(),
          ignoreCase: fc.boolean(),
          invert: fc.boolean(),
          last: fc.boolean(),
          limit: fc.constantFrom(3, 1000),
          source: fc.constantFrom(undefined, 'stdout', 'stderr'),
          module: fc.constantFrom(undefined, 'web'),
          exclude: fc.constantFrom(undefined, 'indented'),
        }),
        fc.constantFrom(undefined, [5_000, 20_000], [39_000, 60_000]),
        async (pattern, { source, module, ...query }, range) => {
          const regexp = new RegExp(
            query.fixed ? pattern.replace(/[\\^$.|?*+()[\]{}]/g, '\\$&') : pattern,
            query.ignoreCase ? 'iu'.slice(0, query.fixed ? 1 : 2) : '',
          )
          const [since, until] = (range ?? []).map((ms) => new Date(NOON + ms).toISOString())
          const asked = { ...query, pattern, module, since, until, ...(format !== 'raw' && { source }) }
          const events = await reading.events('search', asked)
          const wanted = all
            .map((row, i) => ({ ...row, module: Math.floor(i / TEXTS.length) % 5 === 4 ? 'db' : 'web' }))
            .filter((row) => module === undefined || row.module === module)
            .filter((row) => format === 'raw' || source === undefined || row.source === source)
            .filter(({ text }) => regexp.test(text) !== query.invert)
            .filter(({ text }) => query.exclude === undefined || !text.includes(query.exclude))
          if (format === 'raw') {
            // A row's lines have the times of all of them.
            if (range === undefined && query.limit === 1000)
              expect(linesOf(events).map(({ line }) => line)).toHaveLength(wanted.length)
            return
          }
          const inRange = wanted.filter(({ ms }) => !range || (ms >= NOON + range[0]! && ms < NOON + range[1]!))
          const limited = inRange.length > query.limit
          expect(events.at(-1)).toEqual({
            ...{ type: 'end', lines: Math.min(query.limit, inRange.length), limited, partial: [] },
          })
          const found = where(events)
          const expected = inRange.map(({ ms, text }) => `${new Date(ms).toISOString()} ${text}`)
          if (!limited) expect(found.sort()).toEqual(expected.sort())
          else if (query.last)
            expect(found.map((line) => line.slice(0, 24)).sort()).toEqual(
              inRange
                .sort((a, b) => a.ms - b.ms)
                .slice(-query.limit)
                .map(({ ms }) => new Date(ms).toISOString()),
            )
          else for (const line of found) expect(expected).toContain(line)
        },
      ),
      { numRuns: 150 },
    )
  })

  it('whole words are those that nothing of a word stands beside', async () => {
    const found = linesOf(await reading.events('search', { pattern: 'error', word: true, limit: 10_000 }))
    const wanted = all.filter(({ text }) => /(^|\W)error(\W|$)/.test(text))
    expect(found.map(({ line }) => line).sort()).toEqual(wanted.map(({ text }) => text).sort())
  })

  it('a pattern that is none is refused, with what is wrong', async () => {
    for (const pattern of ['a)|(b', '(', '[', 'a{2', '(?<n>a)(?<n>b)']) {
      const { statusCode, body } = await reading.get('search', { pattern })
      expect([pattern, statusCode]).toEqual([pattern, 400])
      expect(JSON.parse(body)).toMatchObject({ error: 'QUERY_INVALID', message: expect.stringContaining('pattern') })
    }
  })

  it('a pattern is never taken for an option, nor for a command', async () => {
    for (const pattern of ['--pre=touch /tmp/x', '-V', '$(touch x)', '`touch x`', "'; touch x; '"]) {
      expect((await reading.events('search', { pattern, fixed: true })).at(-1)).toMatchObject({ lines: 0 })
    }
  })

  it('counts by file', async () => {
    const events = await reading.events('search', { pattern: '^Error', count: true })
    expect(events.filter(({ type }) => type === 'count')).toEqual([
      { type: 'count', file: 's/db/2026-11-23.log', service: 's', module: 'db', lines: 8 },
      { type: 'count', file: 's/web/2026-11-23.log', service: 's', module: 'web', lines: 32 },
    ])
  })

  it('context stands around each match, once, with a separator where lines are left out', async () => {
    const query: Query = { pattern: 'indented', module: 'db', before: 2, after: 1 }
    const events = (await reading.events('search', query)).filter(({ type }) => type === 'line' || type === 'separator')
    const shown = events.map(({ type, context, line }) => (type === 'line' ? `${context ? '-' : '='}${line}` : '--'))
    const group = ['-an error', '-Error', '=  error indented', '-web-1 says 2026']
    expect(shown).toEqual(
      Array.from({ length: 8 }, () => ['--', ...group])
        .flat()
        .slice(1),
    )
    const cut = (await reading.events('search', { ...query, limit: 1 })).filter(({ type }) => type === 'line')
    expect(cut.map(({ context, line }) => `${context ? '-' : '='}${line}`)).toEqual(group)
    const wide = await reading.events('search', { ...query, before: 100, after: 100 })
    expect(linesOf(wide)).toHaveLength(8 * TEXTS.length)
    expect(new Set(linesOf(wide).map(({ at }) => at)).size).toBe(8 * TEXTS.length)
    expect(wide.some(({ type }) => type === 'separator')).toBe(false)
  })
})

describe('search', () => {
  it('finds lines with bytes that are no UTF-8', async () => {
    await using reading = await Reading.create()
    const printed = [{ source: 'stdout' as const, ms: NOON, text: BYTES }]
    await reading.land([{ partition: 0, module: 'm', run: 1, first: 1, count: 0, printed }])
    for (const pattern of ['error', 'err.r', ' error$'])
      expect(linesOf(await reading.events('search', { pattern }))).toMatchObject([{ line: '\ufffd\ufffd error' }])
  })

  it.each([
    ['leaves', 0],
    ['takes nothing for long is cut off, which', 1_500],
  ])('a client that %s ends its ripgrep, and the next one in the queue is served', async (_, idleMs) => {
    await using reading = await Reading.create({ searches: 1, idleMs })
    const text = 'x'.repeat(10_000)
    for (let i = 0; i < 40; i++) {
      const printed = Array.from({ length: 100 }, (_, j) => ({ source: 'stdout' as const, ms: NOON + j, text }))
      await reading.land([{ partition: 0, module: `m${i}`, run: i + 1, first: 1, count: 0, printed }])
    }
    const ripgreps = () =>
      readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8')
        .split(' ')
        .filter((pid) => pid && readFileSync(`/proc/${pid}/comm`, 'utf8') === 'rg\n').length
    // It reads nothing of forty MB, so its search does not come to an end.
    const idle = connect(Number(new URL(await reading.api.listen()).port), '127.0.0.1')
    idle.write('GET /api/v1/search?pattern=x&limit=100000 HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await until('it searches', () => ripgreps() > 0)
    await using second = await reading.follow('search', { pattern: '^x+$', limit: 1 })
    if (idleMs === 0) {
      await until('the other one waits', () => second.events.some(({ queued }) => queued === 1))
      expect(second.lines).toEqual([])
      idle.destroy()
    }
    await until('the other one has its answer', () => second.events.at(-1)?.type === 'end')
    expect(second.lines).toHaveLength(1)
    await until('no ripgrep is left', () => ripgreps() === 0)
    const told = await until('it is told', () => reading.api.log.find(({ audit }) => audit === 'search'))
    expect([told['whole'], told['stalled']]).toEqual([false, idleMs > 0 ? true : undefined])
    idle.destroy()
  })

  it('without ripgrep on the PATH: says what to install', async () => {
    await using reading = await Reading.create()
    const { PATH } = process.env
    process.env['PATH'] = '/nowhere'
    try {
      const { statusCode, body } = await reading.get('search', { pattern: 'x' })
      expect([statusCode, JSON.parse(body)]).toMatchObject([503, { error: 'SEARCH_UNAVAILABLE' }])
      expect(body).toContain('apt-get install ripgrep')
    } finally {
      process.env['PATH'] = PATH
    }
  })

  it('of an input that fails says so, with what was found in front of it', async () => {
    const input = Readable.from(
      (async function* () {
        yield 'an x\n'
        throw new Error('the disk is gone')
      })(),
    )
    const said: string[] = []
    const found = ripgrep({ args: ['-e', 'x'], input, complain: (message) => said.push(message) })
    expect((await Array.fromAsync(found)).map(({ bytes }) => bytes.toString())).toEqual(['an x\n'])
    expect(said).toEqual([expect.stringContaining('the disk is gone')])
  })

  it('refuses a pattern that would take much memory', async () => {
    await using reading = await Reading.create()
    const { statusCode, body } = await reading.get('search', { pattern: '(\\pL{200}|x)' })
    expect([statusCode, JSON.parse(body)]).toMatchObject([400, { message: expect.stringContaining('size limit') }])
  })
})
