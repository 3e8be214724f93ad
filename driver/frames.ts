/**
 * Frames: dockerd's LogEntry messages, decoded where they lie in a buffer.
 *
 * A frame is a uint32 big-endian length and a protobuf body (moby api/types/plugins/logdriver/entry.proto):
 *   1 source string · 2 time_nano int64 · 3 line bytes · 4 partial bool · 5 partial_log_metadata · 6 attrs
 *   partial_log_metadata: 1 last bool · 2 id string · 3 ordinal int32
 * dockerd writes fields in order and leaves out defaults, so a body begins with its source: the bytes of the marker.
 *
 * Invariants
 * - Nothing is allocated by a length that was read, and nothing at all for a frame: `Frame` is filled again and again.
 * - A frame is taken only when its whole body parses. What does not is skipped up to the next marker, which may stand in
 *   a line's own bytes: so a marker counts only if a whole frame parses behind it.
 */
import { type Source, STDERR, STDOUT } from '../wire/chunk.ts'

/** dockerd cuts lines at 16 KiB; what is longer than this is no frame. */
export const MAX_FRAME_BYTES = 32 * 1024
export const HEADER_BYTES = 4

/** Results of `readFrame` that are no length. INCOMPLETE: more bytes are needed. INVALID: no frame begins here. */
export const INCOMPLETE = 0
export const INVALID = -1

/** A decoded frame. `start`/`end` pairs are offsets in the buffer that was read. */
export class Frame {
  source: Source = STDOUT
  /** time_nano = high × 2^28 + low: a double can't hold it, and a bigint a line is garbage. */
  timeHigh = 0
  timeLow = 0
  lineStart = 0
  lineEnd = 0
  /** A part of a split line; `last` says whether it is the last one, `id` is the same for all of them. */
  partial = false
  last = false
  idStart = 0
  idEnd = 0
}

/** 0a 06 's' 't' 'd': field 1, six bytes, then `out` or `err`. */
const MARKER = Uint8Array.of(0x0a, 0x06, 0x73, 0x74, 0x64)

/** The source that a body at `at` begins with, or undefined when it begins with none. Eight bytes must be there. */
export function sourceAt(bytes: Uint8Array, at: number): Source | undefined {
  for (let i = 0; i < MARKER.length; i++) if (bytes[at + i] !== MARKER[i]) return undefined
  const a = bytes[at + 5]
  const b = bytes[at + 6]
  const c = bytes[at + 7]
  if (a === 0x6f && b === 0x75 && c === 0x74) return STDOUT
  return a === 0x65 && b === 0x72 && c === 0x72 ? STDERR : undefined
}

export const SOURCE_BYTES = 8

/** A cursor for varints: the value in two halves, and where the next byte is, −1 when the varint is broken. */
let cursor = 0
let low28 = 0
let high = 0

function varint(bytes: Uint8Array, end: number): void {
  // What every frame of our days brings: a time of nine bytes. Unrolled, it costs a fifth of the loop.
  const p = cursor
  if (p + 9 <= end && bytes[p + 8]! < 0x80) {
    const a = bytes[p]! | (bytes[p + 1]! << 8) | (bytes[p + 2]! << 16) | (bytes[p + 3]! << 24)
    const b = bytes[p + 4]! | (bytes[p + 5]! << 8) | (bytes[p + 6]! << 16) | (bytes[p + 7]! << 24)
    if ((a & b & CONTINUES) === (CONTINUES | 0)) {
      low28 = sevens(a)
      high = sevens(b) + bytes[p + 8]! * 2 ** 28
      cursor = p + 9
      return
    }
  }
  low28 = 0
  high = 0
  for (let shift = 0; shift < 70; shift += 7) {
    if (cursor >= end) break
    const byte = bytes[cursor++]!
    if (shift < 28) low28 += (byte & 0x7f) << shift
    else high += (byte & 0x7f) * 2 ** (shift - 28)
    if (byte < 0x80) return
  }
  cursor = -1
}

/** The high bit of four varint bytes: each is followed by another. */
const CONTINUES = 0x8080_8080

/** The 28 bits that four varint bytes carry. */
const sevens = (word: number): number =>
  (word & 0x7f) | ((word >>> 1) & 0x3f80) | ((word >>> 2) & 0x1f_c000) | ((word >>> 3) & 0xfe0_0000)

/** A length as a varint: small, or broken. */
function length(bytes: Uint8Array, end: number): number {
  const first = bytes[cursor]!
  if (first < 0x80 && first < end - cursor) {
    cursor++
    return first
  }
  varint(bytes, end)
  if (cursor === -1 || high !== 0 || low28 > end - cursor) {
    cursor = -1
    return 0
  }
  return low28
}

/**
 * The time that a varint said, as protobuf has it: 64 bits, signed. One before 1970 counts as 1970, so that all times of a chunk
 * are within what 64 bits can say of each other; dockerd writes none.
 */
function takeTime(frame: Frame): void {
  const past = high % 2 ** 36 >= 2 ** 35
  frame.timeHigh = past ? 0 : high % 2 ** 36
  frame.timeLow = past ? 0 : low28
}

/** Steps over a field whose tag takes more than one byte, the first of which was read: its number is 16 or more, so it is not known. */
function skipFar(bytes: Uint8Array, end: number): void {
  cursor--
  varint(bytes, end)
  if (cursor !== -1) skip(bytes, end, low28 & 7)
}

/** Steps over a field that is not known. */
function skip(bytes: Uint8Array, end: number, wireType: number): void {
  if (wireType === 0) varint(bytes, end)
  else if (wireType === 1) cursor += 8
  else if (wireType === 5) cursor += 4
  else if (wireType === 2) {
    const size = length(bytes, end)
    if (cursor !== -1) cursor += size
  } else cursor = -1
  if (cursor > end) cursor = -1
}

/** Reads partial_log_metadata up to `end`. */
function metadata(bytes: Uint8Array, end: number, frame: Frame): void {
  while (cursor !== -1 && cursor < end) {
    const tag = bytes[cursor++]!
    if (tag === 0x08) {
      varint(bytes, end)
      frame.last = low28 !== 0
    } else if (tag === 0x12) {
      const size = length(bytes, end)
      if (cursor === -1) return
      frame.idStart = cursor
      cursor += size
      frame.idEnd = cursor
    } else if (tag >= 0x80) skipFar(bytes, end)
    else skip(bytes, end, tag & 7)
  }
}

/**
 * Reads the frame that begins at `at`, of bytes that reach to `end`.
 * @returns the offset behind it, with `frame` filled; INCOMPLETE; or INVALID
 */
export function readFrame(bytes: Uint8Array, at: number, end: number, frame: Frame): number {
  if (end - at < HEADER_BYTES) return INCOMPLETE
  const size = ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  if (size < SOURCE_BYTES || size > MAX_FRAME_BYTES) return INVALID
  const body = at + HEADER_BYTES
  if (end - body < SOURCE_BYTES) return INCOMPLETE
  const source = sourceAt(bytes, body)
  if (source === undefined) return INVALID
  const stop = body + size
  if (stop > end) return INCOMPLETE

  frame.source = source
  frame.timeHigh = 0
  frame.timeLow = 0
  frame.lineStart = frame.lineEnd = body
  frame.partial = false
  frame.last = false
  frame.idStart = frame.idEnd = body
  cursor = body + SOURCE_BYTES
  while (cursor < stop) {
    const tag = bytes[cursor++]!
    if (tag === 0x10) {
      varint(bytes, stop)
      takeTime(frame)
    } else if (tag === 0x1a) {
      const size = length(bytes, stop)
      if (cursor === -1) return INVALID
      frame.lineStart = cursor
      cursor += size
      frame.lineEnd = cursor
    } else if (tag === 0x20) {
      varint(bytes, stop)
      frame.partial = low28 !== 0
    } else if (tag === 0x2a) {
      const size = length(bytes, stop)
      if (cursor === -1) return INVALID
      metadata(bytes, cursor + size, frame)
    } else if (tag >= 0x80) skipFar(bytes, stop)
    else skip(bytes, stop, tag & 7)
    if (cursor === -1) return INVALID
  }
  return stop
}

/**
 * Looks for the next frame behind bytes that are none.
 * @returns the offset to go on at: of a whole frame, or else as far as bytes can be given up with what is known by now
 */
export function resync(bytes: Uint8Array, at: number, end: number, frame: Frame): number {
  let candidate = -1
  for (let p = at + 1; p + HEADER_BYTES + SOURCE_BYTES <= end; p++) {
    const marker = bytes.indexOf(MARKER[0]!, p + HEADER_BYTES)
    if (marker === -1 || marker + SOURCE_BYTES > end) break
    p = marker - HEADER_BYTES
    const next = readFrame(bytes, p, end, frame)
    if (next > 0) return candidate === -1 ? p : Math.min(candidate, p)
    if (next === INCOMPLETE && candidate === -1) candidate = p
  }
  return candidate === -1 ? Math.max(at + 1, end - HEADER_BYTES - SOURCE_BYTES + 1) : candidate
}
