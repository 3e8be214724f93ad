/** The host loses power before any call to the disk: what was not synced is gone, in part or whole, and all comes out the same. */
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, it, vi } from 'vitest'
import { ANYBODY } from '../../consumer/access.ts'
import { Checkpoint, type State } from '../../consumer/checkpoint.ts'
import { readIndex } from '../../consumer/index-log.ts'
import { verify } from '../../consumer/verify.ts'
import { temporaryFolder } from '../support/folder.ts'
import { filesOf, Life, landAll, NOON, topicOf } from '../support/landing.ts'
import { Host, PowerCut } from '../support/power.ts'
import { random } from '../support/simulated-group.ts'
import { inSoak } from '../support/soak.ts'

vi.mock('../../consumer/kernel.ts', async (original) => {
  const { powered } = await import('../support/power.ts')
  return powered(await original())
})

const step = fc.oneof(
  { weight: 6, arbitrary: fc.constant('land' as const) },
  { weight: 2, arbitrary: fc.constant('land many' as const) },
  { weight: 2, arbitrary: fc.constant('flush' as const) },
  { weight: 2, arbitrary: fc.constant('save' as const) },
  // The power goes so many calls later.
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 40 }) },
)
/** So many at most that a checkpoint makes all of the file system durable at once, also because they are not all open. */
const RUNS = 24
const said = fc.record({
  run: fc.oneof(fc.integer({ min: 1, max: 3 }), { weight: 2, arbitrary: fc.integer({ min: 1, max: RUNS }) }),
  first: fc.integer({ min: 1, max: 30 }),
  count: fc.integer({ min: 1, max: 12 }),
  ms: fc.constantFrom(NOON, Date.parse('2026-11-23T00:00:00.000Z') - 5),
})

function stateOf(root: string): State {
  const checkpoint = new Checkpoint(join(root, '.tallyman/checkpoint'))
  checkpoint.close()
  return checkpoint.state
}

/** What the ledger says of each run, and how many bytes of each file the index tells of. */
function accountOf(root: string) {
  const { index, runs, totals, partitions } = stateOf(root)
  const rows = [...index].flatMap(([day, length]) => [...readIndex(join(root, '.tallyman'), day, length)].flat())
  const covered = Array.from(
    Map.groupBy(rows, ({ file }) => file),
    ([file, of]) => [file, of.reduce((sum, { bytes }) => sum + bytes, 0)],
  )
  return {
    runs: [...runs].sort(),
    totals: [...totals].sort(),
    partitions: [...partitions].sort(),
    covered: covered.sort(),
  }
}

it('files, ledger and index are those of a run that never lost power', { timeout: 120_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(
      ...([
        fc.array(said, { minLength: 1, maxLength: 80, size: 'max' }),
        fc.array(step, { maxLength: 60, size: 'max' }),
        fc.integer(),
      ] as const),
      async (records, steps, seed) => {
        using calm = temporaryFolder()
        using rough = temporaryFolder()
        using host = new Host(rough.path)
        const draw = random(seed)
        const topic = topicOf(records.map((r) => ({ ...r, partition: r.run % 2, module: `m${r.run}` })))
        await landAll(calm.path, topic)
        let life: Life | undefined
        let left: typeof topic = []
        const begin = (): Life => {
          const begun = new Life(host.root)
          left = topic.filter((r) => Number(r.message.offset) >= begun.next(r.partition))
          return begun
        }
        for (const what of steps) {
          try {
            if (typeof what === 'number') host.cutIn(what)
            life ??= begin()
            const count = what === 'land' ? 1 : what === 'land many' ? RUNS : 0
            for (const stored of left.splice(0, count)) await life.land(stored)
            if (what === 'flush') life.writer.flush()
            if (what === 'save') life.save()
          } catch (error) {
            if (!(error instanceof PowerCut)) throw error
            life?.end()
            life = undefined
            host.lose(draw)
          }
        }
        life?.end()
        host.cutIn(Number.POSITIVE_INFINITY)
        await landAll(host.root, topic)
        expect(filesOf(host.root)).toEqual(filesOf(calm.path))
        expect(accountOf(host.root)).toEqual(accountOf(calm.path))
        expect((await verify(host.root, stateOf(host.root), {}, ANYBODY.may)).problems).toEqual([])
      },
    ),
    { numRuns: inSoak(60, 3_000) },
  )
})
