/**
 * Intake on a disk that is really full, a small tmpfs: wherever in a frame the disk stops taking bytes, each line is journalled or
 * counted. Mounting takes root, as CI and the system tests have it.
 */
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { startOfRun } from '../../driver/checkpoint.ts'
import { ChunkBuilder } from '../../driver/chunks.ts'
import { Cursor } from '../../driver/cursor.ts'
import { Intake } from '../../driver/intake.ts'
import { JournalReader, readDropped, reserveDropped } from '../../driver/journal.ts'
import { eventfd } from '../../driver/kernel.ts'
import { Slots } from '../../driver/slots.ts'
import type { LostRange } from '../../wire/chunk.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame, lineFrames } from '../support/log-entry.ts'
import { PAGE, smallDisk } from '../support/small-disk.ts'

const DISK_PAGES = 32
const TIME = 1_795_422_281_000_000_000n

const line = (text: string, source: 'stdout' | 'stderr' = 'stdout') =>
  frame({ source, time: TIME, line: Buffer.from(text) })

/**
 * Has intake journal `first`, which the disk does not take as a whole, and `second` once it has dropped something and there is room
 * again. @returns what a reader of the journal makes of it
 */
function journalled(first: Buffer, second: Buffer) {
  using disk = smallDisk(DISK_PAGES)
  using elsewhere = temporaryFolder()
  const fifo = join(elsewhere.path, 'fifo')
  execFileSync('mkfifo', [fifo])
  const writer = openSync(fifo, constants.O_RDWR)
  const filler = join(disk.path, 'filler')
  // What is left are two pages: one for the note of what is dropped, one for the segment.
  writeFileSync(filler, Buffer.alloc((DISK_PAGES - 2) * PAGE))
  reserveDropped(disk.path)

  const slots = new Slots()
  const wake = eventfd()
  const slot = slots.claim(0)!
  const intake: Intake = new Intake(
    slots,
    wake,
    { ended: () => intake.stop(), diskRefused: () => {}, diskRecovered: () => {} },
    { segmentBytes: 1024 * 1024, pipeBytes: 1024 * 1024, retryMs: 1 },
  )
  writeSync(writer, first)
  intake.open(slot, disk.path, fifo, { blockMs: 0 })
  let left = 2
  const turn = () => writeSync(wake, Buffer.from(BigUint64Array.of(1n).buffer))
  turn()
  intake.loop(() => {
    turn()
    if (left === 2 && readDropped(disk.path)) {
      rmSync(filler)
      writeSync(writer, second)
      left = 1
    } else if (left === 1) {
      closeSync(writer)
      left = 0
    }
  })

  const chunk = new ChunkBuilder()
  const reader = new JournalReader(disk.path)
  const cursor = new Cursor(reader, startOfRun(), 1024 * 1024)
  const lost: LostRange[] = []
  const texts: string[] = []
  for (let done = false; !done; cursor.passGap((range) => lost.push(range))) {
    chunk.begin(cursor.lines.next, 1024 * 1024)
    done = cursor.advance(chunk, slots.written(slot), true, () => false)
    cursor.gap ?? cursor.lines.finish(chunk)
    const { len, data } = chunk.seal()
    let at = 0
    for (const length of len) {
      texts.push(Buffer.from(data.subarray(at, at + length)).toString())
      at += length
    }
  }
  reader.close()
  return { texts, lost, skipped: cursor.state(undefined).skipped, next: cursor.lines.next }
}

describe.runIf(process.getuid?.() === 0)('a disk that is full', () => {
  const TORN = line('this one is cut off', 'stderr')

  it.each(Array.from({ length: 14 }, (_, i) => i).concat(TORN.length - 1))(
    'after %i bytes of a frame: its line is counted, and nothing else is',
    (cut) => {
      const before = line('x'.repeat(PAGE - cut - line('x'.repeat(PAGE)).length + PAGE))
      expect(before.length).toBe(PAGE - cut)
      const { texts, lost, skipped, next } = journalled(Buffer.concat([before, TORN, line('three')]), line('after'))
      expect(texts.slice(1)).toEqual(['after'])
      expect(lost).toEqual([
        { source: 0, from: 2, count: 1, reason: 'disk' },
        { source: 1, from: 1, count: 1, reason: 'disk' },
      ])
      expect(next).toEqual([4, 2])
      expect(skipped).toBe(0)
    },
  )

  it('within a split line: what the journal has of it is given up, and it counts as one', () => {
    const long = lineFrames('stdout', TIME, Buffer.alloc(40_000, 'x'), 'id')
    const { texts, lost, next } = journalled(Buffer.concat([line('one'), ...long]), line('after'))
    expect(texts).toEqual(['one', 'after'])
    expect(lost).toEqual([{ source: 0, from: 2, count: 1, reason: 'disk' }])
    expect(next).toEqual([4, 1])
  })

  it('that has room again when the stream of a run that waits is over: the run is let go of once', () => {
    using disk = smallDisk(DISK_PAGES)
    using elsewhere = temporaryFolder()
    const fifo = join(elsewhere.path, 'fifo')
    execFileSync('mkfifo', [fifo])
    const writer = openSync(fifo, constants.O_RDWR)
    const filler = join(disk.path, 'filler')
    reserveDropped(disk.path)
    writeFileSync(filler, Buffer.alloc((DISK_PAGES - 1) * PAGE))
    const slots = new Slots()
    const wake = eventfd()
    const slot = slots.claim(0)!
    const ended: number[] = []
    let refusals = 0
    const events = {
      ended: () => slots.hold(ended.push(slot) - 1, false),
      diskRefused: () => refusals++,
      diskRecovered: () => {},
    }
    const intake = new Intake(slots, wake, events, { segmentBytes: PAGE, pipeBytes: 1024 * 1024, retryMs: 1 })
    const turn = () => writeSync(wake, Buffer.from(BigUint64Array.of(1n).buffer))
    writeSync(writer, line('one'))
    intake.open(slot, disk.path, fifo, { blockMs: 20 })
    slots.hold(slot, true)
    const begun = performance.now()
    let turns = 0
    let over = false
    turn()
    intake.loop(() => {
      turn()
      if (!over && performance.now() - begun > 60) {
        over = true
        rmSync(filler)
        closeSync(writer)
      }
      if (ended.length > 0 && turns++ > 100) intake.stop()
    })
    expect(ended).toEqual([slot])
    expect(slots.written(slot)).toBe(0)
    expect(refusals).toBe(1)
  })

  it('whichever lines there are, as many are numbered as were printed, and those that land are as they were printed', () => {
    const source = fc.constantFrom('stdout' as const, 'stderr' as const)
    const bytes = fc.oneof(
      fc.integer({ min: 0, max: 300 }),
      fc.integer({ min: 0, max: 3 }).map((n) => 16_380 + n * 4),
    )
    const lines = fc.array(fc.tuple(source, bytes), { minLength: 1, maxLength: 60 })
    /** Frames of lines that are all different: more than the disk has left, and together with the others no more than a pipe holds. */
    const framed = (name: string, list: ['stdout' | 'stderr', number][]) => {
      const printed: { source: 'stdout' | 'stderr'; text: string }[] = []
      const frames: Buffer[] = []
      let size = 0
      for (const [source, length] of [['stdout', PAGE] as const, ...list]) {
        size += length + 400
        if (size > 24_000) break
        const text = `${name}/${printed.length}/`.padEnd(length, '-')
        frames.push(...lineFrames(source, TIME, Buffer.from(text), `${name}${printed.length}`))
        printed.push({ source, text })
      }
      return { printed, bytes: Buffer.concat(frames) }
    }
    fc.assert(
      fc.property(lines, lines, (first, second) => {
        const [before, after] = [framed('a', first), framed('b', second)]
        const printed = [...before.printed, ...after.printed]
        const { texts, lost, next, skipped } = journalled(before.bytes, after.bytes)
        const count = (of: string) => printed.filter(({ source }) => source === of).length
        expect(next).toEqual([1 + count('stdout'), 1 + count('stderr')])
        expect(texts.length + lost.reduce((sum, range) => sum + range.count, 0)).toBe(printed.length)
        const all = printed.map(({ text }) => text)
        expect(all.filter((text) => texts.includes(text)).sort()).toEqual(texts.toSorted())
        expect(skipped).toBe(0)
      }),
      { numRuns: 40 },
    )
  }, 30_000)
})
