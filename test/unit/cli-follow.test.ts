import { describe, expect, it } from 'vitest'
import { ask, stream } from '../../cli/api.ts'
import { Follow } from '../../cli/follow.ts'
import { history } from '../../cli/history.ts'
import { mergeByTime, once } from '../../cli/merge.ts'
import type { Line } from '../../consumer/api-schema.ts'
import { BATCHES } from '../../consumer/event-decoder.ts'
import { type Answer, FakeConsumer } from '../support/fake-consumer.ts'
import { NOON } from '../support/landing.ts'
import { logLine } from '../support/log-line.ts'
import { Reading } from '../support/reading.ts'

const lines = (from: number, to: number, part: Partial<Line> = {}): Line[] =>
  Array.from({ length: to - from }, (_, i) => logLine(from + i, part))
const numbersOf = (lines: Line[]): number[] => lines.map(({ position }) => position / 100)
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
const end = (partial: object[] = [], limited = false) => ({ type: 'end', lines: 0, limited, partial })

/** Follows until that many lines are there. */
async function followed(follow: Follow, count: number): Promise<Line[]> {
  const got: Line[] = []
  const leave = new AbortController()
  for await (const batch of follow.lines(leave.signal)) {
    got.push(...batch)
    if (got.length >= count) leave.abort()
  }
  return got
}

/** The same lines in one batch, as they stand in their file. */
function batchOf(lines: Line[]): string {
  const { file, position, service, module, host, container } = lines[0]!
  const text = lines.map(({ time, line }) => `${`${time} ${container} ${line}`.padEnd(99)}\n`).join('')
  const stretches = [{ ...{ file, position, service, module, host, container }, bytes: text.length }]
  return `${JSON.stringify({ type: 'batch', until: lines.at(-1)!.time, stretches })}\n${text}`
}

/** Answers each connection of a tail in its turn, the last one again and again. */
const inTurn = (...turns: Answer[]): Answer => {
  let turn = 0
  return (query, reply, request) => turns[Math.min(turn++, turns.length - 1)]!(query, reply, request)
}

describe('a tail whose connection breaks', () => {
  it('goes on with the last cursor, and leaves out what is repeated behind it', async () => {
    await using consumer = await FakeConsumer.start({
      tail: inTurn(
        (_, reply) => {
          reply.send({ type: 'window', ms: 1 }, ...lines(0, 10), { type: 'cursor', cursor: 'ten' }, ...lines(10, 13))
          reply.breakOff()
        },
        (_, reply) => reply.json(503, { error: 'BUSY', message: 'not now' }),
        (_, reply) => reply.send(...lines(8, 20)),
      ),
    })
    const follow = new Follow({ server: consumer.server, query: { target: ['shop/api'], last: 10 }, firstWait: 1 })
    expect(numbersOf(await followed(follow, 20))).toEqual(range(0, 20))
    expect(consumer.asked.map(({ query }) => [query.get('cursor'), query.get('last'), query.get('target')])).toEqual([
      [null, '10', 'shop/api'],
      ['ten', null, 'shop/api'],
      ['ten', null, 'shop/api'],
    ])
  })

  it('in the middle of an event loses nothing of it', async () => {
    await using consumer = await FakeConsumer.start({
      tail: inTurn(
        (_, reply) => {
          reply.send({ type: 'cursor', cursor: 'none' }, ...lines(0, 3))
          reply.response.write(JSON.stringify(logLine(3)).slice(0, 40))
          reply.breakOff()
        },
        (_, reply) => reply.send(...lines(0, 6)),
      ),
    })
    const follow = new Follow({ server: consumer.server, query: {}, firstWait: 1 })
    expect(numbersOf(await followed(follow, 6))).toEqual(range(0, 6))
  })

  it('in the middle of a batch loses nothing of it, also where an older consumer goes on that knows none', async () => {
    await using consumer = await FakeConsumer.start({
      tail: inTurn(
        (_, reply, request) => {
          expect(request.headers.accept).toContain(BATCHES)
          reply.response.setHeader('content-type', BATCHES)
          reply.send({ type: 'window', ms: 1 })
          reply.response.write(batchOf(lines(0, 10)))
          reply.send({ type: 'cursor', cursor: 'ten' })
          reply.response.write(batchOf(lines(10, 20)).slice(0, -150))
          reply.breakOff()
        },
        (_, reply) => reply.send(...lines(8, 20)),
      ),
    })
    const follow = new Follow({ server: consumer.server, query: {}, firstWait: 1 })
    const got = await followed(follow, 20)
    expect(numbersOf(got)).toEqual(range(0, 20))
    expect(got[9]).toEqual({ ...logLine(9), at: `${logLine(9).file}:900`, line: 'line 9'.padEnd(68) })
    expect(consumer.asked.map(({ query }) => query.get('cursor'))).toEqual([null, 'ten'])
  })

  it('before there is a cursor goes on from the time of the last line', async () => {
    await using consumer = await FakeConsumer.start({
      tail: inTurn(
        (_, reply) => {
          reply.send(...lines(0, 5))
          reply.breakOff()
        },
        (_, reply) => reply.send(...lines(3, 8)),
      ),
    })
    const follow = new Follow({ server: consumer.server, query: { last: 5 }, firstWait: 1 })
    expect(numbersOf(await followed(follow, 8))).toEqual(range(0, 8))
    const { query } = consumer.asked[1]!
    expect(Date.parse(query.get('since')!)).toBeLessThan(Date.parse(logLine(4).time))
  })

  it('whose cursor is refused goes on from the time of the last line', async () => {
    await using consumer = await FakeConsumer.start({
      tail: inTurn(
        (_, reply) => {
          reply.send(...lines(0, 5), { type: 'cursor', cursor: 'gone' })
          reply.breakOff()
        },
        (_, reply) => reply.json(400, { error: 'QUERY_INVALID', message: 'cursor: is of another consumer' }),
        (_, reply) => reply.send(...lines(3, 8)),
      ),
    })
    const follow = new Follow({ server: consumer.server, query: {}, firstWait: 1 })
    expect(numbersOf(await followed(follow, 8))).toEqual(range(0, 8))
    expect(consumer.asked[2]!.query.has('cursor')).toBe(false)
  })

  it('that says nothing any more, not even a heartbeat, is given up', async () => {
    await using consumer = await FakeConsumer.start({
      tail: inTurn(
        (_, reply) => reply.send(...lines(0, 2), { type: 'cursor', cursor: 'two' }),
        (_, reply) => reply.send(...lines(2, 4)),
      ),
    })
    const follow = new Follow({ server: consumer.server, query: {}, firstWait: 1, silence: 50 })
    expect(numbersOf(await followed(follow, 4))).toEqual(range(0, 4))
  })

  it('of a consumer goes on where it was, whatever comes while it is away', async () => {
    await using reading = await Reading.create()
    let next = 1
    const land = async () => {
      for (const run of [1, 2])
        await reading.land([{ ...{ partition: 0, module: `m${run}`, run, ms: NOON + next }, first: next, count: 50 }])
      next += 50
    }
    await land()
    const server = { name: 'reading', url: new URL(await reading.api.listen()) }
    const follow = new Follow({ server, query: { last: 1_000, window: 20 } })
    const seen = new Set<string>()
    for (let i = 0; i < 4; i++) {
      const leave = new AbortController()
      const expected = 2 * (next - 1) + 100
      for await (const batch of follow.lines(leave.signal)) {
        for (const { at } of batch) {
          expect(seen.has(at)).toBe(false)
          seen.add(at)
        }
        if (follow.caughtUp && next <= expected / 2) await land()
        if (seen.size >= expected) leave.abort()
      }
      await land()
    }
    expect(seen.size).toBeGreaterThan(700)
  })

  it('does not begin at all where the first connection is refused', async () => {
    await using consumer = await FakeConsumer.start({
      tail: (_, reply) => reply.json(401, { error: 'TOKEN_NEEDED', message: 'a token is needed' }),
    })
    const follow = new Follow({ server: consumer.server, query: {} })
    await expect(followed(follow, 1)).rejects.toMatchObject({ code: 'TOKEN_REFUSED', acts: 'user' })
  })

  it('is closed at once by whoever leaves', async () => {
    const { promise: gone, resolve } = Promise.withResolvers<void>()
    await using consumer = await FakeConsumer.start({
      tail: async (_, reply) => {
        reply.send(...lines(0, 1))
        await reply.left
        resolve()
      },
    })
    await followed(new Follow({ server: consumer.server, query: {} }), 1)
    await gone
  })
})

describe('history', () => {
  const all = lines(0, 25, {}).map((line, i) => ({ ...line, time: logLine(Math.floor(i / 3)).time }))
  const paged: Answer = (query, reply) => {
    const since = query.get('since') ?? ''
    const limit = Number(query.get('limit'))
    const left = all.filter(({ time }) => time >= since)
    reply.end(...left.slice(0, limit), end([], left.length > limit))
  }

  it('is whole where it needs many answers that begin within the same moment', async () => {
    await using consumer = await FakeConsumer.start({ lines: paged })
    const got: Line[] = []
    for await (const batch of history(consumer.server, {}, 5)) got.push(...batch)
    expect(numbersOf(got)).toEqual(range(0, 25))
    expect(consumer.asked.length).toBeGreaterThan(5)
  })

  it('says what is left out where one moment has more lines than an answer', async () => {
    await using consumer = await FakeConsumer.start({ lines: paged })
    const got: Line[] = []
    for await (const batch of history(consumer.server, {}, 2)) got.push(...batch)
    expect(got.length).toBeLessThan(25)
    expect(got.at(-1)).toEqual(all.at(-1))
    expect(process.exitCode).toBe(2)
    process.exitCode = undefined
  })

  it('that breaks off is no whole answer', async () => {
    await using consumer = await FakeConsumer.start({ lines: (_, reply) => reply.end(...lines(0, 3)) })
    await expect(Array.fromAsync(history(consumer.server, {}))).rejects.toMatchObject({ code: 'BROKEN_OFF' })
  })

  it.each([
    [{ error: 'NOT_FOUND', message: 'no such line' }, 'NOT_FOUND'],
    [{ error: 'Not Found', message: 'Route GET:/api/v1/lines not found' }, 'NO_CONSUMER'],
  ])('answered by 404 with %j is %s', async (body, code) => {
    await using consumer = await FakeConsumer.start({ lines: (_, reply) => reply.json(404, body) })
    await expect(Array.fromAsync(history(consumer.server, {}))).rejects.toMatchObject({ code })
  })

  it('of what is no consumer is refused in words', async () => {
    await using consumer = await FakeConsumer.start({
      lines: (_, reply) => void reply.response.end('<html>welcome</html>\n'),
    })
    await expect(Array.fromAsync(history(consumer.server, {}))).rejects.toMatchObject({ code: 'NO_CONSUMER' })
  })
})

it('a server that falls silent in the middle of an answer is given up', async () => {
  await using consumer = await FakeConsumer.start({ lines: (_, reply) => reply.send(...lines(0, 2)) })
  const got: { type: string }[] = []
  const read = async () => {
    for await (const events of stream(consumer.server, 'api/v1/lines', { silence: 50 })) got.push(...events)
  }
  await expect(read()).rejects.toMatchObject({
    code: 'BROKEN_OFF',
    message: expect.stringContaining('nothing came for 0.05 s'),
  })
  expect(got).toHaveLength(2)
})

it('a server that takes a question and never answers is given up', async () => {
  await using consumer = await FakeConsumer.start({ services: () => {} })
  await expect(ask(consumer.server, 'api/v1/services', { silence: 50 })).rejects.toMatchObject({
    code: 'UNREACHABLE',
    message: expect.stringContaining('nothing came for 0.05 s'),
  })
})

describe('several servers', () => {
  async function* batches(...of: Line[][]): AsyncGenerator<Line[], void, void> {
    yield* of
  }
  const time = ({ time }: Line): string => time
  const merged = async (...sources: AsyncGenerator<Line[], void, void>[]): Promise<Line[]> =>
    (await Array.fromAsync(mergeByTime(sources, time))).flat()

  it('are merged by time, whatever their batches', async () => {
    const [a, b, c] = ['a', 'b', 'c'].map((module, i) => lines(0, 30, { module }).filter((_, n) => n % 3 === i))
    const got = await merged(
      batches(a!.slice(0, 2), [], a!.slice(2)),
      batches(b!),
      batches(...c!.map((line) => [line])),
      batches(),
    )
    expect(numbersOf(got)).toEqual(range(0, 30))
  })

  it('go on without one that fails, which is said and makes the status 2', async () => {
    const failing = async function* (): AsyncGenerator<Line[], void, void> {
      await using nobody = await FakeConsumer.start({}, 'b')
      yield* history(nobody.server, {})
    }
    expect(numbersOf(await merged(batches(lines(0, 3)), failing()))).toEqual([0, 1, 2])
    expect(process.exitCode).toBe(2)
    process.exitCode = undefined
    await expect(merged(failing(), failing())).rejects.toMatchObject({ code: 'NO_CONSUMER' })
  })

  it('that ask each other have their lines once, and those that do not have all of theirs', async () => {
    const servers = await Promise.all([FakeConsumer.start({}), FakeConsumer.start({})])
    const first = once(servers.map(({ server }) => server))
    const shared = lines(0, 3, { file: 'one:shop/api/2026-11-23.log' })
    expect(first(shared).length + first(shared).length).toBe(3)
    expect(first(lines(0, 3)).length + first(lines(0, 3)).length).toBe(6)
    await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()))
  })
})
