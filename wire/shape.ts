/**
 * The shape of a MessagePack value, walked before anything of it is built: the decoder allocates an array as soon as it has
 * read its length, so that 90 KB of nested array headers cost a gigabyte, and a byte each of empty maps fifty times its size.
 *
 * Invariant
 * - Bytes that pass hold exactly one value, whole, with every length and count borne out by bytes that are there, at most
 *   MAX_DEPTH deep and of at most MAX_VALUES values.
 */

/** A chunk is 3 deep: the map, `lost`, an entry of it. */
const MAX_DEPTH = 4
/** A chunk with 4,096 entries of `lost` has 37,000. */
const MAX_VALUES = 64 * 1024

/** Bytes that follow the first byte of a value of fixed size, by that byte: nil, booleans, numbers. */
const FIXED = new Map([
  ...[0xc0, 0xc2, 0xc3].map((type) => [type, 0] as const),
  ...[0xcc, 0xd0].map((type) => [type, 1] as const),
  ...[0xcd, 0xd1].map((type) => [type, 2] as const),
  ...[0xca, 0xce, 0xd2].map((type) => [type, 4] as const),
  ...[0xcb, 0xcf, 0xd3].map((type) => [type, 8] as const),
])

/** Width of the length that follows the first byte, by that byte: bin, str, array, map. */
const LENGTH = new Map([
  ...[0xc4, 0xd9].map((type) => [type, 1] as const),
  ...[0xc5, 0xda, 0xdc, 0xde].map((type) => [type, 2] as const),
  ...[0xc6, 0xdb, 0xdd, 0xdf].map((type) => [type, 4] as const),
])

/** @returns what is wrong with the bytes, or undefined when they pass */
export function misshapen(bytes: Uint8Array): string | undefined {
  /** Values that are still to come, by depth. */
  const open = [1]
  let at = 0
  for (let values = 0; open.length > 0; ) {
    if (open.at(-1) === 0) {
      open.pop()
      continue
    }
    open[open.length - 1]!--
    if (++values > MAX_VALUES) return `more than ${MAX_VALUES} values`
    if (at >= bytes.length) return 'it is cut short'
    const type = bytes[at++]!
    if (type < 0x80 || type >= 0xe0) continue
    let inside = 0
    const fixed = FIXED.get(type)
    const width = LENGTH.get(type)
    if (type < 0x90) inside = 2 * (type & 0x0f)
    else if (type < 0xa0) inside = type & 0x0f
    else if (type < 0xc0) at += type & 0x1f
    else if (fixed !== undefined) at += fixed
    else if (width !== undefined) {
      let length = 0
      for (let i = 0; i < width; i++) length = length * 256 + (bytes[at++] ?? 0)
      if (type >= 0xde) inside = 2 * length
      else if (type >= 0xdc) inside = length
      else at += length
    } else return `a value begins with 0x${type.toString(16)}, which has no place here`
    if (at + inside > bytes.length) return 'it is cut short'
    if (inside > 0 && open.push(inside) > MAX_DEPTH + 1) return `it is more than ${MAX_DEPTH} deep`
  }
  return at === bytes.length ? undefined : `${bytes.length - at} bytes follow it`
}
