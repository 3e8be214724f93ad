import { describe, expect, it } from 'vitest'
import { IndexLog, type Names } from '../../consumer/index-log.ts'
import { RowCache } from '../../consumer/row-cache.ts'
import { temporaryFolder } from '../support/folder.ts'

const NAMES: Names = { service: 's', module: 'm', host: 'h', container: 'c', format: 'text' }
const ALL = { since: -Infinity, until: Infinity, names: () => true, stdout: true, stderr: true }

/** An index, and what reads it. A row is of ten bytes, and of the ms that it is called by. */
function indexIn(path: string, maxBytes = 2 ** 20) {
  const index = new IndexLog(path, new Map())
  const rows = new RowCache({
    ...{ state: path, index, files: new Map(), reindexed: new Map(), runs: new Map() },
    ...{ format: 'text', maxBytes },
  })
  const add = (day: string, n: number) =>
    index.add(
      day,
      {
        ...{ file: `s/m/${day}.log`, position: 20 * n, lines: 1, run: '01'.repeat(16), names: NAMES, tmin: n, tmax: n },
        numbers: [
          [n, n],
          [0, 0],
        ],
      },
      Buffer.alloc(10),
    )
  return { index, rows, add }
}

describe('rows behind a place in the index', () => {
  it('are all of them, also those of a day that grows while a later one is read', async () => {
    using folder = temporaryFolder()
    const { index, rows, add } = indexIn(folder.path)
    add('2026-11-22', 1)
    add('2026-11-23', 2)
    index.sync()
    // Landed, and not in a log yet.
    add('2026-11-22', 3)
    const found: number[] = []
    for await (const stretches of rows.behind(new Map(), ALL, true, [])) {
      found.push(...stretches.map(({ tmin }) => tmin))
      // A checkpoint is written while the second day is read.
      if (found.length === 2) index.sync()
    }
    expect(found.sort()).toEqual([1, 2, 3])
  })
})

describe('rows of a day', () => {
  it.each([2 ** 20, 1])('are each there once while the index is written, with a memory of %i bytes', async (memory) => {
    using folder = temporaryFolder()
    const { index, rows, add } = indexIn(folder.path, memory)
    const day = '2026-11-23'
    for (let n = 0; n < 200; n++) {
      add(day, n)
      if (n % 3 === 0) index.sync()
      const reading = rows.day(day, ALL, [])
      // Between any two steps of who reads.
      if (n % 2) queueMicrotask(() => index.sync())
      if (n % 5 === 0) void Promise.resolve().then(() => index.sync())
      const picked = await reading
      const found = picked.flatMap(({ rows, picked }) => Array.from(picked, (i) => rows.at(i)))
      const positions = found.flatMap(({ position, bytes }) =>
        Array.from({ length: bytes / 10 }, (_, i) => position + 20 * i),
      )
      expect(positions.sort((a, b) => a - b)).toEqual(Array.from({ length: n + 1 }, (_, i) => 20 * i))
    }
  })

  it('of a day that is removed are gone, and its time is taken by nothing', async () => {
    using folder = temporaryFolder()
    const { index, rows, add } = indexIn(folder.path)
    add('2026-11-22', 1)
    index.sync()
    expect(await rows.day('2026-11-22', ALL, [])).toHaveLength(1)
    index.forget('2026-11-22')
    expect(await rows.day('2026-11-22', ALL, [])).toEqual([])
    expect(rows.days).toEqual([])
  })
})
