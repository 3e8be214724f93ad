/** Chunks both ways, and everything that is none: whatever bytes a record holds, there is a consistent chunk or a ChunkError. */
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Encoder } from '@msgpack/msgpack'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Chunk, ChunkEncoder, ChunkError, decodeChunk, type SourcePair } from '../../wire/chunk.ts'
import { ChunkReader } from '../../wire/chunk-reader.ts'
import { chunkOf, type Meaning, meaningOf } from '../support/chunk.ts'

const GOLDEN = join(import.meta.dirname, '../golden')
const golden = globSync('*.json', { cwd: GOLDEN }).map((file) => ({
  name: file.replace('.json', ''),
  meaning: JSON.parse(readFileSync(join(GOLDEN, file), 'utf8')) as Meaning,
  bytes: readFileSync(join(GOLDEN, file.replace('.json', '.msgpack'))),
}))

const encoded = (chunk: Chunk): Uint8Array => new ChunkEncoder().encode(chunk).slice()

/** Lines of any bytes but newlines, with times that need one width of `dt` or the other. */
const chunks: fc.Arbitrary<Chunk> = fc
  .array(
    fc.record({
      bytes: fc.uint8Array({ maxLength: 40 }).map((bytes) => bytes.map((b) => (b === 10 ? 13 : b))),
      stderr: fc.boolean(),
      narrow: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      wide: fc.bigInt({ min: -(2n ** 61n), max: 2n ** 62n }),
      flags: fc.integer({ min: 0, max: 3 }),
    }),
    { maxLength: 40 },
  )
  .chain((lines) => {
    const stderr = lines.filter((line) => line.stderr).length
    const number = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER - lines.length })
    const name = fc.string({ unit: 'binary', maxLength: 30 })
    const src = new Uint8Array(Math.ceil(lines.length / 8))
    lines.forEach((line, i) => {
      if (line.stderr) src[i >> 3]! |= 1 << (i & 7)
    })
    return fc
      .record<Chunk>({
        run: fc.uint8Array({ minLength: 16, maxLength: 16 }),
        service: name,
        module: name,
        host: name,
        container: fc.record({ id: name, name, image: name }),
        attrs: fc.dictionary(
          name.filter((key) => key !== '__proto__'),
          name,
          { noNullPrototype: true },
        ),
        first: fc.tuple(number, number),
        lines: fc.constant(lines.length),
        src: fc.constant(src),
        t0: fc.bigInt({ min: 2n ** 61n, max: 2n ** 63n }),
        dt: fc.constantFrom(
          Int32Array.from(lines, (line) => line.narrow),
          // Without lines there is no width to tell.
          ...(lines.length > 0 ? [BigInt64Array.from(lines, (line) => line.wide)] : []),
        ),
        len: fc.constant(Uint32Array.from(lines, (line) => line.bytes.length)),
        flags: fc.constantFrom(
          undefined,
          Uint8Array.from(lines, (line) => line.flags),
        ),
        data: fc.constant(new Uint8Array(Buffer.concat(lines.map((line) => line.bytes)))),
        lost: fc.array(
          fc.record({
            source: fc.constantFrom(0, 1),
            from: fc.integer({ min: 1, max: 2 ** 52 }),
            count: fc.integer({ min: 1, max: 2 ** 52 }),
            reason: fc.stringMatching(/^[a-z][a-z0-9-]{0,62}$/),
          }),
          { maxLength: 3 },
        ),
        end: fc.boolean().map((): SourcePair | undefined => undefined),
      })
      .chain((chunk) =>
        fc
          .option(fc.constant<SourcePair>([chunk.first[0] + lines.length - stderr, chunk.first[1] + stderr]), {
            nil: undefined,
          })
          .map((end) => ({ ...chunk, end })),
      )
  })

/** What a reader relies on, and what of it does not hold. */
function inconsistencies(chunk: Chunk): string[] {
  const { lines, run, src, dt, len, flags, data, t0, first, end } = chunk
  const next = { stdout: first[0], stderr: first[1] }
  for (const { source, number } of meaningOf(chunk).lines) next[source] = number + 1
  const { service, module, host, container, attrs } = chunk
  const texts = [service, module, host, ...Object.values(container), ...Object.entries(attrs).flat()]
  const checks: Record<string, boolean> = {
    run: run.length === 16,
    columns: src.length === Math.ceil(lines / 8) && dt.length === lines && len.length === lines,
    flags: flags === undefined || flags.length === lines,
    data: len.reduce((sum, n) => sum + n, 0) === data.length && !data.includes(10),
    times: [...dt]
      .map((d) => t0 + BigInt(d))
      .every((t) => t >= 0n && t < 2n ** 64n && !Number.isNaN(new Date(Number(t / 1_000_000n)).getTime())),
    numbers: first.every((n) => n >= 1) && Object.values(next).every(Number.isSafeInteger),
    end: end === undefined || (end[0] >= next.stdout - 1 && end[1] >= next.stderr - 1),
    texts: texts.every((text) => typeof text === 'string' && text.isWellFormed()),
  }
  return Object.keys(checks).filter((key) => !checks[key])
}

/** @returns the chunk that the bytes hold, or undefined where a ChunkError says why there is none */
function decodeAny(bytes: Uint8Array): Chunk | undefined {
  let chunk: Chunk
  try {
    chunk = decodeChunk(bytes)
  } catch (error) {
    if (error instanceof ChunkError) return undefined
    throw error
  }
  const wrong = inconsistencies(chunk)
  if (wrong.length > 0) throw new Error(`${wrong.join(', ')} of a decoded chunk do not hold`)
  return chunk
}

/** The fields of a valid chunk with some of them changed, encoded without any check. */
function record(changes: Record<string, unknown>): Uint8Array {
  const { length: _, ...fields } = {
    length: 0,
    v: 1,
    run: new Uint8Array(16),
    svc: 's',
    mod: 'm',
    host: 'h',
    ctr: { id: 'i', name: 'n', image: 'g' },
    attrs: {},
    first: [1, 1],
    src: new Uint8Array([2]),
    t0: 1_795_422_281_123_456_789n,
    dt: new Uint8Array(8),
    len: new Uint8Array([2, 0, 0, 0, 1, 0, 0, 0]),
    data: Buffer.from('abc'),
    ...changes,
  }
  return new Encoder({ useBigInt64: true, ignoreUndefined: true, maxDepth: 2000 }).encode(fields)
}

describe('golden files', () => {
  it.each(golden)('$name: this meaning gives these very bytes', ({ meaning, bytes }) => {
    expect(Buffer.from(encoded(chunkOf(meaning))).equals(bytes)).toBe(true)
  })

  it.each(golden)('$name: these bytes have this very meaning', ({ meaning, bytes }) => {
    expect(meaningOf(decodeChunk(bytes))).toEqual(meaning)
  })

  it('hold what is easily got wrong', () => {
    const text = JSON.stringify(golden.map(({ meaning }) => meaning))
    for (const word of ['continued', 'unterminated', 'base64', 'lost', 'end', 'stderr']) expect(text).toContain(word)
    const chunks = golden.map(({ bytes }) => decodeChunk(bytes))
    expect(chunks.some(({ dt }) => dt instanceof BigInt64Array)).toBe(true)
    expect(chunks.some(({ dt, lines }) => dt instanceof Int32Array && lines > 0)).toBe(true)
    expect(chunks.some(({ first }) => first[0] > 2 ** 32)).toBe(true)
  })
})

describe('a chunk', () => {
  it('comes back as it was', () => {
    fc.assert(
      fc.property(chunks, (chunk) => {
        expect(inconsistencies(chunk)).toEqual([])
        expect(decodeChunk(encoded(chunk))).toEqual(chunk)
      }),
    )
  })

  it('comes back as it was from an encoder and a buffer that other chunks went through', () => {
    const encoder = new ChunkEncoder()
    const pool = Buffer.alloc(64 * 1024)
    fc.assert(
      fc.property(chunks, fc.nat({ max: 9 }), (chunk, at) => {
        const bytes = encoder.encode(chunk)
        pool.set(bytes, at)
        expect(decodeChunk(pool.subarray(at, at + bytes.length))).toEqual(chunk)
      }),
    )
  })

  it('as large as the driver makes it is read in a moment', () => {
    const lines = 8192
    const chunk = chunkOf({ ...golden[0]!.meaning, first: [1, 1], lines: [] })
    const bytes = encoded({
      ...chunk,
      lines,
      src: new Uint8Array(lines / 8),
      dt: new Int32Array(lines),
      len: new Uint32Array(lines).fill(64),
      data: new Uint8Array(lines * 64).fill(120),
      end: undefined,
    })
    expect(decodeChunk(bytes).lines).toBe(lines)
  })
})

describe('a record that is no chunk', () => {
  it('of any bytes is a ChunkError', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void decodeAny(bytes)))
  })

  it('of any MessagePack value is a ChunkError', () => {
    const value = fc.anything({ maxDepth: 3, withBigInt: false, withTypedArray: true })
    const encoder = new Encoder({ useBigInt64: true })
    fc.assert(
      fc.property(value, value, (a, b) => {
        let bytes: Uint8Array
        try {
          bytes = encoder.encode({ v: 1, run: a, first: b })
        } catch {
          return // symbols and functions have no encoding
        }
        expect(decodeAny(bytes)).toBeUndefined()
      }),
    )
  })

  it.each(golden)('but $name cut short anywhere is a ChunkError', ({ bytes }) => {
    for (let end = 0; end < bytes.length; end++) expect(decodeAny(bytes.subarray(0, end))).toBeUndefined()
  })

  it.each(golden)('but $name with more behind it is a ChunkError', ({ bytes }) => {
    expect(decodeAny(Buffer.concat([bytes, Buffer.from([0])]))).toBeUndefined()
  })

  it.each(golden)('but $name with any byte changed is a ChunkError or consistent', ({ bytes }) => {
    const copy = Buffer.from(bytes)
    for (let i = 0; i < bytes.length; i++) {
      for (const value of [0, 1, 0x7f, 0x80, 0x90, 0xc4, 0xcf, 0xdc, 0xdf, 0xff, bytes[i]! ^ 1, bytes[i]! ^ 0x80]) {
        copy[i] = value
        decodeAny(copy)
      }
      copy[i] = bytes[i]!
    }
  })

  it('but a chunk with any bytes changed is a ChunkError or consistent', () => {
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(chunks, changes, (chunk, changes) => {
        const bytes = encoded(chunk)
        for (const [at, value] of changes) bytes[at % bytes.length] = value
        decodeAny(bytes)
      }),
    )
  })

  it.each<[string, Record<string, unknown>, ChunkError['reason'], RegExp]>([
    ['of a later version', { v: 2 }, 'unknown-version', /version 2 .* reads 1/],
    ['with a map for a version', { v: { toString: 1, valueOf: 1 } }, 'unknown-version', /version of type object/],
    ['without a run', { run: undefined }, 'invalid-chunk', /run is not binary/],
    ['with a short run', { run: new Uint8Array(15) }, 'invalid-chunk', /run has 15 bytes/],
    ['with a service that is a number', { svc: 7 }, 'invalid-chunk', /svc is not a string/],
    ['with a module of 5,000 characters', { mod: 'm'.repeat(5000) }, 'invalid-chunk', /mod is longer than 4096/],
    ['with a list for a container', { ctr: [] }, 'invalid-chunk', /ctr is not a map/],
    ['with a nameless container', { ctr: { id: 'i', image: 'g' } }, 'invalid-chunk', /ctr.name is not a string/],
    ['with an attribute that is a map', { attrs: { a: {} } }, 'invalid-chunk', /value of attrs/],
    ['numbered from 0', { first: [0, 1] }, 'invalid-chunk', /first is not an integer from 1/],
    ['numbered in fractions', { first: [1.5, 1] }, 'invalid-chunk', /first is not an integer/],
    ['numbered beyond 2^53', { first: [2n ** 60n, 1] }, 'invalid-chunk', /first is not an integer/],
    ['whose numbers run beyond 2^53', { first: [2n ** 53n - 1n, 1] }, 'invalid-chunk', /leave the safe integers/],
    ['with three firsts', { first: [1, 1, 1] }, 'invalid-chunk', /first is not a pair/],
    ['with half a length', { len: new Uint8Array(7) }, 'invalid-chunk', /whole number of uint32/],
    ['with lengths beyond its data', { data: Buffer.from('ab') }, 'invalid-chunk', /add up to 3, data has 2/],
    ['with more data than lengths', { data: Buffer.from('abcd') }, 'invalid-chunk', /add up to 3, data has 4/],
    ['with a newline in a line', { data: Buffer.from('a\nc') }, 'invalid-chunk', /newline/],
    ['with a time too few', { dt: new Uint8Array(4) }, 'invalid-chunk', /dt has neither/],
    ['before 1970', { t0: -1n }, 'invalid-chunk', /before 1970/],
    ['reaching before 1970', { t0: 0n, dt: new Uint8Array(8).fill(255) }, 'invalid-chunk', /a time lies outside/],
    [
      'reaching behind 2554',
      { t0: 2n ** 64n - 1n, dt: new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]) },
      'invalid-chunk',
      /a time lies outside/,
    ],
    [
      'with a wide time behind 2554',
      { t0: 2n ** 64n - 1n, dt: new Uint8Array(16).fill(1) },
      'invalid-chunk',
      /a time lies/,
    ],
    ['with a bit of source too many', { src: new Uint8Array(2) }, 'invalid-chunk', /src has 2 bytes for 2 lines/],
    ['with a flag too few', { flags: new Uint8Array(1) }, 'invalid-chunk', /flags has 1 bytes/],
    ['with an unknown flag', { flags: new Uint8Array([0, 4]) }, 'invalid-chunk', /a flag is not known/],
    ['with a lost range of nothing', { lost: [{ src: 0, from: 1, count: 0, reason: '' }] }, 'invalid-chunk', /count/],
    [
      'with a lost range of a third source',
      { lost: [{ src: 2, from: 1, count: 1, reason: '' }] },
      'invalid-chunk',
      /neither 0 nor 1/,
    ],
    [
      'with a lost range to infinity',
      { lost: [{ src: 0, from: 2n ** 53n - 1n, count: 2n ** 53n - 1n, reason: '' }] },
      'invalid-chunk',
      /beyond/,
    ],
    ['that ends below its own lines', { end: [0, 1] }, 'invalid-chunk', /end is below/],
    ['with an end that is no pair', { end: 3 }, 'invalid-chunk', /end is not a pair/],
    [
      'with a map that goes for a prototype',
      { attrs: JSON.parse('{"__proto__":{"polluted":"1"}}') },
      'not-msgpack',
      /__proto__/,
    ],
    ['with a time of MessagePack’s own', { t0: new Date() }, 'not-msgpack', /0xd[67]/],
    [
      'with 5,000 lost ranges',
      { lost: Array(5000).fill({ src: 0, from: 1, count: 1, reason: '' }) },
      'not-msgpack',
      /5000/,
    ],
    ['with 100,000 values', { more: Array(100_000).fill(null) }, 'not-msgpack', /more than 65536 values/],
    [
      'that is a thousand deep',
      {
        more: Array(999)
          .fill(0)
          .reduce((inner) => [inner], 0),
      },
      'not-msgpack',
      /deep/,
    ],
  ])('%s is refused, and says so', (_, changes, reason, message) => {
    expect(decodeChunk(record({})).lines).toBe(2)
    const thrown = expect(() => decodeChunk(record(changes)))
    thrown.toThrow(ChunkError)
    thrown.toThrow(expect.objectContaining({ reason, message: expect.stringMatching(message) }))
  })

  it.each([
    ['array', Array(30_000).fill([0xdc, 0x10, 0x00]).flat()],
    ['array of the largest length', [0xdd, 0xff, 0xff, 0xff, 0xff]],
    ['map of the largest length', [0xdf, 0xff, 0xff, 0xff, 0xff]],
    ['binary of the largest length', [0xc6, 0xff, 0xff, 0xff, 0xff]],
    ['string of the largest length', [0xdb, 0xff, 0xff, 0xff, 0xff]],
    ['maps without number', [0xdd, 0, 2, 0, 0, ...Array(2 * 65_536).fill(0x80)]],
  ])('that claims an %s costs no memory by its claim', (_, bytes) => {
    const before = process.memoryUsage()
    expect(() => decodeChunk(Uint8Array.from(bytes))).toThrow(ChunkError)
    const after = process.memoryUsage()
    expect(after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers).toBeLessThan(16 * 1024 * 1024)
  })

  it('with a name cut in the middle of a character keeps its lines', () => {
    const chunk = decodeChunk(record({ svc: 'shop\ud83d', attrs: { '\ud83dkey': '\udca9' } }))
    expect(chunk.service).toBe('shop\ufffd')
    expect(chunk.attrs).toEqual({ '\ufffdkey': '\ufffd' })
    expect(chunk.lines).toBe(2)
  })
})

describe('a reader of many chunks', () => {
  /** A chunk, and another of the same run that says the same of whose lines it holds. */
  const twice = fc
    .tuple(chunks, chunks)
    .map(([before, { first, lines, src, t0, dt, len, flags, data, lost, end }]) => ({
      before,
      chunk: { ...before, ...{ first, lines, src, t0, dt, len, flags, data, lost, end } },
    }))

  /** What a reader says of bytes, or that they are no chunk. */
  function outcomeOf(read: () => Chunk): Chunk | 'no chunk' {
    try {
      return read()
    } catch (error) {
      if (error instanceof ChunkError) return 'no chunk'
      throw error
    }
  }

  it('says of each what it says alone, and works out once what goes with its run', () => {
    fc.assert(
      fc.property(twice, ({ before, chunk }) => {
        let known = 0
        const reader = new ChunkReader(() => ++known)
        expect(reader.read(Buffer.from(encoded(before)))).toEqual({ ...before, of: 1 })
        expect(reader.read(Buffer.from(encoded(chunk)))).toEqual({ ...chunk, of: 1 })
      }),
    )
  })

  it('takes a chunk with any bytes changed, or cut short, as it is taken alone', () => {
    fc.assert(
      fc.property(
        twice,
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
        fc.nat(),
        ({ before, chunk }, changes, cut) => {
          const reader = new ChunkReader(() => undefined)
          reader.read(Buffer.from(encoded(before)))
          const bytes = Buffer.from(encoded(chunk))
          for (const [at, byte] of changes) bytes[at % bytes.length] = byte
          const changed = cut % 4 === 0 ? bytes.subarray(0, cut % bytes.length) : bytes
          const alone = outcomeOf(() => decodeChunk(changed))
          expect(outcomeOf(() => reader.read(changed))).toEqual(alone)
        },
      ),
      { numRuns: 300 },
    )
  })

  it('does not take a run for one whose id ends alike, nor for itself under another name', () => {
    const reader = new ChunkReader(({ run, service }) => `${service} of ${Buffer.from(run).toString('hex', 0, 1)}`)
    const of = (first: number, svc: string) =>
      reader.read(Buffer.from(record({ run: Uint8Array.from([first, ...Array(15).fill(7)]), svc })))
    const told = [of(1, 'a'), of(2, 'a'), of(1, 'b'), of(1, 'a')]
    expect(told.map(({ of, service }) => `${of}, ${service}`)).toEqual([
      'a of 01, a',
      'a of 02, a',
      'b of 01, b',
      'a of 01, a',
    ])
  })

  it.each(golden)('$name: says what it means, however often it comes', ({ meaning, bytes }) => {
    const reader = new ChunkReader(() => undefined)
    for (let i = 0; i < 3; i++) expect(meaningOf(reader.read(bytes))).toEqual(meaning)
  })
})
