/**
 * A gzip stream that many readers share, who come and go: blocks that each stand for themselves, behind a head of the reader's own.
 *
 * Invariants
 * - A block refers to nothing in front of it and ends at a byte, so any blocks may follow each other, and a reader may begin with any.
 * - The stream has no end of its own: it breaks off, as a tail does.
 */
import { constants, deflateRawSync } from 'node:zlib'

/** No name, no time, no system: RFC 1952. */
export const GZIP_HEAD = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])

/** @returns what decodes to these bytes, wherever it stands in a stream */
export const gzipBlock = (bytes: Uint8Array): Buffer =>
  // A tail repeats itself so much that a higher level would make little of it smaller, at several times the cost.
  deflateRawSync(bytes, { level: 1, finishFlush: constants.Z_FULL_FLUSH })

/** Whether a client that sent this Accept-Encoding takes gzip: one that names no encoding is sent none. */
export function takesGzip(accepted: string | string[] | undefined): boolean {
  const codings = [accepted ?? []].flat().join().toLowerCase().split(',')
  const weights = new Map(
    codings.map((coding): [string, number] => {
      const [, name = '', weight = '1'] = /^\s*([^;\s]*)\s*(?:;\s*q=(.*))?$/.exec(coding) ?? []
      return [name, Number(weight)]
    }),
  )
  return (weights.get('gzip') ?? weights.get('*') ?? 0) > 0
}
