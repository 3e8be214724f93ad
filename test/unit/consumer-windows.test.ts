import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Line } from '../../consumer/api-schema.ts'
import { EventDecoder } from '../../consumer/event-decoder.ts'
import { HeldLines } from '../../consumer/held-lines.ts'
import { HeldStretches } from '../../consumer/held-stretches.ts'
import { Reader } from '../../consumer/hub.ts'
import { Landed, type Window } from '../../consumer/window.ts'
import { NOON } from '../support/landing.ts'

const CONTAINERS = ['web-1', 'web-2', 'db-1']

const text = fc.oneof(
  fc.string({ unit: 'binary' }).map((text) => Buffer.from(text.replaceAll('\n', ''))),
  fc
    .constantFrom('', ' ', 'ends in CR\r', '\r', 'an "ä" \\ \u2028 €', '\ufeffwith a mark in front', '😀 two units')
    .map(Buffer.from),
  fc.constant(Buffer.from('no UTF-8: \xff\xfe\xc3', 'latin1')),
  fc.constant(Buffer.alloc(100_000, 'long ')),
)
/** Lines of one container that land together, ms apart from each other, back in time as well. */
const stretch = fc.record({
  container: fc.nat({ max: CONTAINERS.length - 1 }),
  begin: fc.nat({ max: 20 }),
  lines: fc.array(fc.record({ ms: fc.integer({ min: -2, max: 4 }), stderr: fc.boolean(), text }), {
    ...{ minLength: 1, maxLength: 6 },
  }),
})
type Printed = typeof stretch extends fc.Arbitrary<infer T> ? T : never

/** As they land one behind the other in the files of their containers' modules, a flush each. */
function landed(all: readonly Printed[]): Landed[] {
  const lengths = CONTAINERS.map(() => 0)
  return all.map(({ container, begin, lines }, i) => {
    const times = lines.map(({ ms }, line) => NOON + begin + 3 * line + ms)
    const name = CONTAINERS[container]!
    const bytes = Buffer.concat(
      lines.flatMap(({ stderr, text }, line) => [
        Buffer.from(`${new Date(times[line]!).toISOString()} ${name}${stderr ? '!' : ''} `),
        ...[text, Buffer.from('\n')],
      ]),
    )
    const position = lengths[container]!
    lengths[container]! += bytes.length
    const names = { service: 's', module: `m${container}`, host: 'h', container: name, format: 'text' as const }
    const said = {
      ...{ file: `s/m${container}/2026-11-23.log`, position, bytes: bytes.length, lines: lines.length, names },
      stderr: lines.filter(({ stderr }) => stderr).length,
      ...{ tmin: Math.min(...times), tmax: Math.max(...times) },
    }
    return new Landed(said, bytes, i, i)
  })
}

/** What a window sends: `due` says how many have waited long enough, each time after one has arrived. */
function sent(window: Window, all: readonly Landed[], due: readonly number[]): Buffer {
  const out: Buffer[] = []
  for (const [i, one] of all.entries()) {
    window.add(one)
    const leaving = window.take(window.latest(i - due[i % due.length]!))
    if (leaving) out.push(leaving.encode())
  }
  const rest = window.take(Number.POSITIVE_INFINITY)
  if (rest) out.push(rest.encode())
  expect(window.bytes).toBe(0)
  expect(window.oldest).toBe(Number.POSITIVE_INFINITY)
  return Buffer.concat(out)
}

const everything = { stdout: true, stderr: true, names: () => true }

describe('lines that are told in batches', () => {
  it('are those that are told one by one, in the same order, wherever the network cuts the batches', () => {
    fc.assert(
      fc.property(
        fc.array(stretch, { maxLength: 12 }),
        fc.array(fc.nat({ max: 3 }), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 5_000 }),
        (printed, due, cut) => {
          const oneByOne = sent(new HeldLines(everything, undefined, 'ndjson'), landed(printed), due)
          const expected = oneByOne.toString().split('\n').filter(Boolean)
          const bytes = sent(new HeldStretches(), landed(printed), due)
          const decoder = new EventDecoder<Line>()
          const lines: Line[] = []
          for (let at = 0; at < bytes.length; at += cut)
            for (const some of decoder.decode(bytes.subarray(at, at + cut))) lines.push(...some)
          expect(decoder.rest).toBe('')
          expect(lines.map((line) => JSON.stringify(line))).toEqual(expected)
        },
      ),
      { numRuns: 300 },
    )
  })

  /** Two lines of the same time, and one that is later. */
  const uneven = (): HeldStretches => {
    const window = new HeldStretches()
    const [first, second] = landed([
      { container: 0, begin: 0, lines: [{ ms: 0, stderr: false, text: Buffer.from('first') }] },
      {
        container: 1,
        begin: 0,
        lines: [0, 10].map((ms) => ({ ms, stderr: false, text: Buffer.from(`after ${ms} ms`) })),
      },
    ])
    window.add(first!)
    window.add(second!)
    return window
  }
  const decodes = () => {
    const decoder = new EventDecoder<{ type: string; line?: string }>()
    return (bytes: Buffer) => [...decoder.decode(bytes)].flat().map(({ type, line }) => line ?? type)
  }

  it.each(['missed', 'gap'])('have all been let go of where the consumer says by %s that some are left out', (type) => {
    const window = uneven()
    const decoded = decodes()
    expect(decoded(window.take(NOON)!.encode())).toEqual(['first', 'after 0 ms'])
    expect(decoded(Buffer.from(`{"type":"${type}"}\n`))).toEqual(['after 10 ms', type])
  })

  it('are let go of also where their reader is as far behind as it may be', async () => {
    const window = uneven()
    const reader = new Reader(
      0,
      () => 1,
      { format: 'batches', packing: undefined },
      '',
      () => {},
    )
    for (const until of [NOON, Number.POSITIVE_INFINITY]) {
      const leaving = window.take(until)!
      reader.offer(leaving.encode(), leaving.lines)
    }
    const sent = await reader.next(new AbortController().signal)
    expect(decodes()(sent!)).toEqual(['first', 'after 0 ms', 'after 10 ms'])
  })

  it('may come many in one piece, but none of more bytes than a consumer sends', () => {
    const event = Buffer.from(`${JSON.stringify({ type: 'line', line: 'x'.repeat(1024 * 1024) })}\n`)
    const piece = Buffer.concat(Array.from({ length: 70 }, () => event))
    expect([...new EventDecoder().decode(piece)].flat()).toHaveLength(70)
    const endless = new EventDecoder()
    expect(() => {
      for (let i = 0; i < 70; i++) for (const _ of endless.decode(event.subarray(0, -1)));
    }).toThrow(SyntaxError)
  })

  it('that are none are refused', () => {
    const batch = (bytes: string) => {
      const head = { file: 'f', position: 0, bytes: bytes.length, service: 's', module: 'm', host: 'h', container: 'c' }
      return Buffer.from(`${JSON.stringify({ type: 'batch', stretches: [head] })}\n${bytes}`)
    }
    for (const bytes of ['no line\n', '2026-11-23T12:00:00.000Z web-1 without its end'])
      expect(() => [...new EventDecoder().decode(batch(bytes))]).toThrow(SyntaxError)
  })
})
