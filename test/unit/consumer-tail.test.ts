import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { emptyState } from '../../consumer/checkpoint.ts'
import { BATCHES, EventDecoder } from '../../consumer/event-decoder.ts'
import { tailCursor } from '../../consumer/tail.ts'
import { NOON, type Said, topicOf } from '../support/landing.ts'
import { type Following, Reading } from '../support/reading.ts'
import { until } from '../support/until.ts'

const say = (run: number, first: number, count: number, more: Partial<Said> = {}): Said => ({
  ...{ partition: 0, module: `m${run}`, run, first, count, ms: NOON + first },
  ...more,
})
const inBatches = { accept: `${BATCHES}, application/x-ndjson` }
const numbers = (lines: readonly { line: string }[]) => lines.map(({ line }) => Number.parseInt(line, 10))
const upTo = (count: number, from = 1) => Array.from({ length: count }, (_, i) => from + i)

describe('tail', () => {
  it('says its window first, then what lands, once', async () => {
    await using reading = await Reading.create()
    await reading.land([say(1, 1, 5)])
    await using tail = await reading.follow('tail', { window: 50 })
    await until('it follows', () => tail.cursor !== undefined)
    await reading.land([say(1, 6, 5)])
    await until('the lines are there', () => tail.lines.length >= 5)
    expect(tail.events[0]).toEqual({ type: 'window', ms: 50 })
    expect(numbers(tail.lines)).toEqual(upTo(5, 6))
    expect(tail.lines[0]).toMatchObject({ service: 's', module: 'm1', host: 'h', container: 'c1', source: 'stdout' })
  })

  it('begins with history, and goes on without a gap or a double while lines land', async () => {
    await using reading = await Reading.create()
    let next = 1
    const land = async () => {
      await reading.land([say(1, next, 10)])
      next += 10
    }
    for (let i = 0; i < 5; i++) await land()
    const tails = []
    for (let i = 0; i < 10; i++) {
      const query = { last: 1000, window: 20, ...(i % 2 && { include: '.' }) }
      const tail = await reading.follow('tail', query, i % 3 ? inBatches : {})
      tails.push(tail)
      await land()
    }
    for (const tail of tails) {
      await until('all lines are there', () => tail.lines.length >= next - 1)
      expect(numbers(tail.lines)).toEqual(upTo(next - 1))
      await tail[Symbol.asyncDispose]()
    }
    await until('nobody follows', () => reading.hub.readers === 0)
  })

  it('a reader that comes back with a cursor gets every line that landed behind it', async () => {
    await using reading = await Reading.create()
    await reading.land([say(1, 1, 5)])
    let cursor: string | undefined
    {
      await using tail = await reading.follow('tail', { window: 0 })
      await until('it follows', () => tail.cursor !== undefined)
      await reading.land([say(1, 6, 5)])
      await until('the lines are there', () => tail.lines.length === 5)
      await until('a cursor behind them', () => tail.events.at(-1)!.type === 'cursor')
      cursor = tail.cursor!
    }
    await reading.land([say(1, 11, 5), say(2, 1, 3)])
    await using again = await reading.follow('tail', { cursor, window: 0 })
    await until('it follows', () => again.cursor !== undefined)
    await reading.land([say(1, 16, 3)])
    await until('the last line is there', () => numbers(again.lines).includes(18))
    const ofFirst = numbers(again.lines.filter(({ module }) => module === 'm1'))
    expect(new Set(ofFirst)).toEqual(new Set(upTo(ofFirst.length > 8 ? 13 : 8, ofFirst.length > 8 ? 6 : 11)))
    expect(numbers(again.lines.filter(({ module }) => module === 'm2'))).toEqual([1, 2, 3])
  })

  it('whatever lands, is flushed or saved while readers join and come back: each has every line', {
    timeout: 120_000,
  }, async () => {
    const step = fc.constantFrom('land', 'land', 'land', 'flush', 'save', 'join', 'come back', 'turn')
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60 }), fc.nat({ max: 1 }), async (steps, small) => {
        await using reading = await Reading.create(small ? { indexCache: 1 } : {})
        await using stack = new AsyncDisposableStack()
        const next = [1, 1, 1]
        const topic: Said[] = []
        const joined: Following[] = []
        const back: { tail: Following; from: number }[] = []
        let cursors: { cursor: string; from: number }[] = [{ cursor: tailCursor(emptyState()), from: 0 }]
        for (const [i, what] of steps.entries()) {
          if (what === 'land') {
            const run = (i % 3) + 1
            const first = next[run - 1]!
            next[run - 1] = first + 5
            topic.push(say(run, first, 5, { ms: NOON - (i % 2) * 86_400_000 + i }))
            await reading.life.land(topicOf(topic).at(-1)!)
          } else if (what === 'flush') reading.life.writer.flush()
          else if (what === 'save') {
            reading.life.save()
            cursors = [...cursors, { cursor: tailCursor(reading.life.checkpoint.state), from: topic.length }]
          } else if (what === 'turn') await turn()
          else {
            const follow = async (query: object) =>
              stack.use(await reading.follow('tail', { ...query, window: i % 40 }, i % 2 ? inBatches : {}))
            if (what === 'join') joined.push(await follow({ last: 10_000 }))
            else {
              const { cursor, from } = cursors[i % cursors.length]!
              back.push({ tail: await follow({ cursor }), from })
            }
          }
        }
        reading.life.save()
        const shown = (of: readonly Said[]) =>
          of.flatMap(({ run, first }) => Array.from({ length: 5 }, (_, j) => `c${run} ${first + j}`)).sort()
        const seen = ({ lines }: Following) => lines.map(({ container, line }) => `${container} ${line.split(' ')[0]}`)
        for (const tail of joined) {
          await until('all lines are there', () => tail.lines.length >= 5 * topic.length && tail.cursor !== undefined)
          expect(seen(tail).sort()).toEqual(shown(topic))
        }
        for (const { tail, from } of back) {
          const expected = shown(topic.slice(from))
          await until(
            () => `${expected.length} lines are there; there are ${tail.lines.length}`,
            () => tail.cursor !== undefined && new Set(seen(tail)).isSupersetOf(new Set(expected)),
          )
        }
      }),
      { numRuns: 25 },
    )
  })

  it('lines that arrive within the window stand in the order of their times, whatever file they are in', async () => {
    await using reading = await Reading.create()
    await using tail = await reading.follow('tail', { window: 400 })
    await until('it follows', () => tail.cursor !== undefined)
    await reading.land([say(1, 1, 3, { ms: NOON + 100 })])
    await reading.land([say(2, 1, 3, { ms: NOON + 101 })])
    await reading.land([say(3, 1, 3, { ms: NOON })])
    await until('the lines are there', () => tail.lines.length === 9)
    expect(tail.lines.map(({ time }) => time)).toEqual(tail.lines.map(({ time }) => time).sort())
  })

  it('gives a reader what it asks for, with the places that matched', async () => {
    await using reading = await Reading.create()
    const texts = ['an error', 'all is well', 'ERROR here']
    const printed = texts.map((text, i) => ({ source: i ? ('stderr' as const) : ('stdout' as const), ms: NOON, text }))
    const all = await reading.follow('tail', { include: 'error', ignoreCase: true, window: 0 })
    const stderr = await reading.follow('tail', { source: 'stderr', exclude: 'well', window: 0, target: 's/m*' })
    const other = await reading.follow('tail', { module: 'other', window: 0 })
    for (const tail of [all, stderr, other]) await until('it follows', () => tail.cursor !== undefined)
    await reading.land([say(1, 1, 0, { printed })])
    await until('the lines are there', () => all.lines.length === 2 && stderr.lines.length === 1)
    expect(all.lines.map(({ line, matches }) => [line, matches])).toEqual([
      ['an error', [[3, 8]]],
      ['ERROR here', [[0, 5]]],
    ])
    expect(stderr.lines).toMatchObject([{ line: 'ERROR here', source: 'stderr' }])
    expect(other.lines).toEqual([])
    for (const tail of [all, stderr, other]) await tail[Symbol.asyncDispose]()
  })

  it.each(['gzip', 'identity'])('in batches, packed as %s: has every line, in the order of time', async (packing) => {
    await using reading = await Reading.create()
    await reading.land([say(1, 1, 2)])
    const headers = { ...inBatches, 'accept-encoding': packing }
    await using tail = await reading.follow('tail', { window: 100, last: 10 }, headers)
    await using single = await reading.follow('tail', { window: 100, last: 10 })
    await until('both follow', () => tail.cursor !== undefined && single.cursor !== undefined)
    for (let i = 0; i < 5; i++) {
      const texts = ['ends in CR\r', '', 'ä € 😀', 'x'.repeat(300_000), Buffer.from('no UTF-8 \xff', 'latin1')]
      const printed = texts.map((text, j) => {
        return { source: j % 2 ? ('stderr' as const) : ('stdout' as const), ms: NOON + 10 * i + j, text }
      })
      await reading.land([say(2, 1 + 5 * i, 0, { printed }), say(3, 1 + 3 * i, 3, { ms: NOON + 10 * i })])
    }
    await until('the lines are there', () => tail.lines.length === 42 && single.lines.length === 42)
    expect([tail.inBatches, single.inBatches]).toEqual([true, false])
    const byPlace = (of: Following) => of.lines.toSorted((a, b) => (a.at < b.at ? -1 : 1))
    expect(byPlace(tail)).toEqual(byPlace(single))
    expect(tail.events.map(({ type }) => type).filter((type) => type !== 'line')).toEqual(
      expect.arrayContaining(['window', 'cursor']),
    )
  })

  it('in batches: a reader that comes back with a cursor gets what landed behind it', async () => {
    await using reading = await Reading.create()
    let cursor: string | undefined
    {
      await using tail = await reading.follow('tail', { window: 30 }, inBatches)
      await until('it follows', () => tail.cursor !== undefined)
      await reading.land([say(1, 1, 5), say(2, 1, 5)])
      await until('a cursor behind the lines', () => tail.lines.length === 10 && tail.events.at(-1)!.type === 'cursor')
      cursor = tail.cursor!
    }
    await reading.land([say(1, 6, 5)])
    await using again = await reading.follow('tail', { cursor, window: 0 }, inBatches)
    await reading.land([say(1, 11, 5)])
    await until('the last line is there', () => numbers(again.lines).includes(15))
    expect(numbers(again.lines)).toEqual(upTo(10, 6))
  })

  it('comes line by line where not all lines are asked for, or the files say less of a line', async () => {
    await using text = await Reading.create()
    await using raw = await Reading.create({ format: 'raw' })
    const asked = [
      { reading: text, query: { include: 'a' } },
      { reading: text, query: { exclude: 'a' } },
      { reading: text, query: { source: 'stderr' } },
      { reading: raw, query: {} },
    ]
    for (const [run, { reading, query }] of asked.entries()) {
      await using tail = await reading.follow('tail', { ...query, window: 0 }, inBatches)
      await until('it follows', () => tail.cursor !== undefined)
      const printed = [{ source: 'stderr' as const, ms: NOON, text: query.exclude ? 'b' : 'a' }]
      await reading.land([say(run, 1, 0, { printed })])
      await until('the line is there', () => tail.lines.length === 1)
      expect(tail.inBatches).toBe(false)
    }
  })

  it('as server-sent events: a browser that comes back says where it was', async () => {
    await using reading = await Reading.create()
    const accept = 'text/event-stream'
    let cursor: string | undefined
    {
      await using tail = await reading.follow('tail', { window: 0 }, { accept })
      await until('it follows', () => tail.cursor !== undefined)
      await reading.land([say(1, 1, 3)])
      await until('a cursor behind the lines', () => tail.lines.length === 3 && tail.events.at(-1)!.type === 'cursor')
      cursor = tail.cursor!
      expect(tail.raw).toContain(`id: ${cursor}\ndata: {"type":"cursor"`)
      expect(tail.raw).toMatch(/data: \{"type":"line".*\}\n\n/)
    }
    await reading.land([say(1, 4, 3)])
    await using again = await reading.follow('tail', { window: 0 }, { accept, 'last-event-id': cursor! })
    await until('the lines are there', () => numbers(again.lines).includes(6))
    expect(numbers(again.lines)).toEqual(expect.arrayContaining([4, 5, 6]))
  })

  it.each(['x', '20261123', '20261123-zzzzzzzzzzzz', '2026-11-23'])(
    'a cursor %j that is none is refused',
    async (cursor) => {
      await using reading = await Reading.create()
      expect(await reading.get('tail', { cursor })).toMatchObject({ statusCode: 400 })
    },
  )

  it.each([
    ['behind', 0, 'ndjson'],
    ['holding lines to put them in order', 60_000, 'ndjson'],
    ['behind with batches', 0, 'batches'],
    ['holding batches', 60_000, 'batches'],
  ] as const)('many readers, %s, take up no more than all may, whatever each asks for', async (_, window, format) => {
    const memory = 4 * 1024 * 1024
    await using reading = await Reading.create({ tailMemory: memory })
    const all = { stdout: true, stderr: true, names: () => true }
    const wire = { format, packing: undefined }
    const readers = await Promise.all(
      Array.from({ length: 16 }, async (_, i) => {
        const follow = { key: `${i}`, selector: all, filter: undefined, window, wire }
        return (await reading.hub.follow(follow)).reader
      }),
    )
    for (let i = 0; i < 400; i++) {
      await reading.land([say(1, 10 * i + 1, 10, { bytes: 1_000 })])
      await turn()
    }
    await until('each has missed something', () => reading.hub.missed > 16)
    const taken = await Promise.all(readers.map((reader) => reader.next(AbortSignal.timeout(60_000))))
    expect(taken.every((bytes) => bytes && bytes.length > 0)).toBe(true)
    expect(taken.reduce((sum, bytes) => sum + bytes!.length, 0)).toBeLessThan(memory / 2)
    for (const reader of readers) reading.hub.leave(reader)
    expect(reading.hub.readers).toBe(0)
  })

  it('readers that do not read are told what they missed, and hold up nobody', async () => {
    await using reading = await Reading.create({ readerBytes: 512 * 1024 })
    await using quick = await reading.follow('tail', { window: 0 })
    const url = `${await reading.api.listen()}/api/v1/tail?window=0`
    const slow = await Promise.all(
      ['application/x-ndjson', BATCHES].map(async (accept) => {
        const asked = get(url, { headers: { accept } })
        const [answer] = (await once(asked, 'response')) as [IncomingMessage]
        return { asked, answer, got: [] as { type: string; line?: string; lines?: number }[] }
      }),
    )
    await until('all follow', () => reading.hub.readers === 3)
    const lines = 2_000
    // More than the kernel takes for a connection that nobody reads.
    for (let i = 0; i < lines; i += 100) {
      await reading.land([say(1, i + 1, 100, { bytes: 10_000 })])
      await until('the quick one has them', () => quick.lines.length === i + 100)
    }
    expect(quick.events.some(({ type }) => type === 'missed')).toBe(false)
    for (const { answer, got } of slow) {
      const decoder = new EventDecoder<(typeof got)[number]>()
      answer.on('data', (piece: Buffer) => {
        for (const events of decoder.decode(piece)) got.push(...events)
      })
    }
    await until('they are told', () => slow.every(({ got }) => got.some(({ type }) => type === 'missed')))
    await reading.land([say(1, lines + 1, 1)])
    const last = `${lines + 1} `
    await until('they go on', () => slow.every(({ got }) => got.some(({ line }) => line?.startsWith(last))))
    const missed = slow.map(({ got }) => got.reduce((sum, { lines = 0 }) => sum + lines, 0))
    for (const [i, { asked, got }] of slow.entries()) {
      expect(missed[i]).toBeGreaterThan(0)
      expect(got.filter(({ type }) => type === 'line').length + missed[i]!).toBe(lines + 1)
      asked.destroy()
    }
    expect(reading.hub.missed).toBe(missed[0]! + missed[1]!)
  })
})
