/**
 * What a root had claimed and not written, and Kafka does not have any more when that root comes back: it ends as lost, once, whoever
 * has the partition by then.
 */
import { describe, expect, it } from 'vitest'
import { EXPIRED } from '../../consumer/ledger.ts'
import { Process, random, SimulatedKafka, SimulatedRoot } from '../support/simulated-group.ts'

const SEEDS = Array.from({ length: 20 }, (_, i) => i + 1)
/** More than enough for whatever is waited for. */
const STEPS = 5_000

async function until(kafka: SimulatedKafka, what: string, done: () => boolean): Promise<void> {
  for (let step = 0; step < STEPS && !done(); step++) await kafka.step()
  if (!done()) throw new Error(`waited in vain: ${what}`)
}

/** Appends five lines of each of two runs, two records each. */
function feed(kafka: SimulatedKafka, first: number): void {
  for (const run of [0, 1]) {
    kafka.append(0, run, first, 2)
    kafka.append(0, run, first + 2, 3)
  }
}

/**
 * Two roots of which one is killed between its claim of four records and their lines' way to a file; the other takes over and counts them.
 * @param returns what happens before that root comes back
 */
async function life(seed: number, returns: (kafka: SimulatedKafka, stays: Process) => void) {
  const kafka = new SimulatedKafka(random(seed), 1)
  kafka.disturbed = false
  const [gone, stays] = [new SimulatedRoot('a'), new SimulatedRoot('b')]
  const killed = new Process(kafka, gone)
  const claimed = () => kafka.commits.get(0)?.offset ?? 0
  feed(kafka, 1)
  await until(kafka, 'the first is written', () => gone.state.partitions.get(0)?.next === 4)
  feed(kafka, 6)
  killed.fetch()
  await until(kafka, 'all is claimed', () => claimed() === 8)
  killed.kill()
  kafka.leave(killed)
  const process = new Process(kafka, stays)
  await until(kafka, 'what is claimed is counted', () => kafka.tenures === 1)
  feed(kafka, 11)
  process.fetch()
  await until(kafka, 'the other goes on', () => stays.state.partitions.get(0)?.next === 12)
  returns(kafka, process)
  const back = new Process(kafka, gone)
  await until(kafka, 'nothing is claimed any more', () => kafka.tenures === 0)
  await until(kafka, 'both are at rest', () => kafka.members.length === 2 && kafka.unclaimed === 0)
  const stops = Promise.all([back, process].map((each) => each.stop()))
  let stopped = false
  void stops.then(() => {
    stopped = true
  })
  await until(kafka, 'both have stopped', () => stopped)
  const totals = [gone, stays].flatMap(({ state }) => [...state.totals.values()])
  const sum = (of: (each: (typeof totals)[number]) => number) => totals.reduce((all, each) => all + of(each), 0)
  return {
    written: sum((each) => each.written),
    lost: sum(({ lost }) => Object.values(lost).reduce((a, b) => a + b, 0)),
    expired: sum(({ lost }) => lost[EXPIRED] ?? 0),
    lines: [gone, stays].flatMap((root) => root.lines).length,
  }
}

describe.each(SEEDS)('what a root had claimed when it was killed (seed %i)', (seed) => {
  it('and has expired when it returns, is lost', async () => {
    const found = await life(seed, (kafka) => kafka.expire(0, 8))
    const lost = 30 - found.lines
    expect(found).toEqual({ written: 30 - lost, lost, expired: lost, lines: 30 - lost })
    expect(lost).toBeGreaterThan(0)
  })

  it('and has expired in part, is lost in part', async () => {
    const found = await life(seed, (kafka) => kafka.expire(0, 7))
    const lost = 30 - found.lines
    expect(found).toEqual({ written: 30 - lost, lost, expired: lost, lines: 30 - lost })
  })

  it('of a topic that was made anew meanwhile, is lost', async () => {
    const found = await life(seed, (kafka, stays) => {
      kafka.recreate()
      stays.lose()
    })
    const lost = 30 - found.lines
    expect(found).toEqual({ written: 30 - lost, lost, expired: lost, lines: 30 - lost })
  })
})

it.each(SEEDS)(
  'what a root had claimed, and Kafka dropped before anybody counted it, is told by its records (seed %i)',
  async (seed) => {
    const kafka = new SimulatedKafka(random(seed), 1)
    kafka.disturbed = false
    const [gone, stays] = [new SimulatedRoot('a'), new SimulatedRoot('b')]
    const killed = new Process(kafka, gone)
    feed(kafka, 1)
    await until(kafka, 'all is claimed', () => kafka.commits.get(0)?.offset === 4)
    killed.kill()
    kafka.leave(killed)
    feed(kafka, 6)
    kafka.expire(0, 3)
    const process = new Process(kafka, stays)
    await until(kafka, 'the other goes on', () => stays.state.partitions.get(0)?.next === 8)
    expect(process.subscriber.claimed).toMatchObject([{ owner: 'a', from: 0, to: 4, uncounted: 3 }])
    // Lines of both runs are missing for that, as far as he knows.
    const totals = [...stays.state.totals.values()].map(({ lost }) => Object.keys(lost))
    expect(new Set(totals.flat())).toEqual(new Set([EXPIRED]))
  },
)
