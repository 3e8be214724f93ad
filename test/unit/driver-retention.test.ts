import { appendFileSync, existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { listSegments, runFolder, runsFolder, segmentPath } from '../../driver/journal.ts'
import { Retention } from '../../driver/retention.ts'
import { createRun, type RunRecord } from '../../driver/run.ts'
import { temporaryFolder } from '../support/folder.ts'
import { runOptions } from '../support/run.ts'

const SEGMENT = 100

function house(journal: string, runsMax = 10) {
  const removed: RunRecord[] = []
  const retention = new Retention({ journal, runsMax, removed: (record) => removed.push(record) })
  /** Keeps a run of so many segments. */
  const keep = (container: string, segments: number): RunRecord => {
    const record = createRun(journal, {
      file: '/f',
      service: 's',
      module: 'm',
      host: 'h',
      container: { id: container, name: container, image: 'i' },
      attrs: {},
      started: removed.length,
      options: runOptions({ maxLineBytes: 1024, cacheBytes: 1000 }),
    })
    const folder = runFolder(journal, record.run)
    for (let i = 0; i < segments; i++) appendFileSync(segmentPath(folder, i * SEGMENT), Buffer.alloc(SEGMENT))
    retention.keep(record, segments * SEGMENT)
    return record
  }
  const segmentsOf = ({ run }: RunRecord) => listSegments(runFolder(journal, run)).map(({ base }) => base)
  return { retention, removed, keep, segmentsOf }
}

describe('retention', () => {
  it('gives a container’s oldest segment, then its oldest run as a whole', () => {
    using journal = temporaryFolder()
    const { retention, removed, keep, segmentsOf } = house(journal.path)
    const [one, other, two] = [keep('a', 2), keep('b', 1), keep('a', 2)]
    expect([retention.bytes(), retention.bytes('a'), retention.bytes('b')]).toEqual([500, 400, 100])
    expect(retention.giveOldest('a')).toBe(true)
    expect([segmentsOf(one), segmentsOf(two), retention.bytes('a')]).toEqual([[100], [0, 100], 300])
    expect(retention.giveOldest('a')).toBe(true)
    expect(removed).toEqual([one])
    expect(existsSync(runFolder(journal.path, one.run))).toBe(false)
    expect([segmentsOf(other), segmentsOf(two), retention.bytes()]).toEqual([[0], [0, 100], 300])
  })

  it('gives the oldest of all where no container is named, until there is nothing', () => {
    using journal = temporaryFolder()
    const { retention, removed, keep } = house(journal.path)
    const runs = [keep('a', 1), keep('b', 1)]
    while (retention.giveOldest());
    expect(removed).toEqual(runs)
    expect(retention.bytes()).toBe(0)
  })

  it('keeps no more runs than it may', () => {
    using journal = temporaryFolder()
    const { removed, keep } = house(journal.path, 2)
    const runs = [keep('a', 1), keep('b', 1), keep('a', 1), keep('c', 1)]
    expect(removed).toEqual(runs.slice(0, 2))
  })

  it('gives others where the disk does not let the oldest go', () => {
    using journal = temporaryFolder()
    const { retention, removed, keep } = house(journal.path, 3)
    const [stuck, ...others] = [keep('a', 1), keep('a', 1), keep('a', 1)]
    mkdirSync(join(runsFolder(journal.path), `.removed-${stuck!.run}`, 'in the way'), { recursive: true })
    expect(retention.giveOldest('a')).toBe(true)
    others.push(keep('a', 1), keep('a', 1))
    expect(removed).toEqual(others.slice(0, 2))
  })

  it('of none keeps none', () => {
    using journal = temporaryFolder()
    const { removed, keep } = house(journal.path, 0)
    expect(removed).toEqual([keep('a', 1)])
  })
})
