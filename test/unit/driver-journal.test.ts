import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readCheckpoint, startOfRun, writeCheckpoint } from '../../driver/checkpoint.ts'
import { JournalReader, journalEnd, listRuns, removeRun, runFolder, segmentPath } from '../../driver/journal.ts'
import { createRun, readRun } from '../../driver/run.ts'
import { temporaryFolder } from '../support/folder.ts'
import { runOptions } from '../support/run.ts'

function segments(folder: string, ...texts: string[]): string {
  let base = 0
  for (const text of texts) {
    writeFileSync(segmentPath(folder, base), text)
    base += text.length
  }
  return folder
}

function read(reader: JournalReader, offset: number, length: number): string {
  const target = new Uint8Array(length)
  return Buffer.from(target.subarray(0, reader.read(target, 0, length, offset))).toString()
}

describe('journal', () => {
  it('is read across segments, from any offset', () => {
    using folder = temporaryFolder()
    const reader = new JournalReader(segments(folder.path, 'abc', 'def', 'gh'))
    expect(read(reader, 0, 8)).toBe('abcdefgh')
    expect(read(reader, 4, 3)).toBe('efg')
    expect(read(reader, 1, 1)).toBe('b')
  })

  it('is read on into a segment that was begun after the reader looked', () => {
    using folder = temporaryFolder()
    const reader = new JournalReader(segments(folder.path, 'abc'))
    expect(read(reader, 0, 3)).toBe('abc')
    writeFileSync(segmentPath(folder.path, 3), 'def')
    expect(read(reader, 2, 4)).toBe('cdef')
  })

  it('with a missing segment tells where it goes on', () => {
    using folder = temporaryFolder()
    writeFileSync(segmentPath(folder.path, 0), 'abc')
    writeFileSync(segmentPath(folder.path, 9), 'jkl')
    const reader = new JournalReader(folder.path)
    expect(read(reader, 1, 8)).toBe('bc')
    expect(reader.next(3)).toBe(9)
    expect(read(reader, 9, 3)).toBe('jkl')
    expect(journalEnd(folder.path)).toBe(12)
  })

  it('gives up segments that lie whole behind an offset, but for the last', () => {
    using folder = temporaryFolder()
    const reader = new JournalReader(segments(folder.path, 'abc', 'def', 'gh'))
    const dropBefore = (offset: number) => {
      while (reader.droppable(offset)) reader.dropFirst()
    }
    dropBefore(5)
    expect(readdirSync(folder.path)).toHaveLength(2)
    dropBefore(8)
    expect(readdirSync(folder.path)).toHaveLength(1)
    expect(read(reader, 6, 2)).toBe('gh')
  })

  it('can be listed while its last segment, which is empty, is made and removed by another thread', async () => {
    using folder = temporaryFolder()
    segments(folder.path, 'abc')
    const empty = JSON.stringify(segmentPath(folder.path, 3))
    const turn = `fs.writeFileSync(${empty}, ''); fs.unlinkSync(${empty})`
    const turning = spawn(process.execPath, ['-e', `process.stdout.write('.'); for (;;) { ${turn} }`])
    try {
      await once(turning.stdout, 'data')
      for (let i = 0; i < 5_000; i++) {
        expect(journalEnd(folder.path)).toBe(3)
        expect(new JournalReader(folder.path).start).toBe(0)
      }
    } finally {
      turning.kill('SIGKILL')
      await once(turning, 'exit')
    }
  })

  it('forgets a run whose removal was cut short, and holds the others', () => {
    using journal = temporaryFolder()
    const record = createRun(journal.path, { ...description, file: '/run/docker/logging/f' })
    mkdirSync(join(journal.path, 'runs', '.removed-x'))
    expect(listRuns(journal.path)).toEqual([record.run])
    expect(readRun(journal.path, record.run)).toEqual(record)
    removeRun(journal.path, record.run)
    expect(readdirSync(join(journal.path, 'runs'))).toEqual([])
    removeRun(journal.path, record.run)
  })
})

const description = {
  service: 'shop',
  module: 'api',
  host: 'h1',
  container: { id: 'c1', name: 'api-1', image: 'api:1' },
  attrs: {},
  started: 1_790_000_000_000,
  options: runOptions({ maxLineBytes: 1000, cacheBytes: 5000 }),
}

describe('a segment that the disk does not give as a whole', () => {
  const PAGE = 4096
  /** A disk whose pages [from, until) answer a read with an error. */
  const damaged = (from: number, until: number) =>
    ((fd: number, target: NodeJS.ArrayBufferView, at: number, length: number, position: number) => {
      if (position >= from && position < until) throw Object.assign(new Error('i/o error'), { code: 'EIO' })
      return readSync(fd, target, at, Math.min(length, position < from ? from - position : length), position)
    }) as typeof readSync

  it('is read up to the damage, and behind it from the next page on that the disk gives', () => {
    for (const [from, until] of [
      [PAGE, 2 * PAGE],
      [PAGE, 6 * PAGE],
      [10 * PAGE, 11 * PAGE],
      [0, PAGE],
    ] as const) {
      using folder = temporaryFolder()
      const bytes = randomBytes(20 * PAGE)
      writeFileSync(segmentPath(folder.path, 100), bytes)
      const reader = new JournalReader(folder.path, 100, damaged(from, until))
      const target = Buffer.alloc(bytes.length)
      expect(reader.read(target, 0, bytes.length, 100)).toBe(from)
      expect(reader.failure).toMatchObject({ offset: 100 + from })
      reader.giveUp(100 + from, 100 + bytes.length)
      expect(reader.read(target, 0, bytes.length, 100)).toBe(from)
      expect(reader.failure).toBeUndefined()
      const on = reader.next(100 + from)! - 100
      expect(on % PAGE).toBe(0)
      expect(on - from).toBeLessThanOrEqual(2 * (until - from))
      expect(reader.read(target, 0, bytes.length - on, 100 + on)).toBe(bytes.length - on)
      expect(target.subarray(0, bytes.length - on)).toEqual(bytes.subarray(on))
      reader.close()
      // The next reader knows, whatever the disk gives by then.
      const next = new JournalReader(folder.path, 100)
      expect(next.read(target, 0, bytes.length, 100)).toBe(from)
      expect(next.next(100 + from)).toBe(100 + on)
      next.close()
    }
  })

  it('costs nothing of the one that was begun behind it since', () => {
    using folder = temporaryFolder()
    mkdirSync(segmentPath(folder.path, 0))
    const reader = new JournalReader(folder.path)
    const target = Buffer.alloc(3)
    expect(reader.read(target, 0, 3, 0)).toBe(0)
    expect(reader.failure).toMatchObject({ offset: 0, error: { code: 'EISDIR' } })
    reader.giveUp(0, 10)
    writeFileSync(segmentPath(folder.path, 10), 'abc')
    expect(reader.read(target, 0, 3, 10)).toBe(3)
    expect(reader.failure).toBeUndefined()
    reader.close()
  })

  it('or can’t be listed is read as far as it is known, and that is told', () => {
    using folder = temporaryFolder()
    const run = join(folder.path, 'run')
    mkdirSync(run)
    writeFileSync(segmentPath(run, 0), 'abc')
    const reader = new JournalReader(run)
    const target = Buffer.alloc(6)
    expect(reader.read(target, 0, 3, 0)).toBe(3)
    renameSync(run, `${run}.gone`)
    writeFileSync(run, 'no folder')
    expect(reader.read(target, 0, 6, 0)).toBe(3)
    expect(reader.failure).toMatchObject({ offset: 3, error: { code: 'ENOTDIR' } })
    const later = new JournalReader(run)
    expect(later.read(target, 0, 6, 0)).toBe(0)
    expect(later.failure).toMatchObject({ offset: 0 })
    reader.close()
  })
})

describe('shipping checkpoint', () => {
  it('comes back as it was written, pending parts and all', () => {
    using folder = temporaryFolder()
    expect(readCheckpoint(folder.path)).toBeUndefined()
    const pending = { id: Buffer.of(1, 2), timeHigh: 2 ** 33, timeLow: 5, bytes: Buffer.alloc(70_000, 7) }
    const checkpoint = {
      offset: 2 ** 41,
      partition: 7,
      skipped: 3,
      ended: true,
      gap: 7,
      starts: [
        [0, 0],
        [2 ** 23, 2 ** 23 + 100],
      ] as [number, number][],
      lost: [{ source: 1 as const, from: 2 ** 40, count: 3, reason: 'too-large' }],
      lines: { next: [2 ** 40, 1] as [number, number], pending: [undefined, pending] as [undefined, typeof pending] },
    }
    writeCheckpoint(folder.path, startOfRun(), false)
    writeCheckpoint(folder.path, checkpoint, true)
    expect(readCheckpoint(folder.path)).toEqual(checkpoint)
    expect(readdirSync(folder.path)).toEqual(['checkpoint'])
  })

  it.each([
    ['is empty', Buffer.alloc(0)],
    ['is cut short', Buffer.from([0x86, 0xa1, 0x76])],
    ['is of a newer version', Buffer.from([0x81, 0xa1, 0x76, 0x02])],
    ['is text', Buffer.from('hello')],
  ])('that %s is refused, not guessed at', (_, bytes) => {
    using journal = temporaryFolder()
    const { run } = createRun(journal.path, { ...description, file: '/f' })
    writeFileSync(join(runFolder(journal.path, run), 'checkpoint'), bytes)
    expect(() => readCheckpoint(runFolder(journal.path, run))).toThrow()
  })
})
