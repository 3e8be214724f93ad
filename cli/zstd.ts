/**
 * zstd, unpacked frame by frame, as it comes. Not by Node's stream, which leaves out what stands behind the end of a frame in the same
 * piece: a tail is one frame behind the other.
 */
import zlib from 'node:zlib'

/** Whether this Node knows zstd. */
export const KNOWS_ZSTD = 'zstdDecompressSync' in zlib

/** A frame becomes so many bytes at most. */
const FRAME_BYTES = 256 * 1024 * 1024

/** @throws Error for what is no zstd, or breaks off within a frame */
export async function* unpackZstd(packed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const piece of packed) {
    rest = rest.length === 0 ? piece : Buffer.concat([rest, piece])
    for (let end = frameEnd(rest); end !== undefined; end = frameEnd(rest)) {
      yield zlib.zstdDecompressSync(rest.subarray(0, end), { maxOutputLength: FRAME_BYTES })
      rest = rest.subarray(end)
    }
  }
  if (rest.length > 0) throw new Error('it ends within a zstd frame')
}

const MAGIC = 0xfd2fb528
/** Of the block's types, the one that says a byte and how often it comes. */
const RUN_LENGTH = 1

/** Where the frame ends that stands in front: RFC 8878, 3.1.1. @returns undefined while it is not whole */
function frameEnd(bytes: Buffer): number | undefined {
  if (bytes.length < 5) return undefined
  if (bytes.readUInt32LE(0) !== MAGIC) throw new Error('it is no zstd')
  const descriptor = bytes[4]!
  const single = (descriptor & 0x20) !== 0
  const dictionary = [0, 1, 2, 4][descriptor & 3]!
  const sizeFlag = descriptor >> 6
  const size = sizeFlag === 0 ? Number(single) : 1 << sizeFlag
  let at = 5 + Number(!single) + dictionary + size
  for (let last = false; !last; ) {
    if (at + 3 > bytes.length) return undefined
    const block = bytes.readUIntLE(at, 3)
    last = (block & 1) !== 0
    at += 3 + (((block >> 1) & 3) === RUN_LENGTH ? 1 : block >> 3)
  }
  if ((descriptor & 4) !== 0) at += 4
  return at <= bytes.length ? at : undefined
}
