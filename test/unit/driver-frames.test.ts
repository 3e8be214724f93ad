import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Frame, INCOMPLETE, INVALID, MAX_FRAME_BYTES, readFrame, resync } from '../../driver/frames.ts'
import { frame as encode, type LogEntry } from '../support/log-entry.ts'

const entry = fc.record(
  {
    source: fc.constantFrom('stdout', 'stderr'),
    time: fc.bigInt(0n, (1n << 63n) - 1n),
    line: fc.uint8Array({ maxLength: 300 }),
    part: fc.record({
      id: fc.stringMatching(/^[0-9a-f]{1,64}$/),
      ordinal: fc.integer({ min: 1, max: 1000 }),
      last: fc.boolean(),
    }),
  },
  { requiredKeys: ['source', 'time', 'line'] },
) as fc.Arbitrary<LogEntry>

/** What a frame says, as the encoder was told it. */
function decoded(bytes: Uint8Array, frame: Frame) {
  return {
    source: frame.source === 0 ? 'stdout' : 'stderr',
    time: (BigInt(frame.timeHigh) << 28n) + BigInt(frame.timeLow),
    line: Uint8Array.from(bytes.subarray(frame.lineStart, frame.lineEnd)),
    partial: frame.partial,
    last: frame.last,
    id: Buffer.from(bytes.subarray(frame.idStart, frame.idEnd)).toString(),
  }
}

const meant = ({ source, time, line, part }: LogEntry) => ({
  source,
  time,
  line: Uint8Array.from(line),
  partial: part !== undefined,
  last: part?.last ?? false,
  id: part?.id ?? '',
})

/** All frames that the decoder finds in `bytes`, and how many bytes it passed over. */
function readAll(bytes: Uint8Array) {
  const frame = new Frame()
  const found: ReturnType<typeof decoded>[] = []
  let skipped = 0
  let at = 0
  while (at < bytes.length) {
    const next = readFrame(bytes, at, bytes.length, frame)
    if (next > 0) {
      found.push(decoded(bytes, frame))
      at = next
    } else {
      const resumed = resync(bytes, at, bytes.length, frame)
      expect(resumed).toBeGreaterThan(at)
      skipped += resumed - at
      at = resumed
    }
  }
  return { found, skipped }
}

describe('frames', () => {
  it('any entry is read as it was written', () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 8 }), (entries) => {
        const { found, skipped } = readAll(Buffer.concat(entries.map(encode)))
        expect(found).toEqual(entries.map(meant))
        expect(skipped).toBe(0)
      }),
    )
  })

  it('a frame that is cut anywhere is incomplete, never half a line', () => {
    const whole = encode({
      source: 'stdout',
      time: 5n,
      line: Buffer.from('hello'),
      part: { id: 'ab', ordinal: 1, last: true },
    })
    for (let end = 0; end < whole.length; end++) {
      expect(readFrame(whole.subarray(0, end), 0, end, new Frame())).toBe(INCOMPLETE)
    }
  })

  it('foreign bytes between frames cost only themselves', () => {
    const foreign = fc.uint8Array({ maxLength: 200 }).map((bytes) => bytes.map((byte) => (byte === 0x0a ? 0 : byte)))
    fc.assert(
      fc.property(entry, foreign, entry, (before, bytes, after) => {
        // Bytes that end in what could be a length are indistinguishable from one: the marker behind them is the frame's.
        const { found } = readAll(Buffer.concat([encode(before), bytes, encode(after)]))
        expect(found.at(0)).toEqual(meant(before))
        expect(found.at(-1)).toEqual(meant(after))
      }),
    )
  })

  it('a line that holds frames is one line', () => {
    const inner = encode({ source: 'stderr', time: 1n, line: Buffer.from('not a line of its own') })
    const outer: LogEntry = { source: 'stdout', time: 2n, line: Buffer.concat([inner, inner]) }
    expect(readAll(encode(outer)).found).toEqual([meant(outer)])
  })

  it('fields that are not known are passed over', () => {
    const known = encode({ source: 'stdout', time: 3n, line: Buffer.from('x') })
    const extra = Buffer.from([0x3a, 3, 1, 2, 3, 0x40, 0x96, 1, 0x4d, 1, 2, 3, 4, 0x51, 1, 2, 3, 4, 5, 6, 7, 8])
    const bytes = Buffer.concat([known, extra])
    bytes.writeUInt32BE(bytes.length - 4)
    expect(readAll(bytes)).toEqual({
      found: [meant({ source: 'stdout', time: 3n, line: Buffer.from('x') })],
      skipped: 0,
    })
  })

  it('fields whose numbers take more than a byte are passed over, at the top and within', () => {
    const known = encode({ source: 'stdout', time: 3n, line: Buffer.from('x') })
    const far = [0x82, 1, 2, 7, 7, 0x80, 1, 0x96, 1]
    const bytes = Buffer.concat([known, Buffer.from([...far, 0x2a, far.length, ...far])])
    bytes.writeUInt32BE(bytes.length - 4)
    expect(readAll(bytes)).toEqual({
      found: [meant({ source: 'stdout', time: 3n, line: Buffer.from('x') })],
      skipped: 0,
    })
  })

  it('a length beyond any frame is refused at once, whatever follows', () => {
    const bytes = encode({ source: 'stdout', time: 3n, line: Buffer.from('x') })
    for (const length of [0xffff_ffff, MAX_FRAME_BYTES + 1, 0, 7]) {
      bytes.writeUInt32BE(length)
      expect(readFrame(bytes, 0, bytes.length, new Frame())).toBe(INVALID)
    }
  })

  it('any bytes are read to their end', () => {
    const noise = fc.oneof(fc.uint8Array({ maxLength: 400 }), entry.map(encode))
    fc.assert(
      fc.property(
        fc.array(noise, { maxLength: 6 }),
        fc.nat(),
        fc.integer({ min: 0, max: 255 }),
        (pieces, where, value) => {
          const bytes = Buffer.concat(pieces)
          if (bytes.length > 0) bytes[where % bytes.length] = value
          readAll(bytes)
        },
      ),
      { numRuns: 2000 },
    )
  })
})
