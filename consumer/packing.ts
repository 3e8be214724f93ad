/**
 * A packed stream that many readers share, who come and go: blocks that each stand for themselves, behind a head of the reader's own.
 *
 * Invariants
 * - A block refers to nothing in front of it, so any blocks may follow each other, and a reader may begin with any.
 * - The stream has no end of its own: it breaks off, as a tail does.
 */
import { deflateRawSync, constants as zlib, zstdCompressSync } from 'node:zlib'

/** How bytes are packed, as HTTP calls it. */
export type Packing = 'zstd' | 'gzip'

/** What stands in front of the first block. gzip's has no name, no time and no system: RFC 1952. */
export const HEADS: Record<Packing, Buffer | undefined> = {
  zstd: undefined,
  gzip: Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]),
}

/** A tail repeats itself so much that a higher level would make little of it smaller, at several times the cost. */
const ZSTD = { params: { [zlib.ZSTD_c_compressionLevel]: 1 } }
const DEFLATE = { level: 1, finishFlush: zlib.Z_FULL_FLUSH }

/** @returns what decodes to these bytes, wherever it stands in a stream: a frame of zstd's, or blocks of gzip's that end at a byte */
export const pack = (bytes: Uint8Array, packing: Packing): Buffer =>
  packing === 'zstd' ? zstdCompressSync(bytes, ZSTD) : deflateRawSync(bytes, DEFLATE)

/**
 * What a client that sent this Accept-Encoding is sent: zstd, which costs a fraction of gzip, where it takes that as well. Undefined:
 * it is sent nothing packed, as one that names no encoding.
 */
export function packingOf(accepted: string | string[] | undefined): Packing | undefined {
  const codings = [accepted ?? []].flat().join().toLowerCase().split(',')
  const weights = new Map(
    codings.map((coding): [string, number] => {
      const [, name = '', weight = '1'] = /^\s*([^;\s]*)\s*(?:;\s*q=(.*))?$/.exec(coding) ?? []
      return [name, Number(weight)]
    }),
  )
  const gzip = weights.get('gzip') ?? weights.get('*') ?? 0
  // Not every one that says it takes all knows it.
  const zstd = weights.get('zstd') ?? 0
  if (zstd > 0 && !(gzip > zstd)) return 'zstd'
  return gzip > 0 ? 'gzip' : undefined
}
