import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { EncodedLines } from '../../consumer/encoded-lines.ts'
import { encodeEvents } from '../../consumer/event-stream.ts'
import { lineEvent, parseLines } from '../../consumer/stored-line.ts'
import { NOON } from '../support/landing.ts'

/** Lines as they stand in a file; now and then one that nobody of ours has written. */
const line = fc.oneof(
  {
    weight: 20,
    arbitrary: fc
      .record({
        ms: fc.oneof(fc.nat({ max: 3 }), fc.nat({ max: 100_000 })),
        stderr: fc.boolean(),
        text: fc.oneof(
          fc.string(),
          fc.string({ unit: 'binary' }),
          fc.constant('a "quoted" \\ \u2028 \x00 \x7f line'),
          fc.constant('x'.repeat(3000)),
          fc.constant('\x01'.repeat(500)),
        ),
      })
      .map(({ ms, stderr, text }) =>
        Buffer.from(`${new Date(NOON + ms).toISOString()} web-1${stderr ? '!' : ''} ${text.replaceAll('\n', '')}\n`),
      ),
  },
  { weight: 1, arbitrary: fc.constantFrom('tampered\n', '2026-11-23T12:00:00.xyzZ web-1 x\n', '\n').map(Buffer.from) },
  { weight: 1, arbitrary: fc.constant(Buffer.from('2026-11-23T12:00:00.123Z web-1 \xff\xfe\n', 'latin1')) },
)

describe('lines that are encoded at once', () => {
  it('are those that are encoded one by one, from any position on', () => {
    fc.assert(
      fc.property(
        fc.array(line, { minLength: 1, maxLength: 30 }),
        fc.constantFrom(0, 5, 95, 99_990, 1e9 - 50, 2 ** 40),
        fc.constantFrom('ndjson' as const, 'sse' as const),
        fc.constantFrom('web', 'wéb"'),
        (lines, position, format, module) => {
          const bytes = Buffer.concat(lines)
          const stretch = {
            ...{ file: 's/m/2026-11-23.log', position, bytes: bytes.length, lines: lines.length, stderr: 1 },
            ...{ tmin: NOON, tmax: NOON + 100_000 },
            names: { service: 's', module, host: 'h', container: 'web-1', format: 'text' as const },
          }
          const expected = parseLines(stretch, bytes)
          const encoded = EncodedLines.of(stretch, bytes)
          expect(Array.from(encoded.times)).toEqual(expected.map(({ time }) => time))
          expect(Array.from(encoded.positions)).toEqual(expected.map(({ position }) => position))
          expect(Array.from(encoded.stderr, Boolean)).toEqual(expected.map(({ stderr }) => stderr))
          const { bytes: out, offsets } = encoded.encoded(format)
          const events = expected.map((line) => encodeEvents([lineEvent(line)], format))
          expect(Array.from(events, (_, i) => out.toString('utf8', offsets[i], offsets[i + 1]))).toEqual(events)
          expect(out.length).toBe(offsets[lines.length])
        },
      ),
      { numRuns: 300 },
    )
  })
})
