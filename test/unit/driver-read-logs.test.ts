import { appendFileSync, rmSync, unlinkSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { startOfRun, writeCheckpoint } from '../../driver/checkpoint.ts'
import { Frame, readFrame } from '../../driver/frames.ts'
import { History } from '../../driver/history.ts'
import { JournalReader, runFolder, segmentPath, writeGap } from '../../driver/journal.ts'
import { LOG_READER_LIMITS, LogReader, moment, type ReadConfig } from '../../driver/read-logs.ts'
import { createRun } from '../../driver/run.ts'
import { Slots } from '../../driver/slots.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame, lineFrames } from '../support/log-entry.ts'
import { runOptions } from '../support/run.ts'

const ALL: ReadConfig = { since: undefined, until: undefined, tail: -1, follow: false }
const CONTAINER = 'c1'

const line = (text: string, time = 1_000n) => frame({ source: 'stdout', time, line: Buffer.from(text) })

/** A container with one run that is open, and readers of it. */
function house(journal: string, followers = 2) {
  const slots = new Slots()
  const history = new History()
  const record = createRun(journal, {
    file: '/f',
    service: 's',
    module: 'm',
    host: 'h',
    container: { id: CONTAINER, name: 'n', image: 'i' },
    attrs: {},
    started: 1,
    options: runOptions({ maxLineBytes: 1024, cacheBytes: 1000 }),
  })
  const folder = runFolder(journal, record.run)
  const slot = slots.claim(0)!
  const run = history.add(record, slot)
  const reader = new LogReader(journal, history, slots, { followers, drainMs: 50 })
  let base = 0
  return {
    folder,
    run,
    /** Journals a segment, as intake does. */
    segment(...frames: Buffer[]): number {
      const bytes = Buffer.concat(frames)
      appendFileSync(segmentPath(folder, base), bytes)
      slots.addWritten(slot, bytes.length)
      slots.ring()
      base += bytes.length
      return base - bytes.length
    },
    end() {
      slots.end(slot)
      slots.ring()
    },
    read: (config: Partial<ReadConfig>, gone = new AbortController().signal) =>
      reader.read(CONTAINER, { ...ALL, ...config }, gone),
  }
}

/** Lines of the entries in a block. */
function linesOf(block: Buffer): string[] {
  const found: string[] = []
  const entry = new Frame()
  for (let at = 0; at < block.length; ) {
    at = readFrame(block, at, block.length, entry)
    expect(at).toBeGreaterThan(0)
    found.push(block.toString('latin1', entry.lineStart, entry.lineEnd))
  }
  return found
}

async function linesIn(blocks: AsyncIterable<Buffer>): Promise<string[]> {
  const all: string[] = []
  for await (const block of blocks) all.push(...linesOf(block))
  return all
}

describe('reading logs', () => {
  it('gives an entry a frame, with a newline unless more of the line follows', async () => {
    using journal = temporaryFolder()
    const { segment, read } = house(journal.path)
    segment(line('one'), ...lineFrames('stderr', 5n, Buffer.alloc(20_000, 'x'), 'id'), line(''))
    expect(await linesIn(read({}))).toEqual(['one\n', 'x'.repeat(16_384), `${'x'.repeat(3_616)}\n`, '\n'])
  })

  it('from the last entries, over segments that begin within a frame', async () => {
    using journal = temporaryFolder()
    const { folder, segment, read } = house(journal.path)
    const [one, two, three] = [line('one'), line('two'), line('three')]
    segment(one, two.subarray(0, 9))
    const base = segment(two.subarray(9), three)
    writeCheckpoint(
      folder,
      {
        ...startOfRun(),
        starts: [
          [0, 0],
          [base, one.length + two.length],
        ],
      },
      false,
    )
    expect(await linesIn(read({ tail: 0 }))).toEqual([])
    expect(await linesIn(read({ tail: 1 }))).toEqual(['three\n'])
    expect(await linesIn(read({ tail: 2 }))).toEqual(['two\n', 'three\n'])
    expect(await linesIn(read({ tail: 9 }))).toEqual(['one\n', 'two\n', 'three\n'])
  })

  it('the last entries where shipping has not come by, and a segment ends within one', async () => {
    using journal = temporaryFolder()
    const { segment, read } = house(journal.path)
    const [one, two, three] = [line('one'), line(`two ${'x'.repeat(9000)}`), line('three')]
    segment(one, two.subarray(0, 5000))
    segment(two.subarray(5000), three, line('four'))
    for (const [tail, first] of [
      [1, 'four\n'],
      [2, 'three\n'],
      [3, `two ${'x'.repeat(9000)}\n`],
      [4, 'one\n'],
    ] as const) {
      const lines = await linesIn(read({ tail }))
      expect(lines).toHaveLength(tail)
      expect(lines[0]).toBe(first)
    }
  })

  it('between two times, both of them included, up to the first entry that is later', async () => {
    using journal = temporaryFolder()
    const { segment, read } = house(journal.path)
    const at = (ns: bigint) => moment(`2026-11-23T12:00:00.${String(ns).padStart(9, '0')}Z`)
    const time = (ns: bigint) => BigInt(Date.parse('2026-11-23T12:00:00Z')) * 1_000_000n + ns
    segment(line('a', time(1n)), line('b', time(2n)), line('c', time(3n)), line('late', time(9n)), line('d', time(3n)))
    expect(await linesIn(read({ since: at(2n), until: at(3n) }))).toEqual(['b\n', 'c\n'])
  })

  it('goes on behind segments that went, and behind a gap', async () => {
    using journal = temporaryFolder()
    const { folder, segment, read } = house(journal.path)
    segment(line('gone'))
    segment(line('two'))
    segment(line('three'), line('torn').subarray(0, 14))
    writeGap(folder, { offset: segment(line('four')), lines: [1, 0] })
    unlinkSync(segmentPath(folder, 0))
    expect(await linesIn(read({}))).toEqual(['two\n', 'three\n', 'four\n'])
  })

  it('goes on behind what of a segment was given up, be it in the middle of frames', async () => {
    using journal = temporaryFolder()
    const { folder, segment, read } = house(journal.path)
    const [one, two, three] = [line('one'), line('two'), line('three')]
    const reader = new JournalReader(folder)
    segment(one, two, three, line('four'))
    reader.passOver(one.length + 9, one.length + two.length + 9)
    expect(await linesIn(read({}))).toEqual(['one\n', 'four\n'])
    expect(await linesIn(read({ tail: 1 }))).toEqual(['four\n'])
    reader.close()
  })

  it('of a run that was removed meanwhile gives nothing', async () => {
    using journal = temporaryFolder()
    const { folder, segment, read } = house(journal.path)
    segment(line('gone'))
    rmSync(folder, { recursive: true })
    expect(await linesIn(read({}))).toEqual([])
    expect(await linesIn(read({ tail: 5 }))).toEqual([])
  })

  it('follows until the run is over', async () => {
    using journal = temporaryFolder()
    const { segment, end, read } = house(journal.path)
    segment(line('one'))
    const following = read({ follow: true })
    expect(linesOf((await following.next()).value as Buffer)).toEqual(['one\n'])
    const more = following.next()
    segment(line('two'))
    expect(linesOf((await more).value as Buffer)).toEqual(['two\n'])
    const last = following.next()
    end()
    expect((await last).done).toBe(true)
  })

  it('ends for whoever has gone, and for who was idle longest where too many follow', async () => {
    using journal = temporaryFolder()
    const { segment, read } = house(journal.path, 2)
    segment(line('one'))
    const gone = new AbortController()
    const [first, second] = [read({ follow: true }, gone.signal), read({ follow: true })]
    await Promise.all([first.next(), second.next()])
    const waiting = [first.next(), second.next()]
    gone.abort()
    expect((await waiting[0]!).done).toBe(true)
    const third = read({ follow: true })
    const fourth = read({ follow: true })
    await third.next()
    await fourth.next()
    expect((await waiting[1]!).done).toBe(true)
  })

  it('closes the one that was idle longest of as many as may follow, and no other, and all of those get what comes', async () => {
    using journal = temporaryFolder()
    const { followers } = LOG_READER_LIMITS
    const { segment, read } = house(journal.path, followers)
    segment(line('one'))
    const all = Array.from({ length: followers + 1 }, () => read({ follow: true }))
    for (const follower of all.slice(0, -1)) await follower.next()
    const waiting = all.slice(0, -1).map((follower) => follower.next())
    await all.at(-1)!.next()
    expect((await waiting[0]!).done).toBe(true)
    waiting.push(all.at(-1)!.next())
    segment(line('two'))
    for (const next of waiting.slice(1)) expect(linesOf((await next).value as Buffer)).toEqual(['two\n'])
  })

  it('waits for what is in the pipe of a container that has just ended, but not for ever', async () => {
    using journal = temporaryFolder()
    const { run, segment, read } = house(journal.path)
    segment(line('one'))
    run.stopping = true
    expect(await linesIn(read({}))).toEqual(['one\n'])
    const late = linesIn(read({}))
    segment(line('two'))
    run.over.resolve()
    expect(await late).toEqual(['one\n', 'two\n'])
  })
})

describe('a moment', () => {
  it.each([
    ['1970-01-01T00:00:00.000000005Z', 5n],
    ['1970-01-01T01:00:01+01:00', 1_000_000_000n],
    ['2026-11-23T08:24:41.123456789Z', BigInt(Date.parse('2026-11-23T08:24:41Z')) * 1_000_000n + 123_456_789n],
  ])('%s', (text, ns) => {
    const { high, low } = moment(text)!
    expect((BigInt(high) << 28n) + BigInt(low)).toBe(ns)
  })

  it.each(['0001-01-01T00:00:00Z', '', 'yesterday', '2026-13-99T00:00:00Z'])('%j is none', (text) => {
    expect(moment(text)).toBeUndefined()
  })
})
