/** Chunks said line by line, and back: what a chunk means, in words that JSON has. */
import { type Chunk, CONTINUED, STDERR, STDOUT, UNTERMINATED } from '../../wire/chunk.ts'

export type SourceName = 'stdout' | 'stderr'

/** A line. Its bytes stand in `text` where they are UTF-8, else in `base64`; `time` is ns since 1970, in decimal. */
export type Line = {
  source: SourceName
  number: number
  time: string
  flags?: ('continued' | 'unterminated')[]
} & ({ text: string } | { base64: string })

export type Meaning = Pick<Chunk, 'service' | 'module' | 'host' | 'container' | 'attrs' | 'first'> & {
  /** In hex. */
  run: string
  lines: Line[]
  lost?: { source: SourceName; from: number; count: number; reason: string }[]
  end?: [stdout: number, stderr: number]
}

const SOURCES = ['stdout', 'stderr'] as const

const isUtf8 = (bytes: Buffer): boolean => Buffer.from(bytes.toString()).equals(bytes)

const bytesOf = (line: Line): Buffer => ('text' in line ? Buffer.from(line.text) : Buffer.from(line.base64, 'base64'))

/** The chunk that means this. `dt` is as narrow as it can be. */
export function chunkOf(meaning: Meaning): Chunk {
  const { run, lines, lost, end, ...names } = meaning
  const t0 = BigInt(lines[0]?.time ?? 0)
  const dt = lines.map(({ time }) => BigInt(time) - t0)
  const narrow = dt.every((d) => BigInt.asIntN(32, d) === d)
  const src = new Uint8Array(Math.ceil(lines.length / 8))
  lines.forEach(({ source }, i) => {
    if (source === 'stderr') src[i >> 3]! |= 1 << (i & 7)
  })
  const flags = lines.map(({ flags }) =>
    (flags ?? []).reduce((all, flag) => all | (flag === 'continued' ? CONTINUED : UNTERMINATED), 0),
  )
  return {
    ...names,
    run: new Uint8Array(Buffer.from(run, 'hex')),
    lines: lines.length,
    src,
    t0,
    dt: narrow ? Int32Array.from(dt, Number) : BigInt64Array.from(dt),
    len: Uint32Array.from(lines, (line) => bytesOf(line).length),
    flags: flags.some((f) => f !== 0) ? Uint8Array.from(flags) : undefined,
    data: new Uint8Array(Buffer.concat(lines.map(bytesOf))),
    lost: (lost ?? []).map(({ source, ...range }) => ({ source: source === 'stdout' ? STDOUT : STDERR, ...range })),
    end,
  }
}

/** What a chunk means. */
export function meaningOf(chunk: Chunk): Meaning {
  const { run, service, module, host, container, attrs, first, lost, end } = chunk
  const next = [...first]
  let at = 0
  const lines = Array.from({ length: chunk.lines }, (_, i): Line => {
    const bit = (chunk.src[i >> 3]! >> (i & 7)) & 1
    const bytes = Buffer.from(chunk.data.subarray(at, at + chunk.len[i]!))
    at += bytes.length
    const flags = chunk.flags?.[i] ?? 0
    return {
      source: SOURCES[bit]!,
      number: next[bit]!++,
      time: String(chunk.t0 + BigInt(chunk.dt[i]!)),
      ...(flags !== 0 && {
        flags: [
          ...(flags & CONTINUED ? ['continued' as const] : []),
          ...(flags & UNTERMINATED ? ['unterminated' as const] : []),
        ],
      }),
      ...(isUtf8(bytes) ? { text: bytes.toString() } : { base64: bytes.toString('base64') }),
    }
  })
  return {
    run: Buffer.from(run).toString('hex'),
    ...{ service, module, host, container, attrs, first, lines },
    ...(lost.length > 0 && { lost: lost.map(({ source, ...range }) => ({ source: SOURCES[source], ...range })) }),
    ...(end && { end }),
  }
}
