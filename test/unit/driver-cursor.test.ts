/** Journals of any bytes: what can be understood comes out, the rest is counted, and nothing hangs or crashes. */
import { appendFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { startOfRun } from '../../driver/checkpoint.ts'
import { ChunkBuilder } from '../../driver/chunks.ts'
import { Cursor } from '../../driver/cursor.ts'
import { JournalReader, segmentPath } from '../../driver/journal.ts'
import type { LostRange } from '../../wire/chunk.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame, lineFrames } from '../support/log-entry.ts'

type Cuts = {
  /** Sizes of segments. */ segments?: number[] /** By how much more is written, each time. */
  steps?: number[]
}

/** What a journal of these bytes is taken for: its lines, how many bytes were passed over, and which numbers are lost with them. */
function taken(
  bytes: Buffer,
  { segments = [], steps = [] }: Cuts = {},
): { lines: string[]; skipped: number; lost: LostRange[] } {
  using folder = temporaryFolder()
  for (let base = 0, i = 0; base < bytes.length; i++) {
    const end = Math.min(bytes.length, base + (segments[i % segments.length] ?? bytes.length))
    appendFileSync(segmentPath(folder.path, base), bytes.subarray(base, end))
    base = end
  }
  const chunk = new ChunkBuilder()
  const reader = new JournalReader(folder.path)
  const cursor = new Cursor(reader, startOfRun(), 64 * 1024)
  const lines: string[] = []
  const lost: LostRange[] = []
  const numbered = [1, 1]
  const seal = () => {
    const { len, data, src, first } = chunk.seal()
    let at = 0
    // No number stands twice, and none is left out.
    expect(first).toEqual(numbered)
    for (const [i, length] of len.entries()) {
      const bit = (src[i >> 3]! >> (i & 7)) & 1
      const side = bit ? 'stderr' : 'stdout'
      numbered[bit]!++
      lines.push(`${side} ${Buffer.from(data.subarray(at, at + length)).toString('latin1')}`)
      at += length
    }
    chunk.begin(cursor.lines.next, 200_000)
    return true
  }
  chunk.begin(cursor.lines.next, 200_000)
  for (let limit = 0, i = 0; limit < bytes.length; i++) {
    limit = Math.min(bytes.length, limit + (steps[i % steps.length] ?? bytes.length))
    const final = limit === bytes.length
    let done = cursor.advance(chunk, limit, final, seal)
    while (cursor.gap) {
      seal()
      cursor.passGap((range) => {
        lost.push(range)
        numbered[range.source]! += range.count
      })
      chunk.begin(cursor.lines.next, 200_000)
      done = cursor.advance(chunk, limit, final, seal)
    }
    expect(done).toBe(true)
  }
  while (!cursor.lines.finish(chunk)) seal()
  seal()
  expect(cursor.offset).toBe(bytes.length)
  reader.close()
  return { lines, skipped: cursor.state(undefined).skipped, lost }
}

const line = (text: string, source: 'stdout' | 'stderr' = 'stdout') =>
  frame({ source, time: 1_790_000_000_000_000_000n, line: Buffer.from(text, 'latin1') })

const cuts = fc.record({
  segments: fc.array(fc.integer({ min: 1, max: 3000 }), { maxLength: 6 }),
  steps: fc.array(fc.integer({ min: 1, max: 3000 }), { maxLength: 6 }),
})
const text = fc.stringMatching(/^[a-z ]{0,80}$/)
/** Bytes in which nobody could see a frame begin. */
const garbage = fc
  .uint8Array({ minLength: 1, maxLength: 200 })
  .map((bytes) => Buffer.from(bytes.map((byte) => byte | 0x80)))

describe('a journal', () => {
  it('of any bytes at all is read to its end', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5000 }), cuts, (bytes, how) => {
        taken(Buffer.from(bytes), how)
      }),
    )
  })

  it('means the same however it is cut into segments, and in whatever steps it grows', () => {
    const parts = fc.oneof(
      text.map((t) => line(t)),
      text.map((t) => line(t, 'stderr')),
      garbage,
      text.map((t) => line(t).subarray(0, 10)),
    )
    fc.assert(
      fc.property(fc.array(parts, { maxLength: 20 }), cuts, (all, how) => {
        const bytes = Buffer.concat(all)
        // Where it grows within garbage, less is known of it; what can be told for sure is the lines between.
        expect(taken(bytes, { segments: how.segments })).toEqual(taken(bytes))
      }),
    )
  })

  it('with garbage between its frames: every frame comes out, in order, and the garbage is counted', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(text, garbage), { maxLength: 15 }), cuts, (all, how) => {
        const bytes = Buffer.concat(all.flatMap(([t, junk]) => [line(t), junk]))
        const { lines, skipped, lost } = taken(bytes, how)
        expect(lines).toEqual(all.map(([t]) => `stdout ${t}`))
        expect(skipped).toBe(all.reduce((sum, [, junk]) => sum + junk.length, 0))
        expect(lost).toHaveLength(all.length)
      }),
    )
  })

  it('that is damaged loses about as many numbers as lines, and one for a frame whose rest never came', () => {
    const frames = Array.from({ length: 1_000 }, (_, i) =>
      line(`${i}`.padStart(100), i % 4 === 0 ? 'stderr' : 'stdout'),
    )
    const zeroed = Buffer.concat(frames)
    zeroed.fill(0, frames[0]!.length * 500, frames[0]!.length * 600)
    const count = (of: LostRange[], source: number) =>
      of.reduce((sum, range) => sum + (range.source === source ? range.count : 0), 0)
    const { lines, lost } = taken(zeroed)
    expect(lines).toHaveLength(900)
    expect([count(lost, 0), count(lost, 1)]).toEqual([75, 25])
    expect(new Set(lost.map(({ reason }) => reason))).toEqual(new Set(['damaged']))
    const torn = taken(Buffer.concat([...frames, line('x'.repeat(10_000), 'stderr').subarray(0, 9_000)]))
    expect(torn.lines).toHaveLength(1_000)
    expect(torn.lost).toEqual([{ source: 1, from: 251, count: 1, reason: 'damaged' }])
  })

  it('whose lines hold markers, or whole frames, is taken line by line', () => {
    const inner = line('a line within a line').toString('latin1')
    const odd = ['\n\x06stdout', '\n\x06stderr\x10\x01', inner, `${inner}${inner}`, `x${inner}\0\0\0\x10\n\x06stdout`]
    const { lines, skipped } = taken(Buffer.concat(odd.map((t) => line(t))))
    // A newline within a line is no app's: it becomes a blank.
    expect(lines).toEqual(odd.map((t) => `stdout ${t.replaceAll('\n', ' ')}`))
    expect(skipped).toBe(0)
  })

  it('with fields that nobody knows yet, of every type: the lines come out', () => {
    const unknown = [
      Buffer.from([0x38, 0x96, 0x01]),
      Buffer.from([0x41, 1, 2, 3, 4, 5, 6, 7, 8]),
      Buffer.concat([Buffer.from([0x4a, 3]), Buffer.from('abc')]),
      Buffer.from([0x55, 1, 2, 3, 4]),
    ]
    for (const field of unknown) {
      const known = line('known').subarray(4)
      const length = Buffer.alloc(4)
      length.writeUInt32BE(known.length + field.length)
      expect(taken(Buffer.concat([length, known, field, line('next')])).lines).toEqual(['stdout known', 'stdout next'])
    }
  })

  it.each([0, 1, 7, 8, 11, 32 * 1024 + 1, 2 ** 31, 2 ** 32 - 1])(
    'with a length of %i where a frame should begin goes on at the next frame',
    (size) => {
      const length = Buffer.alloc(4)
      length.writeUInt32BE(size)
      const broken = Buffer.concat([length, Buffer.from('\n\x06std')])
      expect(taken(Buffer.concat([line('before'), broken, line('after')])).lines.slice(-1)).toEqual(['stdout after'])
    },
  )

  it('with a varint that never ends goes on at the next frame', () => {
    const body = Buffer.concat([Buffer.from('\n\x06stdout\x10'), Buffer.alloc(40, 0xff)])
    const length = Buffer.alloc(4)
    length.writeUInt32BE(body.length)
    expect(taken(Buffer.concat([length, body, line('after')])).lines).toEqual(['stdout after'])
  })

  it('damaged at any byte loses at most the frame that holds it, and the one behind where its length is what was hit', () => {
    const texts = Array.from({ length: 8 }, (_, i) => `line ${i} of a damaged journal`)
    const frames = texts.map((t, i) => line(t, i % 3 === 0 ? 'stderr' : 'stdout'))
    const whole = Buffer.concat(frames)
    for (let at = 0; at < whole.length; at++) {
      for (const flip of [0xff, 0x01]) {
        const bytes = Buffer.from(whole)
        bytes[at]! ^= flip
        const { lines } = taken(bytes)
        const hit = Math.floor(at / frames[0]!.length)
        for (const [i, t] of texts.entries()) {
          if (i === hit || i === hit + 1) continue
          expect(
            lines.some((got) => got.endsWith(t)),
            `frame ${i} with byte ${at} ^ ${flip}`,
          ).toBe(true)
        }
      }
    }
  })

  it('with a split line whose parts are damaged still brings the lines around it', () => {
    const split = Buffer.concat(lineFrames('stdout', 1_000n, Buffer.alloc(40_000, 'x'), 'id'))
    for (let at = 0; at < split.length; at += 997) {
      const bytes = Buffer.concat([line('before'), split, line('after')])
      bytes[line('before').length + at]! ^= 0xff
      const { lines } = taken(bytes)
      expect(lines[0]).toBe('stdout before')
      expect(lines.at(-1)).toBe('stdout after')
    }
  })
})
