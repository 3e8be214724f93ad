/** NDJSON, read, and with batches in it. */
import type { Readable } from 'node:stream'
import type { StretchHead } from './api-schema.ts'
import type { Batch } from './batch.ts'
import { EventSplitter } from './event-decoder.ts'

/** Characters of a line at most: one of ours is 480 KiB, of which each byte may be an escape of six. */
const MAX_LINE = 4 * 1024 * 1024

/**
 * The values of a stream, those of a piece that has arrived together. A last line without its newline is left out: whoever sent it was
 * broken off. Not by readline, to which U+2028 ends a line, and JSON does not escape it.
 * @throws Error for a line that is no JSON, or longer than any of ours
 */
export async function* readNdjson(stream: Readable): AsyncGenerator<unknown[]> {
  stream.setEncoding('utf8')
  let rest = ''
  for await (const piece of stream as AsyncIterable<string>) {
    const lines = (rest + piece).split('\n')
    rest = lines.pop()!
    if (rest.length > MAX_LINE) throw new Error(`a line of more than ${MAX_LINE} characters`)
    if (lines.length > 0) yield lines.filter(Boolean).map((line) => JSON.parse(line))
  }
}

/**
 * The same of a stream in which there may be batches, which are whole, and not taken apart.
 * @throws Error for what is no such stream
 */
export async function* readBatches(stream: Readable): AsyncGenerator<(unknown | Batch)[]> {
  const splitter = new EventSplitter<unknown>()
  let stretches: { head: StretchHead; bytes: Uint8Array }[] = []
  for await (const piece of stream as AsyncIterable<Buffer>) {
    const events: (unknown | Batch)[] = []
    for (const part of splitter.split(piece)) {
      if ('event' in part) events.push(part.event)
      else if ('stretch' in part) stretches.push({ head: part.stretch, bytes: part.bytes })
      else {
        events.push({ type: 'batch', until: part.until, stretches } satisfies Batch)
        stretches = []
      }
    }
    if (events.length > 0) yield events
  }
}
