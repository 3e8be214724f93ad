import { appendFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { startOfRun } from '../../driver/checkpoint.ts'
import { ChunkBuilder } from '../../driver/chunks.ts'
import { Cursor } from '../../driver/cursor.ts'
import { DroppedFrames, tornFrame } from '../../driver/drops.ts'
import {
  JournalReader,
  readDropped,
  reserveDropped,
  segmentPath,
  writeDropped,
  writeGap,
} from '../../driver/journal.ts'
import type { LostRange } from '../../wire/chunk.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame, lineFrames } from '../support/log-entry.ts'

const line = (text: string, source: 'stdout' | 'stderr' = 'stdout') =>
  frame({ source, time: 1_000n, line: Buffer.from(text) })

const closing = (reader: JournalReader) => ({ reader, [Symbol.dispose]: () => reader.close() })

/** Drops these bytes, handed over in pieces of these sizes. */
function drop(bytes: Buffer, sizes: number[]): DroppedFrames {
  const dropped = new DroppedFrames()
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = Math.min(sizes[i % sizes.length]!, bytes.length - at)
    bytes.copy(dropped.room, 0, at, at + size)
    dropped.count(size)
    at += size
  }
  return dropped
}

describe('the frame within which a journal ends', () => {
  const end = 1_000_000

  it('is none where no segment is left', () => {
    using folder = temporaryFolder()
    using reader = closing(new JournalReader(folder.path, end))
    const torn = tornFrame(reader.reader, end)
    expect(torn).toHaveLength(0)
    expect(new DroppedFrames([0, 0], torn).needed).toBe(0)
  })

  it('is found where a little is left of what was shipped', () => {
    using folder = temporaryFolder()
    const begun = line('torn').subarray(0, 9)
    appendFileSync(segmentPath(folder.path, end - begun.length), begun)
    using reader = closing(new JournalReader(folder.path))
    expect(Buffer.from(tornFrame(reader.reader, end))).toEqual(begun)
  })
})

describe('what is dropped', () => {
  it('is counted by line and source, however it is cut', () => {
    const all = Buffer.concat([
      line('one'),
      line('oops', 'stderr'),
      ...lineFrames('stdout', 1_000n, Buffer.alloc(40_000, 'x'), 'id'),
      line('three'),
    ])
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 30_000 }), { minLength: 1 }), (sizes) => {
        const dropped = drop(all, sizes)
        expect(dropped.lines).toEqual([3, 1])
        expect(dropped.needed).toBe(0)
      }),
    )
  })

  it('says how many bytes are left of the last frame', () => {
    const whole = line('a line of some length')
    for (let cut = 1; cut < whole.length; cut++) {
      const dropped = drop(Buffer.concat([line('before'), whole.subarray(0, cut)]), [1000])
      // Of a frame whose length is not whole yet, only that.
      expect(dropped.needed).toBe(cut < 4 ? 4 - cut : whole.length - cut)
      expect(dropped.lines).toEqual([1, 0])
    }
  })

  it('may begin within a frame, whose rest counts as nothing', () => {
    const first = line('cut off')
    for (let cut = 1; cut < first.length; cut++) {
      expect(drop(Buffer.concat([first.subarray(cut), line('two'), line('three')]), [1000]).lines).toEqual([2, 0])
    }
  })
})

describe('a gap in the journal', () => {
  it('takes the numbers of its lines, the one that it cut off among them, and what follows is as it was printed', () => {
    const [one, torn, after] = [line('one'), line('torn'), line('after')]
    for (let cut = 0; cut < torn.length; cut++) {
      using folder = temporaryFolder()
      const before = Buffer.concat([one, torn.subarray(0, cut)])
      appendFileSync(segmentPath(folder.path, 0), before)
      appendFileSync(segmentPath(folder.path, before.length), after)
      writeGap(folder.path, { offset: before.length, lines: [4, 2] })
      const chunk = new ChunkBuilder()
      const cursor = new Cursor(new JournalReader(folder.path), startOfRun(), 1024)
      const taken = () => {
        const { lines, first, data } = chunk.seal()
        return { lines, first, text: Buffer.from(data).toString() }
      }
      const end = before.length + after.length
      chunk.begin(cursor.lines.next, 1_000_000)
      expect(cursor.advance(chunk, end, true, () => true)).toBe(false)
      expect(cursor.gap).toEqual({ offset: before.length, lines: [4, 2], reason: 'disk' })
      expect(taken()).toEqual({ lines: 1, first: [1, 1], text: 'one' })
      const lost: LostRange[] = []
      cursor.passGap((range) => lost.push(range))
      expect(lost).toEqual([
        { source: 0, from: 2, count: 4, reason: 'disk' },
        { source: 1, from: 1, count: 2, reason: 'disk' },
      ])
      chunk.begin(cursor.lines.next, 1_000_000)
      expect(cursor.advance(chunk, end, true, () => true)).toBe(true)
      expect(taken()).toEqual({ lines: 1, first: [6, 3], text: 'after' })
      expect(cursor.state(0).gap).toBe(before.length)
    }
  })

  it('is seen by a reader that knew of the segment behind it before it was noted', () => {
    using folder = temporaryFolder()
    const one = line('one')
    appendFileSync(segmentPath(folder.path, 0), one)
    appendFileSync(segmentPath(folder.path, one.length), '')
    const reader = new JournalReader(folder.path)
    const chunk = new ChunkBuilder()
    const cursor = new Cursor(reader, startOfRun(), 1024)
    chunk.begin(cursor.lines.next, 1_000_000)
    expect(cursor.advance(chunk, one.length, false, () => true)).toBe(true)
    expect(reader.bases()).toEqual([0, one.length])
    for (const count of [1, 3]) writeGap(folder.path, { offset: one.length, lines: [count, 0] })
    appendFileSync(segmentPath(folder.path, one.length), line('two'))
    expect(cursor.advance(chunk, 2 * one.length, false, () => true)).toBe(false)
    cursor.passGap(() => {})
    expect(cursor.lines.next).toEqual([5, 1])
  })

  it('at the very end is passed as well', () => {
    using folder = temporaryFolder()
    const one = line('one')
    appendFileSync(segmentPath(folder.path, 0), one)
    writeGap(folder.path, { offset: one.length, lines: [3, 0] })
    const chunk = new ChunkBuilder()
    const cursor = new Cursor(new JournalReader(folder.path), startOfRun(), 1024)
    chunk.begin(cursor.lines.next, 1_000_000)
    expect(cursor.advance(chunk, one.length, true, () => true)).toBe(false)
    cursor.passGap(() => {})
    expect(cursor.lines.next).toEqual([5, 1])
    expect(cursor.advance(chunk, one.length, true, () => true)).toBe(true)
  })

  it('that was never noted, because the driver was killed, is one as well', () => {
    using folder = temporaryFolder()
    const one = line('one')
    reserveDropped(folder.path)
    expect(readDropped(folder.path)).toBeUndefined()
    appendFileSync(segmentPath(folder.path, 0), one)
    writeDropped(folder.path, { offset: one.length, lines: [1_000_000, 0] })
    writeDropped(folder.path, { offset: one.length, lines: [3, 0] })
    const reader = new JournalReader(folder.path)
    expect(reader.gapFrom(0, -1)).toEqual({ offset: one.length, lines: [3, 0] })
    writeGap(folder.path, { offset: one.length, lines: [0, 0] })
    expect(new JournalReader(folder.path).gapFrom(0, -1)).toEqual({ offset: one.length, lines: [3, 0] })
    writeGap(folder.path, { offset: one.length, lines: [4, 0] })
    expect(new JournalReader(folder.path).gapFrom(0, -1)).toEqual({ offset: one.length, lines: [4, 0] })
  })
})
