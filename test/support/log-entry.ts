/** LogEntry messages as dockerd writes them on a FIFO (moby api/types/plugins/logdriver/entry.proto), for feeding the driver. */

export type LogEntry = {
  source: 'stdout' | 'stderr'
  /** ns since 1970. */
  time: bigint
  line: Uint8Array
  /** Of a part of a split line. */
  part?: { id: string; ordinal: number; last: boolean }
}

function varint(value: bigint): number[] {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, value)
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  bytes.push(Number(rest))
  return bytes
}

const delimited = (tag: number, bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([tag, ...varint(BigInt(bytes.length))]), bytes])

/** A frame: length and message. Defaults are left out, as protobuf does. */
export function frame({ source, time, line, part }: LogEntry): Buffer {
  const fields = [delimited(0x0a, Buffer.from(source)), Buffer.from([0x10, ...varint(time)])]
  if (line.length > 0) fields.push(delimited(0x1a, line))
  if (part) {
    const metadata = [delimited(0x12, Buffer.from(part.id)), Buffer.from([0x18, ...varint(BigInt(part.ordinal))])]
    if (part.last) metadata.unshift(Buffer.from([0x08, 1]))
    fields.push(Buffer.from([0x20, 1]), delimited(0x2a, Buffer.concat(metadata)))
  }
  const body = Buffer.concat(fields)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length)
  return Buffer.concat([length, body])
}

/** dockerd cuts lines after this many bytes. */
const PART_BYTES = 16 * 1024

/** The frames of a line as dockerd's copier cuts it; `terminated` says whether a newline followed. */
export function lineFrames(
  source: LogEntry['source'],
  time: bigint,
  line: Uint8Array,
  id: string,
  terminated = true,
): Buffer[] {
  if (line.length < PART_BYTES && terminated) return [frame({ source, time, line })]
  const frames: Buffer[] = []
  let at = 0
  let ordinal = 1
  for (; at + PART_BYTES <= line.length; at += PART_BYTES) {
    frames.push(
      frame({ source, time, line: line.subarray(at, at + PART_BYTES), part: { id, ordinal: ordinal++, last: false } }),
    )
  }
  frames.push(frame({ source, time, line: line.subarray(at), part: { id, ordinal, last: terminated } }))
  return frames
}
