import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { enterCounters, Ledger, type LedgerState, lostOf } from '../../consumer/ledger.ts'
import type { Chunk } from '../../wire/chunk.ts'
import { chunkOf, type Meaning } from '../support/chunk.ts'

const RUN = '00'.repeat(16)
const DAY = '2026-11-23'

type Cut = {
  first: [number, number]
  /** Of each line, ns since 1970. */
  times?: string[]
  sources: (0 | 1)[]
  lost?: Meaning['lost']
  end?: [number, number]
  run?: string
  module?: string
}

/** A chunk of lines that say their own numbers. */
function cut({ first, sources, times, lost, end, run = RUN, module = 'm' }: Cut): Chunk {
  const next = [...first]
  return chunkOf({
    run,
    service: 's',
    module,
    host: 'h',
    container: { id: 'c', name: 'n', image: 'i' },
    attrs: {},
    first,
    lines: sources.map((source, i) => ({
      source: source === 0 ? 'stdout' : 'stderr',
      number: next[source]!++,
      time: times?.[i] ?? '1000',
      text: '',
    })),
    ...(lost && { lost }),
    ...(end && { end }),
  })
}

/** Numbers that the ledger lets through, as `source:number`. */
function written(ledger: Ledger, chunk: Chunk): string[] {
  const wanted = ledger.enter(chunk, DAY, 0)
  const next = [...chunk.first]
  return Array.from({ length: chunk.lines }, (_, i) => {
    const source = (chunk.src[i >> 3]! >> (i & 7)) & 1
    return `${source}:${next[source]!++}`
  }).filter((_, i) => !wanted || wanted[i] === 1)
}

const sum = (byReason: Record<string, number>) => Object.values(byReason).reduce((a, b) => a + b, 0)

/** What runs and totals say, which has to be the same; `unaccounted` are numbers that are neither written nor lost. */
function sumsOf({ runs, totals }: LedgerState) {
  const sources = [...runs.values()].flatMap((run) => run.sources)
  const all = [...totals.values()]
  const of = (values: number[]) => values.reduce((a, b) => a + b, 0)
  const lost = of(sources.map((source) => sum(lostOf(source))))
  const doubled = of(sources.map((source) => source.doubled))
  expect(of(all.map((each) => sum(each.lost)))).toBe(lost)
  expect(of(all.map((each) => each.doubled))).toBe(doubled)
  const written = of(all.map((each) => each.written))
  return { written, lost, doubled, unaccounted: of(sources.map(({ high }) => high)) - written - lost }
}

const lines = (from: number, count: number): Cut => ({ first: [from, 1], sources: Array(count).fill(0) })

describe('ledger', () => {
  it('a run’s last line is the last of its last chunk, which can span hours', () => {
    const ledger = new Ledger()
    ledger.enter(cut({ first: [1, 1], sources: [0, 0], times: ['5000000000', '7205000000000'] }), DAY, 0)
    expect(ledger.state.runs.get(RUN)).toMatchObject({ first: 5_000, last: 7_205_000 })
    expect(ledger.state.totals.values().next().value).toMatchObject({ last: 7_205_000 })
  })

  it('writes each line once, whatever comes twice, is cut elsewhere, comes late or is missing', () => {
    const step = fc.record({
      first: fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 60 })),
      sources: fc.array(fc.constantFrom<0 | 1>(0, 1), { maxLength: 20 }),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.nat(), (steps, restart) => {
        const seen = new Set<string>()
        const saved: LedgerState = { runs: new Map(), totals: new Map() }
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
          ledger.wrote(chunk, DAY, naive.length)
          const changes = ledger.takeChanges()
          for (const [run, state] of changes.runs) saved.runs.set(run, state!)
          for (const [key, state] of changes.totals) saved.totals.set(key, state!)
          enterCounters(saved, changes)
          expect(sumsOf(ledger.state)).toEqual({ ...sumsOf(ledger.state), written: seen.size, unaccounted: 0 })
        })
      }),
      { numRuns: 500 },
    )
  })

  it('what is lost is counted by reason, and the driver’s own word counts more than a gap', () => {
    const ledger = new Ledger()
    ledger.enter(cut(lines(11, 2)), DAY, 0)
    expect(lostOf(ledger.state.runs.get(RUN)!.sources[0])).toEqual({ gap: 10 })
    const told = { source: 'stdout' as const, from: 3, count: 4, reason: 'disk' }
    ledger.enter(cut({ ...lines(13, 1), lost: [told] }), DAY, 0)
    expect(lostOf(ledger.state.runs.get(RUN)!.sources[0])).toEqual({ gap: 6, disk: 4 })
    expect(written(ledger, cut(lines(1, 4)))).toHaveLength(4)
    expect(lostOf(ledger.state.runs.get(RUN)!.sources[0])).toEqual({ gap: 4, disk: 2 })
    const [totals] = ledger.state.totals.values()
    expect(totals).toMatchObject({ service: 's', module: 'm', host: 'h', day: DAY, lost: { gap: 4, disk: 2 } })
  })

  it('what is missing since records expired is missing for that reason, once for each source, and nothing after that', () => {
    const ledger = new Ledger()
    ledger.enter(cut({ first: [1, 1], sources: [0, 1] }), DAY, 0)
    ledger.enter(cut({ ...lines(1, 1), run: 'ab'.repeat(16) }), DAY, 1)
    ledger.expire(0, 1)
    ledger.enter(cut(lines(5, 1)), DAY, 0)
    ledger.enter(cut(lines(9, 1)), DAY, 0)
    ledger.enter(cut({ first: [10, 4], sources: [1] }), DAY, 0)
    ledger.enter(cut({ ...lines(4, 1), run: 'cd'.repeat(16) }), DAY, 0)
    ledger.enter(cut({ ...lines(3, 1), run: 'ab'.repeat(16) }), DAY, 1)
    const lost = (run: string) => ledger.state.runs.get(run)!.sources.map(lostOf)
    expect(lost(RUN)).toEqual([{ expired: 3, gap: 3 }, { expired: 2 }])
    expect(lost('cd'.repeat(16))).toEqual([{ expired: 3 }, {}])
    expect(lost('ab'.repeat(16))).toEqual([{ gap: 1 }, {}])
  })

  it('a run that is first heard of behind what the log held when records had expired has lost its lines otherwise', () => {
    const ledger = new Ledger({ runs: new Map(), totals: new Map() }, [[0, 50]])
    const early = 'ab'.repeat(16)
    ledger.enter(cut({ ...lines(3, 1), run: early }), DAY, 0, 0, 49)
    ledger.enter(cut(lines(4, 1)), DAY, 0, 0, 50)
    expect(lostOf(ledger.state.runs.get(early)!.sources[0])).toEqual({ expired: 2 })
    expect(lostOf(ledger.state.runs.get(RUN)!.sources[0])).toEqual({ gap: 3 })
  })

  it('more reasons than a sender can have are not told apart, and what comes late is taken back all the same', () => {
    const ledger = new Ledger()
    const reasons = 1_000
    for (let i = 0; i < reasons; i++) {
      const told = { source: 'stdout' as const, from: i + 1, count: 1, reason: `reason-${i}` }
      ledger.enter(cut({ first: [i + 2, 1], sources: [], lost: [told] }), DAY, 0)
    }
    ledger.enter(cut(lines(reasons + 11, 1)), DAY, 0)
    const [totals] = ledger.state.totals.values()
    const { sources } = ledger.state.runs.get(RUN)!
    for (const lost of [totals!.lost, sources[0].closed, lostOf(sources[0])]) {
      expect(Object.keys(lost).length).toBeLessThan(40)
      expect(lost).toMatchObject({ other: expect.any(Number) })
    }
    expect(totals!.lost).toMatchObject({ gap: 10, 'reason-0': 1 })
    expect(sumsOf(ledger.state)).toMatchObject({ written: 0, lost: reasons + 10 })
    expect(written(ledger, cut(lines(reasons - 4, 5)))).toHaveLength(5)
    expect(sum(totals!.lost)).toBe(reasons + 5)
  })

  it('a partition that another root has read meanwhile goes on where that one came to, and sums over both are whole', () => {
    const [one, other] = [new Ledger(), new Ledger()]
    for (const ledger of [one, other]) ledger.enter(cut({ ...lines(1, 1), run: 'ab'.repeat(16) }), DAY, 1)
    one.enter(cut({ ...lines(1, 1), run: 'cd'.repeat(16) }), DAY, 0)
    one.enter(cut(lines(4, 1)), DAY, 0)
    other.adopt(0, new Map([[RUN, structuredClone(one.state.runs.get(RUN)!)]]))
    expect(written(other, cut(lines(1, 4)))).toEqual(['0:1', '0:2', '0:3'])
    const sums = [one, other].flatMap(({ state }) => [...state.totals.values()].map(({ lost }) => sum(lost)))
    expect(sums).toEqual([3, -3])
    one.adopt(0, other.state.runs)
    expect([...one.state.runs.keys()].sort()).toEqual([RUN, 'ab'.repeat(16)])
  })

  it('a run that changes its names, as nobody should, has its losses where they were counted first', () => {
    const ledger = new Ledger()
    ledger.enter(cut({ ...lines(2, 1), module: 'one' }), DAY, 0)
    ledger.enter(cut({ ...lines(1, 1), module: 'other' }), DAY, 0)
    expect([...ledger.state.totals.values()].map(({ module, lost }) => [module, lost])).toEqual([['one', { gap: 0 }]])
  })

  it('holes that are closed for good stay lost', () => {
    const ledger = new Ledger()
    for (let i = 0; i < 300; i++) ledger.enter(cut(lines(2 * i + 2, 1)), DAY, 0)
    expect(lostOf(ledger.state.runs.get(RUN)!.sources[0])).toEqual({ gap: 300 })
    expect(written(ledger, cut(lines(1, 1)))).toEqual([])
    expect(written(ledger, cut(lines(599, 1)))).toEqual(['0:599'])
    expect(lostOf(ledger.state.runs.get(RUN)!.sources[0])).toEqual({ gap: 299 })
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
    ledger.enter(cut({ first: [1, 1], sources: [0, 0], end: [4, 1] }), DAY, 0)
    const { sources, ended } = ledger.state.runs.get(RUN)!
    expect(ended).toBe(true)
    expect(sources.map(({ high, written }) => [high, written])).toEqual([
      [4, 2],
      [1, 0],
    ])
    expect(sources.map(lostOf)).toEqual([{ gap: 2 }, { gap: 1 }])
    expect(written(ledger, cut({ first: [3, 1], sources: [0, 1] }))).toEqual(['0:3', '1:1'])
  })

  it('a checkpoint that was taken is not changed by what is entered later', () => {
    const ledger = new Ledger()
    ledger.enter(cut(lines(3, 1)), DAY, 0)
    const [[, state] = []] = ledger.takeChanges().runs
    ledger.enter(cut(lines(1, 9)), DAY, 0)
    expect(state?.sources[0]).toMatchObject({ high: 3, written: 1, holes: [{ from: 1, to: 2 }] })
  })

  it('runs that never end are forgotten where ten thousand others were heard of later, and none that is not silent', () => {
    const ledger = new Ledger()
    const run = (i: number) => i.toString(16).padStart(32, '0')
    const day = (n: number) => n * 86_400_000
    const heard = (i: number, appended: number) => ledger.enter(cut({ ...lines(1, 1), run: run(i) }), DAY, 0, appended)
    for (let i = 0; i <= 10_000; i++) heard(i, day(10) + i)
    ledger.enter(cut({ ...lines(1, 1), end: [1, 0], run: run(20_000) }), DAY, 0, 1)
    ledger.takeChanges()
    // Of the oldest one more is heard.
    ledger.enter(cut({ ...lines(2, 1), run: run(0) }), DAY, 0, day(50))
    expect(ledger.takeChanges().runs).toMatchObject([[run(0), { heard: day(50) }]])
    expect(ledger.forgetSilent(day(10))).toEqual([])
    expect(ledger.forgetSilent(day(40))).toEqual([])
    heard(30_000, day(5))
    expect(ledger.forgetSilent(day(40))).toEqual([run(30_000)])
    expect(ledger.takeChanges().runs.filter(([, state]) => state === undefined)).toEqual([[run(30_000), undefined]])
    expect(ledger.forgetSilent(day(60))).toEqual([run(1)])
    // It comes back: nothing of it is missing, and what it says again is a copy.
    expect(written(ledger, cut({ ...lines(1, 2), run: run(2) }))).toEqual(['0:2'])
    const totals = [...ledger.state.totals.values()]
    expect(totals.map(({ lost }) => sum(lost))).toEqual([0])
  })

  it('runs that ended are forgotten once ten thousand others have ended, and none before', () => {
    const ledger = new Ledger()
    const run = (i: number) => i.toString(16).padStart(32, '0')
    for (let i = 0; i <= 10_000; i++) ledger.enter(cut({ ...lines(1, 1), end: [1, 0], run: run(i) }), DAY, 0)
    const forgotten = ledger.takeChanges().runs.filter(([, state]) => state === undefined)
    expect(forgotten).toEqual([[run(0), undefined]])
    expect(written(ledger, cut({ ...lines(1, 1), run: run(1) }))).toEqual([])
  })
})
