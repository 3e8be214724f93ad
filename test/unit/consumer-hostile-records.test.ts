/**
 * Records of a sender that means harm, or that has gone wrong: each lands or is a dead letter, none ends the consumer or fills its
 * memory, and what the checkpoint says of them is read again.
 */

import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Checkpoint } from '../../consumer/checkpoint.ts'
import type { LineFormat } from '../../consumer/layout.ts'
import { type Chunk, ChunkEncoder, STDERR } from '../../wire/chunk.ts'
import { JSON_CONTENT_TYPE } from '../../wire/json-line.ts'
import { CHUNK_CONTENT_TYPE } from '../../wire/record.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Life, NOON, record, type Stored } from '../support/landing.ts'

const MIB = 1024 * 1024

const EMPTY = new Uint8Array(0)

/** A chunk that says little and means much. */
const chunk = (more: Partial<Chunk>): Chunk => ({
  ...{ run: new Uint8Array(16), service: 's', module: 'm', host: 'h', container: { id: 'c', name: 'c', image: 'i' } },
  ...{ attrs: {}, first: [1, 1], lines: 0, src: EMPTY, t0: BigInt(NOON) * 1_000_000n, dt: new Int32Array(0) },
  ...{ len: new Uint32Array(0), flags: undefined, data: EMPTY, lost: [], end: undefined },
  ...more,
})

const empty = (lines: number, more: Partial<Chunk> = {}): Chunk =>
  chunk({
    ...{ lines, src: new Uint8Array(Math.ceil(lines / 8)), dt: new Int32Array(lines), len: new Uint32Array(lines) },
    ...more,
  })

/** A record with a value of its own. */
function stored(offset: number, value: Uint8Array, { timestamp = String(NOON), type = '' } = {}): Stored {
  const message = { key: null, value: Buffer.from(value), timestamp, attributes: 0, offset: String(offset) }
  return { partition: 0, message: { ...message, headers: { 'content-type': type } } }
}

const encoded = (of: Chunk): Uint8Array => new ChunkEncoder().encode(of).slice()

/** Lands what is sent, and a record behind it. @returns what landed, and the most that buffers took beyond what they took before */
async function landed(format: LineFormat, values: Uint8Array[]): Promise<{ life: Life; grown: number }> {
  using root = temporaryFolder()
  const life = new Life(root.path, 4, format)
  const before = process.memoryUsage().arrayBuffers
  let grown = 0
  try {
    for (const [offset, value] of values.entries()) {
      const { partition, message } = stored(offset, value)
      await life.landing.land(partition, message, async (work) => {
        grown = Math.max(grown, process.memoryUsage().arrayBuffers - before)
        work()
      })
      life.save()
    }
    const lines = life.landing.counts.lines
    await life.land(record(values.length, { partition: 0, module: 'behind', run: 99, first: 1, count: 1 }))
    expect(life.landing.counts.lines).toBe(lines + 1)
    life.save()
  } finally {
    life.end()
  }
  const again = new Checkpoint(join(root.path, '.tallyman/checkpoint'))
  expect(again.state.totals).toEqual(life.ledger.state.totals)
  again.close()
  return { life, grown }
}

describe.each(['text', 'raw', 'jsonl'] as const)('in %s', (format) => {
  it('a million empty lines behind a name of 4,096 characters are a dead letter', async () => {
    const name = '\u8239'.repeat(4096)
    const { life } = await landed(format, [encoded(empty(MIB, { container: { id: 'c', name, image: 'i' } }))])
    expect(life.landing.counts).toMatchObject({ lines: 1, undecodable: 1 })
  })

  it('the longest names in front of as many lines as may have them land in bounded memory', async () => {
    const name = '\u8239'.repeat(4096)
    const { life, grown } = await landed(format, [
      encoded(empty(8192, { host: name, container: { id: '', name, image: '' } })),
    ])
    expect(life.landing.counts).toMatchObject({ lines: 8193, undecodable: 0 })
    expect(grown).toBeLessThan(64 * MIB)
  })

  it('130,000 lines, each of another source and day than the one before, land in bounded memory', async () => {
    const lines = MIB / 8
    const day = 86_400_000_000_000n
    const { life, grown } = await landed(format, [
      encoded(
        empty(lines, {
          src: new Uint8Array(lines / 8).fill(0b01010101),
          dt: BigInt64Array.from({ length: lines }, (_, i) => (i % 2 === 0 ? 0n : -day)),
        }),
      ),
    ])
    expect(life.landing.counts).toMatchObject({ lines: lines + 1, undecodable: 0 })
    expect(grown).toBeLessThan(64 * MIB)
    expect(life.index.pending.values().reduce((sum, rows) => sum + rows.length, 0)).toBe(0)
  })
})

/** Numbers at which sums, widths and signs break. */
const absurd = fc.oneof(
  fc.constantFrom(0, 1, 2, 255, 2 ** 31, 2 ** 32, 2 ** 52, Number.MAX_SAFE_INTEGER - 1, Number.MAX_SAFE_INTEGER),
  fc.integer({ min: 1, max: 100 }),
)
const word = fc.oneof(
  fc.constantFrom(
    '',
    '__proto__',
    'constructor',
    '..',
    '.',
    '/',
    'a/b',
    '\0',
    '\ud800',
    'x'.repeat(4096),
    'disk',
    'gap',
  ),
  fc.string({ unit: 'binary', maxLength: 20 }),
)

const hostile: fc.Arbitrary<Chunk> = fc
  .array(
    fc.record({
      stderr: fc.boolean(),
      dt: fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.bigInt({ min: -1000n, max: 1000n })),
      bytes: fc.uint8Array({ maxLength: 20 }).map((bytes) => bytes.filter((byte) => byte !== 10)),
    }),
    { maxLength: 20 },
  )
  .chain((lines) => {
    const src = new Uint8Array(Math.ceil(lines.length / 8))
    for (const [i, { stderr }] of lines.entries()) if (stderr) src[i >> 3]! |= STDERR << (i & 7)
    return fc.record<Chunk>({
      run: fc.constantFrom(new Uint8Array(16), new Uint8Array(16).fill(1)),
      ...{ service: word, module: word, host: word, container: fc.record({ id: word, name: word, image: word }) },
      attrs: fc.dictionary(word, word, { maxKeys: 3 }),
      first: fc.tuple(absurd, absurd),
      lines: fc.constant(lines.length),
      src: fc.constant(src),
      t0: fc.oneof(fc.constantFrom(0n, 1n, 2n ** 63n, 2n ** 64n - 1n), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
      dt: fc.constantFrom(
        BigInt64Array.from(lines, ({ dt }) => dt),
        BigInt64Array.from(lines, () => 0n),
      ),
      len: fc.constant(Uint32Array.from(lines, ({ bytes }) => bytes.length)),
      flags: fc.constantFrom(undefined, new Uint8Array(lines.length).fill(3)),
      data: fc.constant(new Uint8Array(Buffer.concat(lines.map(({ bytes }) => bytes)))),
      lost: fc.array(fc.record({ source: fc.constantFrom(0, 1), from: absurd, count: absurd, reason: word }), {
        maxLength: 4,
      }),
      end: fc.option(fc.tuple(absurd, absurd), { nil: undefined }),
    })
  })

/** A record's value: a chunk, or one of which bytes were changed, cut off or doubled. */
const value = fc
  .tuple(
    hostile.map(encoded),
    fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { maxLength: 3 }),
    fc.option(fc.nat(), { nil: undefined, freq: 8 }),
  )
  .map(([bytes, changes, cut]) => {
    const changed = Buffer.from(bytes)
    for (const [at, byte] of changes) changed[at % changed.length] = byte
    return cut === undefined ? changed : changed.subarray(0, cut % changed.length)
  })

const around = fc.record({
  timestamp: fc.constantFrom(String(NOON), '0', '-1', '9223372036854775807', '253402300800000', ''),
  type: fc.constantFrom(CHUNK_CONTENT_TYPE, JSON_CONTENT_TYPE, ''),
})

it('whatever is sent lands or is a dead letter, and the checkpoint behind it is read again', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom<LineFormat>('text', 'raw', 'jsonl'),
      fc.array(fc.tuple(value, around), { minLength: 1, maxLength: 12 }),
      async (format, records) => {
        using root = temporaryFolder()
        const life = new Life(root.path, 4, format)
        try {
          for (const [offset, [bytes, said]] of records.entries()) await life.land(stored(offset, bytes, said))
          life.save()
        } finally {
          life.end()
        }
        const again = new Checkpoint(join(root.path, '.tallyman/checkpoint'))
        expect(again.state.runs).toEqual(life.ledger.state.runs)
        expect(again.state.totals).toEqual(life.ledger.state.totals)
        again.close()
      },
    ),
  )
})
