import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ChunkBuilder } from '../../driver/chunks.ts'
import { Frame, readFrame } from '../../driver/frames.ts'
import { type LineState, Lines } from '../../driver/lines.ts'
import { CONTINUED, UNTERMINATED } from '../../wire/chunk.ts'
import { frame, lineFrames } from '../support/log-entry.ts'

const START: LineState = { next: [1, 1], pending: [undefined, undefined] }
const CAP = 256 * 1024

type Line = { source: number; n: number; text: string; flag: number; time: bigint }

/** Feeds frames one by one; resumes from a saved state before frame `resumeAt`, as a driver that was killed does. */
function linesOf(frames: Buffer[], { cap = CAP, finish = true, resumeAt = -1 } = {}): Line[] {
  let lines = new Lines(START, cap)
  const chunk = new ChunkBuilder()
  const found: Line[] = []
  const take = (work: () => void) => {
    chunk.begin(lines.next, 1024 * 1024)
    work()
    const { lines: count, src, t0, dt, len, flags, data, first } = chunk.seal()
    let at = 0
    for (let i = 0; i < count; i++) {
      const source = (src[i >> 3]! >> (i & 7)) & 1
      const text = Buffer.from(data.subarray(at, at + len[i]!)).toString('latin1')
      found.push({ source, n: first[source as 0 | 1]++, text, flag: flags?.[i] ?? 0, time: t0 + BigInt(dt[i]!) })
      at += len[i]!
    }
  }
  frames.forEach((bytes, i) => {
    if (i === resumeAt) lines = new Lines(structuredClone(lines.state()), cap)
    const decoded = new Frame()
    chunk.workspace.set(bytes)
    expect(readFrame(chunk.workspace, 0, bytes.length, decoded)).toBe(bytes.length)
    take(() => {
      expect(lines.roomFor(chunk, decoded)).toBe(true)
      lines.take(chunk, decoded)
    })
  })
  if (finish) {
    let over = false
    while (!over) {
      take(() => {
        over = lines.finish(chunk)
      })
    }
  }
  return found
}

const text = (length: number, fill = 'x') => fill.repeat(length)
const whole = (source: 'stdout' | 'stderr', line: string) =>
  frame({ source, time: 7n, line: Buffer.from(line, 'latin1') })
const split = (source: 'stdout' | 'stderr', line: string, id: string, terminated = true) =>
  lineFrames(source, 7n, Buffer.from(line, 'latin1'), id, terminated)

describe('lines', () => {
  it('are numbered by source, from 1', () => {
    const found = linesOf([whole('stdout', 'a'), whole('stderr', 'b'), whole('stdout', 'c')])
    expect(found.map(({ source, n, text }) => [source, n, text])).toEqual([
      [0, 1, 'a'],
      [1, 1, 'b'],
      [0, 2, 'c'],
    ])
  })

  it.each([0, 1, 16_383, 16_384, 16_385, 32_768, 50_000, 200_000, CAP])('of %i bytes come out whole', (length) => {
    expect(linesOf(split('stdout', text(length), 'id'))).toEqual([
      { source: 0, n: 1, text: text(length), flag: 0, time: 7n },
    ])
  })

  it('of both sources are joined by their own parts when those interleave', () => {
    const out = split('stdout', text(50_000, 'o'), 'one')
    const err = split('stderr', text(40_000, 'e'), 'two')
    const mixed = out.flatMap((part, i) => [part, ...err.slice(i, i + 1)])
    expect(linesOf(mixed).map(({ source, text }) => [source, text.length, text[0]])).toEqual([
      [1, 40_000, 'e'],
      [0, 50_000, 'o'],
    ])
  })

  it('that the end of the run cuts off are kept, and flagged', () => {
    expect(linesOf(split('stderr', text(20_000), 'id', false)).map(({ text, flag }) => [text.length, flag])).toEqual([
      [20_000, UNTERMINATED],
    ])
  })

  it('pending on both sources at the cap come out at the end, in as many chunks as it takes', () => {
    const frames = [...split('stdout', text(400_000), 'one', false), ...split('stderr', text(450_000), 'two', false)]
    expect(linesOf(frames, { cap: 480 * 1024 }).map(({ text, flag }) => [text.length, flag])).toEqual([
      [400_000, UNTERMINATED],
      [450_000, UNTERMINATED],
    ])
  })

  it('over the cap are cut into numbered pieces, all but the last flagged as continued', () => {
    const found = linesOf(split('stdout', text(2500), 'id'), { cap: 1000 })
    expect(found.map(({ n, text, flag }) => [n, text.length, flag])).toEqual([
      [1, 1000, CONTINUED],
      [2, 1000, CONTINUED],
      [3, 500, 0],
    ])
  })

  it('whose last part never came end where the next line begins', () => {
    const found = linesOf([split('stdout', text(20_000), 'id')[0]!, whole('stdout', 'next')])
    expect(found.map(({ n, text, flag }) => [n, text.length, flag])).toEqual([
      [1, 16_384, UNTERMINATED],
      [2, 4, 0],
    ])
  })

  it('get the same numbers when a driver takes up between any two frames', () => {
    const line = fc.record({
      source: fc.constantFrom('stdout' as const, 'stderr' as const),
      length: fc.oneof(fc.nat(50), fc.integer({ min: 16_380, max: 40_000 })),
    })
    fc.assert(
      fc.property(
        fc.array(line, { maxLength: 12 }),
        fc.nat(),
        fc.integer({ min: 1000, max: 50_000 }),
        (lines, where, cap) => {
          const frames = lines.flatMap(({ source, length }, i) => split(source, text(length), `id${i}`))
          const undisturbed = linesOf(frames, { cap })
          expect(linesOf(frames, { cap, resumeAt: frames.length === 0 ? 0 : where % frames.length })).toEqual(
            undisturbed,
          )
          for (const source of [0, 1]) {
            const numbers = undisturbed.filter((found) => found.source === source).map(({ n }) => n)
            expect(numbers).toEqual(numbers.map((_, i) => i + 1))
          }
        },
      ),
      { numRuns: 60 },
    )
  })
})
