/** What a container prints, known byte for byte before it does. */

export const SOURCES = ['stdout', 'stderr'] as const
export type SourceName = (typeof SOURCES)[number]

/** The bytes of both sources, as the app writes them. */
export type Printed = Record<SourceName, Buffer>

/** The driver cuts lines after this many bytes. */
export const MAX_LINE_BYTES = 256 * 1024

const NEWLINE = 10

export const printed = (stdout: Uint8Array | string, stderr: Uint8Array | string = ''): Printed => ({
  stdout: Buffer.from(stdout),
  stderr: Buffer.from(stderr),
})

/** `count` lines of `bytes` bytes each, every one different and saying its number. */
export function numberedLines(count: number, bytes: number, name = 'line'): Buffer {
  const all = Buffer.alloc(count * (bytes + 1), '.')
  for (let i = 0; i < count; i++) {
    all.write(`${name} ${i + 1} `, i * (bytes + 1), bytes)
    all[(i + 1) * (bytes + 1) - 1] = NEWLINE
  }
  return all
}

/** What a file holds of these bytes when stamps are left out: lines, cut where they are too long, each with its newline. */
export function expectedLines(bytes: Buffer): { bytes: Buffer; count: number } {
  let count = 0
  let longest = 0
  for (let at = 0; at < bytes.length; count++) {
    const newline = bytes.indexOf(NEWLINE, at)
    const end = newline === -1 ? bytes.length : newline
    longest = Math.max(longest, end - at)
    at = end + 1
  }
  const terminated = bytes.length === 0 || bytes.at(-1) === NEWLINE
  if (longest <= MAX_LINE_BYTES) return { bytes: terminated ? bytes : Buffer.concat([bytes, Buffer.from('\n')]), count }
  const pieces: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const newline = bytes.indexOf(NEWLINE, at)
    const end = newline === -1 ? bytes.length : newline
    // A line is cut only where more of it follows.
    for (; end - at > MAX_LINE_BYTES; at += MAX_LINE_BYTES) pieces.push(bytes.subarray(at, at + MAX_LINE_BYTES))
    pieces.push(bytes.subarray(at, end))
    at = end + 1
  }
  return { bytes: Buffer.concat(pieces.flatMap((piece) => [piece, Buffer.from('\n')])), count: pieces.length }
}
