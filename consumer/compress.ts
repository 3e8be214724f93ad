/**
 * Compressing a file's text into frames of FRAME_BYTES each, which can be inflated one by one; to others it is one .zst or .gz file.
 * It runs in a thread of its own and holds one frame in memory.
 */
import { closeSync, constants, fstatSync, fsyncSync, futimesSync, openSync, readSync, writeSync } from 'node:fs'
import { gunzipSync, gzipSync, constants as zlib, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import type { Packed } from './checkpoint.ts'

export type CompressRequest = {
  /** The plain file, and how much of it is text of ours: all of it. */
  source: string
  length: number
  /** Where the compressed one is put. */
  target: string
  as: Packed['as']
  frame: number
}

export const FRAME_BYTES = 1024 * 1024

/** On logs it takes a tenth of the bytes off that the default leaves, at some 10 ms of CPU a MiB. */
const ZSTD_LEVEL = 6

const codecs = {
  zst: {
    deflate: (text: Buffer) =>
      zstdCompressSync(text, {
        pledgedSrcSize: text.length,
        params: { [zlib.ZSTD_c_compressionLevel]: ZSTD_LEVEL, [zlib.ZSTD_c_checksumFlag]: 1 },
      }),
    inflate: (frame: Buffer) => zstdDecompressSync(frame),
  },
  gz: { deflate: (text: Buffer) => gzipSync(text), inflate: (frame: Buffer) => gunzipSync(frame) },
}

/**
 * Compresses a file, durable when this returns. Each frame is inflated again and compared before the next one is read.
 * @returns the length of each frame
 * @throws Error saying why not; then `target` holds nothing of use
 */
export function compress({ source, length, target, as, frame }: CompressRequest): number[] {
  const { deflate, inflate } = codecs[as]
  const from = openSync(source, constants.O_RDONLY | constants.O_NOFOLLOW)
  const to = openSync(target, 'w', 0o644)
  try {
    const { size, atime, mtime } = fstatSync(from)
    if (size !== length) throw new Error(`${source} has ${size} bytes, of which ${length} are ours`)
    const frames: number[] = []
    const buffer = Buffer.allocUnsafeSlow(Math.min(frame, length))
    for (let at = 0; at < length; at += frame) {
      const text = buffer.subarray(0, Math.min(frame, length - at))
      for (let filled = 0; filled < text.length; ) {
        const read = readSync(from, text, filled, text.length - filled, at + filled)
        if (read === 0) throw new Error(`${source} ends at ${at + filled} instead of ${length}`)
        filled += read
      }
      const packed = deflate(text)
      if (!inflate(packed).equals(text)) throw new Error(`bytes of ${source} from ${at} on came out changed`)
      for (let written = 0; written < packed.length; ) written += writeSync(to, packed, written)
      frames.push(packed.length)
    }
    futimesSync(to, atime, mtime)
    fsyncSync(to)
    return frames
  } finally {
    closeSync(from)
    closeSync(to)
  }
}
