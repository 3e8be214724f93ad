import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Checkpoint, newFile } from '../../consumer/checkpoint.ts'
import { Manifests } from '../../consumer/manifests.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Life, landAll, NOON, topicOf } from '../support/landing.ts'

const DAY_MS = 86_400_000

describe('manifests', () => {
  it("tell of each module's days with no log file there, and go with what lands", async () => {
    using root = temporaryFolder()
    const topic = topicOf([
      { partition: 0, module: 'shop/front', run: 1, first: 1, count: 3 },
      { partition: 1, module: 'shop/front', run: 2, first: 3, count: 2, ms: NOON + 60_000 },
      { partition: 0, module: 'shop/front', run: 1, first: 4, count: 5, ms: NOON - DAY_MS },
      { partition: 0, module: 'm'.repeat(300), run: 3, first: 1, count: 1 },
    ])
    await landAll(root.path, topic.slice(0, 3))
    rmSync(join(root.path, 's'), { recursive: true })
    const life = new Life(root.path)
    const manifests = new Manifests(life.checkpoint)
    const front = { service: 's', module: 'shop/front' }
    expect([...manifests.modules()]).toEqual([front])
    expect([...manifests.list({ since: '2026-11-23' })]).toEqual([
      {
        ...front,
        day: '2026-11-23',
        files: [
          {
            ...{ file: 's/shop%2Ffront/2026-11-23.log', segment: 0, partition: 0, lines: 3 },
            ...{ bytes: 147, stored: 147, compressed: undefined, first: NOON, last: NOON + 2 },
          },
          {
            ...{ file: 's/shop%2Ffront/2026-11-23.p1.log', segment: 0, partition: 1, lines: 2 },
            ...{ bytes: 98, stored: 98, compressed: undefined, first: NOON + 60_000, last: NOON + 60_001 },
          },
        ],
        ...{ lines: 5, bytes: 245, stored: 245, first: NOON, last: NOON + 60_001 },
        ledger: expect.objectContaining({ written: 5, lost: 2, lostBy: { gap: 2 } }),
      },
    ])
    expect(Array.from(manifests.list(), ({ day, lines }) => [day, lines])).toEqual([
      ['2026-11-22', 5],
      ['2026-11-23', 5],
    ])

    await life.land(topic[3]!)
    expect([...manifests.modules()]).toHaveLength(1)
    life.save()
    expect([...manifests.modules()]).toContainEqual({ service: 's', module: 'm'.repeat(300) })
    expect([...manifests.list({ wanted: ({ module }) => module.startsWith('m') })]).toHaveLength(1)
    life.end()
  })

  it('of a day that is removed are not there', () => {
    using root = temporaryFolder()
    const checkpoint = new Checkpoint(join(root.path, 'checkpoint'))
    const file = (day: string) => `s/m/${day}.log`
    const manifests = new Manifests(checkpoint)
    checkpoint.append({ files: [20, 21, 22].map((day) => [file(`2026-11-${day}`), newFile(0)]) })
    const days = () => Array.from(manifests.list(), ({ day }) => day)
    expect(days()).toEqual(['2026-11-20', '2026-11-21', '2026-11-22'])
    checkpoint.append({ floor: '2026-11-22' })
    expect(days()).toEqual(['2026-11-22'])
    checkpoint.append({ files: [20, 21, 22].map((day) => [file(`2026-11-${day}`), undefined]) })
    expect([...manifests.modules()]).toEqual([])
    checkpoint.close()
  })
})
