import { randomBytes } from 'node:crypto'
import { constants as zlib, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { unpackZstd } from '../../cli/zstd.ts'

const contents = fc.oneof(
  fc.constantFrom('', 'a', 'a line\n'.repeat(10_000), 'a'.repeat(500_000)).map(Buffer.from),
  fc.nat({ max: 150_000 }).map((length) => randomBytes(length)),
  fc.uint8Array({ maxLength: 2_000 }).map(Buffer.from),
)
const frame = fc
  .record({ contents, level: fc.integer({ min: -5, max: 9 }), checksum: fc.boolean(), sized: fc.boolean() })
  .map(({ contents, level, checksum, sized }) => ({
    contents,
    packed: zstdCompressSync(contents, {
      ...(sized && { pledgedSrcSize: contents.length }),
      params: { [zlib.ZSTD_c_compressionLevel]: level, [zlib.ZSTD_c_checksumFlag]: Number(checksum) },
    }),
  }))

async function* cut(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

describe('zstd frames, one behind the other', () => {
  it('are all unpacked, wherever the network cuts them', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(frame, { maxLength: 5 }),
        fc.constantFrom(1, 7, 1_000, 65_536, 10_000_000),
        async (frames, size) => {
          const packed = Buffer.concat(frames.map(({ packed }) => packed))
          const cuts = size === 1 && packed.length > 5_000 ? 1_000 : size
          const plain = Buffer.concat(await Array.fromAsync(unpackZstd(cut(packed, cuts))))
          expect(plain.equals(Buffer.concat(frames.map(({ contents }) => contents)))).toBe(true)
        },
      ),
      { numRuns: 60 },
    )
  })

  it.each([
    ['one that breaks off', zstdCompressSync('a line').subarray(0, -1)],
    ['what is no zstd', Buffer.from('no zstd')],
    ['one that is damaged', Buffer.from(zstdCompressSync('a line').fill(0xff, 8))],
  ])('%s is an error', async (_, bytes) => {
    await expect(Array.fromAsync(unpackZstd(cut(bytes, 10)))).rejects.toThrow()
  })
})
