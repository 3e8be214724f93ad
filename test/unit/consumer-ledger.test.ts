import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Ledger, type RunState } from '../../consumer/ledger.ts'
import type { Chunk } from '../../wire/chunk.ts'
import { chunkOf, type Meaning } from '../support/chunk.ts'

const RUN = '00'.repeat(16)

type Cut = { first: [number, number]; sources: (0 | 1)[]; lost?: Meaning['lost']; end?: [number, number]; run?: string }

/** A chunk of lines that say their own numbers. */
function cut({ first, sources, lost, end, run = RUN }: Cut): Chunk {
  const next = [...first]
  return chunkOf({
    run,
    service: 's',
    module: 'm',
    host: 'h',
    container: { id: 'c', name: 'n', image: 'i' },
    attrs: {},
    first,
    lines: sources.map((source) => ({
      source: source === 0 ? 'stdout' : 'stderr',
      number: next[source]!++,
      time: '1000',
      text: '',
    })),
    ...(lost && { lost }),
    ...(end && { end }),
  })
}

/** Numbers that the ledger lets through, as `source:number`. */
function written(ledger: Ledger, chunk: Chunk): string[] {
  const wanted = ledger.enter(chunk)
  const next = [...chunk.first]
  return Array.from({ length: chunk.lines }, (_, i) => {
    const source = (chunk.src[i >> 3]! >> (i & 7)) & 1
    return `${source}:${next[source]!++}`
  }).filter((_, i) => !wanted || wanted[i] === 1)
}

const lines = (from: number, count: number): Cut => ({ first: [from, 1], sources: Array(count).fill(0) })

describe('ledger', () => {
  it('writes each line once, whatever comes twice, is cut elsewhere, comes late or is missing', () => {
    const step = fc.record({
      first: fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 60 })),
      sources: fc.array(fc.constantFrom<0 | 1>(0, 1), { maxLength: 20 }),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.nat(), (steps, restart) => {
        const seen = new Set<string>()
        const saved = new Map<string, RunState>()
        let ledger = new Ledger()
        steps.forEach((next, i) => {
          if (i === restart % steps.length) ledger = new Ledger(structuredClone(saved))
          const chunk = cut(next)
          const numbers = [...next.first]
          const naive = next.sources
            .map((source) => `${source}:${numbers[source]!++}`)
            .filter((line) => !seen.has(line))
          expect(written(ledger, chunk)).toEqual(naive)
          for (const line of naive) seen.add(line)
          for (const [run, state] of ledger.takeChanges()) saved.set(run, state!)
        })
      }),
      { numRuns: 500 },
    )
  })

  it('a copy that overlaps brings only what is new', () => {
    const ledger = new Ledger()
    expect(written(ledger, cut(lines(1, 5)))).toHaveLength(5)
    expect(written(ledger, cut(lines(3, 5)))).toEqual(['0:6', '0:7'])
    expect(written(ledger, cut(lines(1, 7)))).toEqual([])
  })

  it('what was told as lost is written if it comes after all', () => {
    const ledger = new Ledger()
    const told = { source: 'stdout' as const, from: 1, count: 10, reason: 'journal-full' }
    expect(written(ledger, cut({ ...lines(11, 1), lost: [told] }))).toEqual(['0:11'])
    expect(written(ledger, cut(lines(4, 2)))).toEqual(['0:4', '0:5'])
    expect(written(ledger, cut(lines(4, 2)))).toEqual([])
  })

  it('lines that the end counts and that never came are a hole, to be filled late', () => {
    const ledger = new Ledger()
    ledger.enter(cut({ first: [1, 1], sources: [0, 0], end: [4, 1] }))
    expect(ledger.takeChanges()).toEqual([
      [
        RUN,
        {
          sources: [
            { high: 4, holes: [[3, 4]] },
            { high: 1, holes: [[1, 1]] },
          ],
          ended: true,
        },
      ],
    ])
    expect(written(ledger, cut({ first: [3, 1], sources: [0, 1] }))).toEqual(['0:3', '1:1'])
  })

  it('a checkpoint that was taken is not changed by what is entered later', () => {
    const ledger = new Ledger()
    ledger.enter(cut(lines(3, 1)))
    const [[, state] = []] = ledger.takeChanges()
    ledger.enter(cut(lines(1, 9)))
    expect(state?.sources[0]).toEqual({ high: 3, holes: [[1, 2]] })
  })

  it('runs that ended are forgotten once ten thousand others have ended, and none before', () => {
    const ledger = new Ledger()
    const run = (i: number) => i.toString(16).padStart(32, '0')
    for (let i = 0; i <= 10_000; i++) ledger.enter(cut({ ...lines(1, 1), end: [1, 0], run: run(i) }))
    const forgotten = ledger.takeChanges().filter(([, state]) => state === undefined)
    expect(forgotten).toEqual([[run(0), undefined]])
    expect(written(ledger, cut({ ...lines(1, 1), run: run(1) }))).toEqual([])
  })
})
