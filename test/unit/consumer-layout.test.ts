import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Days } from '../../consumer/days.ts'
import { Layout, type LineFormat } from '../../consumer/layout.ts'
import { chunkOf, type Line } from '../support/chunk.ts'

const NOON = Date.parse('2026-11-23T12:00:00.000Z')

const at = (text: string, extra = 0n) => String(BigInt(Date.parse(text)) * 1_000_000n + extra)
const line = (time: string, text: string, source: 'stdout' | 'stderr' = 'stdout'): Line => ({
  source,
  number: 1,
  time,
  text,
})

function lay(
  lines: Line[],
  {
    format = 'text' as LineFormat,
    zone = 'UTC',
    wanted,
    name = 'web-1',
    appended = NOON,
  }: {
    format?: LineFormat
    zone?: string
    wanted?: number[]
    name?: string
    appended?: number
  } = {},
) {
  const chunk = chunkOf({
    run: '01'.repeat(16),
    service: 's',
    module: 'm',
    host: 'host-1',
    container: { id: 'c', name, image: 'i' },
    attrs: {},
    first: [7, 3],
    lines,
  })
  const laid = new Layout(format, new Days(zone), 7).lay(chunk, wanted && Uint8Array.from(wanted), appended)
  // One by one: an extent's bytes are gone with the next.
  const extents = laid
    .map(({ day, bytes, lines, misdated }) => ({ of: [day, Buffer.from(bytes).toString('latin1'), lines], misdated }))
    .toArray()
  return {
    misdated: extents.reduce((sum, { misdated }) => sum + misdated, 0),
    extents: extents.map(({ of }) => of),
  }
}

describe('layout', () => {
  it('text: stamp, name, mark of stderr, line', () => {
    const { extents } = lay([
      line(at('2026-11-23T08:24:41.123Z', 999_999n), 'the line'),
      line(at('2026-11-23T08:24:41.123Z'), 'an error', 'stderr'),
      line(at('2026-11-23T08:24:41.007Z'), ''),
      line(at('2026-11-23T08:24:40.999Z'), 'earlier\r'),
      line(at('2026-11-23T08:25:00.000Z'), 'later'),
    ])
    expect(extents).toEqual([
      [
        '2026-11-23',
        '2026-11-23T08:24:41.123Z web-1 the line\n2026-11-23T08:24:41.123Z web-1! an error\n2026-11-23T08:24:41.007Z web-1 \n' +
          '2026-11-23T08:24:40.999Z web-1 earlier\r\n2026-11-23T08:25:00.000Z web-1 later\n',
        5,
      ],
    ])
  })

  it('raw: the line alone, bytes that are no UTF-8 and NUL among them', () => {
    const { extents } = lay(
      [
        {
          source: 'stdout',
          number: 1,
          time: at('2026-11-23T08:00:00Z'),
          base64: Buffer.from([0xff, 0, 0xfe]).toString('base64'),
        },
      ],
      { format: 'raw' },
    )
    expect(extents).toEqual([['2026-11-23', '\xff\0\xfe\n', 1]])
  })

  it('jsonl: a row a line that JSON reads, with ns and number, and bytes that are no UTF-8 in base64', () => {
    const time = at('2026-11-23T08:00:00.123Z', 456_789n)
    const { extents } = lay(
      [
        line(time, 'say "hi"\t'),
        {
          source: 'stderr',
          number: 1,
          time,
          flags: ['unterminated'],
          base64: Buffer.from([0xff, 0x41]).toString('base64'),
        },
      ],
      { format: 'jsonl' },
    )
    const common = { time: '2026-11-23T08:00:00.123456789Z', host: 'host-1', container: 'web-1', run: '01'.repeat(16) }
    expect(
      (extents[0]![1] as string)
        .trimEnd()
        .split('\n')
        .map((row) => JSON.parse(row)),
    ).toEqual([
      { ...common, source: 'stdout', n: 7, line: 'say "hi"\t' },
      { ...common, source: 'stderr', n: 3, flags: 2, line_b64: '/0E=' },
    ])
  })

  it.each(['text', 'raw', 'jsonl'] as const)('%s: a chunk across midnight stands in two days', (format) => {
    const { extents } = lay(
      [
        line(at('2026-11-22T22:59:59.999Z', 999_999n), 'before'),
        line(at('2026-11-22T23:00:00.000Z'), 'after'),
        line(at('2026-11-22T22:59:59.000Z'), 'before again'),
      ],
      { format, zone: 'Europe/Berlin' },
    )
    expect(extents.map(([day, , lines]) => [day, lines])).toEqual([
      ['2026-11-22', 1],
      ['2026-11-23', 1],
      ['2026-11-22', 1],
    ])
  })

  it('leaves out what is not wanted', () => {
    const time = at('2026-11-23T08:00:00Z')
    expect(
      lay([line(time, 'a'), line(time, 'b'), line(time, 'c')], { format: 'raw', wanted: [1, 0, 1] }).extents,
    ).toEqual([['2026-11-23', 'a\nc\n', 2]])
    expect(lay([line(time, 'a')], { wanted: [0] }).extents).toEqual([])
  })

  it('a day that is not kept any more, or beyond tomorrow, is the day of arrival, with its own stamp', () => {
    const { extents, misdated } = lay([
      line(at('2026-11-15T23:59:59.999Z'), 'too old'),
      line(at('2026-11-16T00:00:00.000Z'), 'old'),
      line(at('2026-11-24T23:59:59.999Z'), 'tomorrow'),
      line(at('2026-11-25T00:00:00.000Z'), 'too new'),
    ])
    expect(extents.map(([day, text]) => [day, text])).toEqual([
      ['2026-11-23', '2026-11-15T23:59:59.999Z web-1 too old\n'],
      ['2026-11-16', '2026-11-16T00:00:00.000Z web-1 old\n'],
      ['2026-11-24', '2026-11-24T23:59:59.999Z web-1 tomorrow\n'],
      ['2026-11-23', '2026-11-25T00:00:00.000Z web-1 too new\n'],
    ])
    expect(misdated).toBe(2)
  })

  it('times as far apart as their column allows keep their stamps', () => {
    const { extents } = lay([line('0', 'first'), line(String(2n ** 63n - 1n), 'last')])
    expect(extents).toEqual([
      ['2026-11-23', '1970-01-01T00:00:00.000Z web-1 first\n', 1],
      ['2026-11-23', '2262-04-11T23:47:16.854Z web-1 last\n', 1],
    ])
  })

  it('stamps are exact to the millisecond, in whatever order and however far apart', () => {
    const ns = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n })
    const near = fc.bigInt({ min: 0n, max: 5_000_000_000_000_000n })
    fc.assert(
      fc.property(fc.array(fc.oneof(ns, near), { minLength: 1, maxLength: 20 }), (times) => {
        const { extents } = lay(times.map((time) => line(String(time), 'x')))
        const stamps = extents.flatMap(([, text]) =>
          [...(text as string).matchAll(/^(\S+) web-1 x$/gm)].map(([, stamp]) => stamp),
        )
        expect(stamps).toEqual(times.map((time) => new Date(Number(time / 1_000_000n)).toISOString()))
      }),
    )
  })

  it('raw: an extent is of one source, because its lines do not say of which; text: of both', () => {
    const time = at('2026-11-23T08:00:00Z')
    const lines = (['stdout', 'stdout', 'stderr', 'stderr', 'stdout', 'stderr'] as const).map((source, i) =>
      line(time, `${i}`, source),
    )
    const wanted = [1, 1, 1, 1, 0, 1]
    expect(lay(lines, { format: 'raw', wanted }).extents).toEqual([
      ['2026-11-23', '0\n1\n', 2],
      ['2026-11-23', '2\n3\n5\n', 3],
    ])
    expect(lay(lines, { wanted }).extents).toMatchObject([['2026-11-23', expect.any(String), 5]])
  })

  it.each([
    ['a b', 'a%20b'],
    ['a!', 'a%21'],
    ['a\nb', 'a%0Ab'],
    ['kök', 'k%C3%B6k'],
    ['', '-'],
  ])('a container that is named %j cannot be taken for layout', (name, shown) => {
    expect(lay([line(at('2026-11-23T08:00:00Z'), 'x')], { name }).extents[0]![1]).toBe(
      `2026-11-23T08:00:00.000Z ${shown} x\n`,
    )
  })

  it.each([
    ['the workspace', 50, 1],
    ['an extent', 150, 3],
  ])('a chunk that is larger than %s is laid out whole', (_, length, extents) => {
    const time = at('2026-11-23T08:00:00Z')
    const text = 'x'.repeat(length)
    const laid = lay(Array.from({ length: 50_000 }, () => line(time, text))).extents
    expect(laid).toHaveLength(extents)
    expect(laid.map(([, bytes]) => bytes).join('')).toBe(`2026-11-23T08:00:00.000Z web-1 ${text}\n`.repeat(50_000))
    expect(laid.reduce((sum, [, , lines]) => sum + Number(lines), 0)).toBe(50_000)
  })

  it.each(['text', 'jsonl'] as const)('%s: a line longer than an extent is one of its own, whole', (format) => {
    const time = at('2026-11-23T08:00:00Z')
    const long = '\u0001'.repeat(5_000_000)
    const { extents } = lay([line(time, 'before'), line(time, long), line(time, 'behind')], { format })
    expect(extents.map(([, , lines]) => lines)).toEqual([1, 1, 1])
    const [, bytes] = extents[1]!
    const said = format === 'text' ? String(bytes).slice(31, -1) : JSON.parse(String(bytes)).line
    expect(said === long).toBe(true)
  })
})
