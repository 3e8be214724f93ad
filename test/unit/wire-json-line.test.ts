import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Chunk, ChunkError, CONTINUED, UNTERMINATED } from '../../wire/chunk.ts'
import { decodeJsonLine, JSON_INFLATION, JsonLineEncoder } from '../../wire/json-line.ts'

const NAMES = {
  run: Buffer.from('0123456789abcdef0123456789abcdef', 'hex'),
  service: 'shop',
  module: 'web',
  host: 'h1',
  container: { id: 'c1', name: 'web-1', image: 'web:1' },
  attrs: { tier: 'front' },
}

function chunkOf(lines: Buffer[], rest: Partial<Chunk> = {}): Chunk {
  return {
    ...NAMES,
    first: [7, 3],
    lines: lines.length,
    src: new Uint8Array(Math.ceil(lines.length / 8)),
    t0: 1_700_000_000_123_456_789n,
    dt: new Int32Array(lines.length),
    len: Uint32Array.from(lines, (line) => line.length),
    flags: undefined,
    data: Buffer.concat(lines),
    lost: [],
    end: undefined,
    ...rest,
  }
}

function encode(chunk: Chunk): Buffer[] {
  const values: Buffer[] = []
  new JsonLineEncoder(chunk).encode(chunk, (value) => values.push(Buffer.from(value)))
  return values
}
const encodeAsObjects = (chunk: Chunk) => encode(chunk).map((value) => JSON.parse(value.toString()))

describe('a JSON line', () => {
  it('says all that a reader needs who knows nothing of us', () => {
    const chunk = chunkOf([Buffer.from('out "1"'), Buffer.from('err')], {
      src: Uint8Array.of(2),
      dt: Int32Array.of(0, 1),
      lost: [{ source: 0, from: 5, count: 2, reason: 'disk' }],
      flags: Uint8Array.of(CONTINUED, UNTERMINATED),
      end: [7, 3],
    })
    const run = {
      v: 1,
      run: '01234567-89ab-cdef-0123-456789abcdef',
      service: 'shop',
      module: 'web',
      host: 'h1',
      container: { id: 'c1', name: 'web-1', image: 'web:1' },
      attrs: { tier: 'front' },
    }
    expect(encodeAsObjects(chunk)).toEqual([
      {
        ...run,
        source: 'stdout',
        number: 7,
        time: '2023-11-14T22:13:20.123456789Z',
        line: 'out "1"',
        continued: true,
        lost: [{ source: 'stdout', from: 5, count: 2, reason: 'disk' }],
      },
      {
        ...run,
        source: 'stderr',
        number: 3,
        time: '2023-11-14T22:13:20.123456790Z',
        line: 'err',
        unterminated: true,
        end: { stdout: 7, stderr: 3 },
      },
    ])
  })

  it('is only about the run where there is no line', () => {
    const [only] = encodeAsObjects(chunkOf([], { end: [9, 0] }))
    expect(only).toMatchObject({ run: expect.any(String), end: { stdout: 9, stderr: 0 } })
    expect(Object.keys(only)).not.toContain('line')
    expect(decodeJsonLine(Buffer.from(JSON.stringify(only)))).toMatchObject({ lines: 0, end: [9, 0] })
  })

  it.each([
    ['text', Buffer.from('größe: "5"\\t'), 'line'],
    ['bytes that are no UTF-8', Buffer.from([0xff, 0xfe, 0x41]), 'base64'],
    ['bytes that JSON would make six times as long', Buffer.alloc(100, 1), 'base64'],
    ['nothing', Buffer.alloc(0), 'line'],
  ])('of %s', (_, line, key) => {
    const [value] = encode(chunkOf([line]))
    expect(Object.keys(JSON.parse(value!.toString()))).toContain(key)
    expect(Buffer.from(decodeJsonLine(value!).data)).toEqual(line)
  })

  it('comes back as it went, whatever its bytes, and never longer than was announced', () => {
    const line = fc.oneof(
      fc.uint8Array(),
      fc.string({ unit: 'binary' }).map((text) => Buffer.from(text)),
    )
    fc.assert(
      fc.property(line, fc.boolean(), fc.nat(3), fc.bigInt(0n, (1n << 64n) - 1n), (bytes, stderr, flag, t0) => {
        const data = Buffer.from(bytes).map((byte) => (byte === 10 ? 32 : byte)) as Buffer
        const flags = flag === 0 ? undefined : Uint8Array.of(flag)
        const chunk = chunkOf([data], { src: Uint8Array.of(stderr ? 1 : 0), t0, flags })
        const [value] = encode(chunk)
        const { lineBytes } = new JsonLineEncoder(NAMES)
        expect(value!.length).toBeLessThanOrEqual(lineBytes + JSON_INFLATION * data.length)
        const { first, data: decoded, ...rest } = decodeJsonLine(value!)
        expect(Buffer.from(decoded)).toEqual(Buffer.from(data))
        expect(first).toEqual(stderr ? [1, 3] : [7, 1])
        expect(rest).toEqual({ ...rest, ...NAMES, src: chunk.src, t0, dt: chunk.dt, len: chunk.len, flags })
      }),
    )
  })
})

describe('what is no JSON line', () => {
  const [whole] = encodeAsObjects(chunkOf([Buffer.from('x')]))
  it.each<[string, unknown]>([
    ['a number', 1],
    ['null', null],
    ['a line without its number', { ...whole, number: undefined }],
    ['a number without a line', { ...whole, line: undefined }],
    ['a run that is no UUID', { ...whole, run: 'x' }],
    ['a source that there is not', { ...whole, source: 'stdin' }],
    ['a number of 0', { ...whole, number: 0 }],
    ['a newline in the line', { ...whole, line: 'a\nb' }],
    ['a newline in base64', { ...whole, line: undefined, base64: 'Cg==' }],
    ['a month that there is not', { ...whole, time: '2023-13-14T22:13:20.123456789Z' }],
    ['a day that there is not', { ...whole, time: '2023-02-30T22:13:20.123456789Z' }],
    ['a time before 1970', { ...whole, time: '1969-12-31T23:59:59.000000000Z' }],
    ['an end below the number', { ...whole, end: { stdout: 6, stderr: 0 } }],
    [
      'a loss beyond the safe integers',
      { ...whole, lost: [{ source: 'stdout', from: 2 ** 53 - 1, count: 1, reason: '' }] },
    ],
    ['another version', { ...whole, v: 2 }],
  ])('%s is refused in words', (_, value) => {
    expect(() => decodeJsonLine(Buffer.from(JSON.stringify(value)))).toThrow(ChunkError)
  })

  it('any bytes: they are a chunk or a ChunkError', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((json) => Buffer.from(json)),
        ),
        (bytes) => {
          expect(() => decodeJsonLine(bytes)).toThrow(ChunkError)
        },
      ),
    )
  })
})
