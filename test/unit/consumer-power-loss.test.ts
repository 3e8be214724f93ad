/** The host loses power between any two steps: what was not synced is gone, in part or whole, and the files come out the same. */
import fc from 'fast-check'
import { expect, it, vi } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { filesOf, Life, landAll, NOON, topicOf } from '../support/landing.ts'
import { losePower } from '../support/power.ts'
import { random } from '../support/simulated-group.ts'
import { inSoak } from '../support/soak.ts'

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>()
  const { syncs } = await vi.importActual<typeof import('../support/power.ts')>('../support/power.ts')
  const mended = syncs(fs as never)
  return { ...fs, ...mended, default: { ...fs, ...mended } }
})

const step = fc.oneof(
  { weight: 8, arbitrary: fc.constant('land' as const) },
  { weight: 2, arbitrary: fc.constant('flush' as const) },
  { weight: 2, arbitrary: fc.constant('save' as const) },
  { weight: 1, arbitrary: fc.constant('lose power' as const) },
)
const said = fc.record({
  run: fc.integer({ min: 1, max: 3 }),
  first: fc.integer({ min: 1, max: 30 }),
  count: fc.integer({ min: 1, max: 12 }),
  ms: fc.constantFrom(NOON, Date.parse('2026-11-23T00:00:00.000Z') - 5),
})

it('the files are those of a run that never lost power', { timeout: 120_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(
      ...([fc.array(said, { minLength: 1, maxLength: 40 }), fc.array(step, { maxLength: 60 }), fc.integer()] as const),
      async (records, steps, seed) => {
        using calm = temporaryFolder()
        using rough = temporaryFolder()
        const draw = random(seed)
        const topic = topicOf(records.map((r) => ({ ...r, partition: r.run % 2, module: `m${r.run}` })))
        await landAll(calm.path, topic)
        let life = new Life(rough.path)
        let left = [...topic]
        for (const what of steps) {
          const stored = what === 'land' ? left.shift() : undefined
          if (stored) await life.land(stored)
          if (what === 'flush') life.writer.flush()
          if (what === 'save') life.save()
          if (what === 'lose power') {
            life.end()
            losePower(rough.path, draw)
            life = new Life(rough.path)
            left = topic.filter((r) => Number(r.message.offset) >= life.next(r.partition))
          }
        }
        life.end()
        await landAll(rough.path, topic)
        expect(filesOf(rough.path)).toEqual(filesOf(calm.path))
      },
    ),
    { numRuns: inSoak(40, 2_000) },
  )
})
