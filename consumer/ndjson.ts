/** NDJSON, read. */
import type { Readable } from 'node:stream'

/**
 * The values of a stream, those of a piece that has arrived together. A last line without its newline is left out: whoever sent it was
 * broken off. Not by readline, to which U+2028 ends a line, and JSON does not escape it.
 * @throws SyntaxError for a line that is no JSON
 */
export async function* readNdjson(stream: Readable): AsyncGenerator<unknown[]> {
  stream.setEncoding('utf8')
  let rest = ''
  for await (const piece of stream as AsyncIterable<string>) {
    const lines = (rest + piece).split('\n')
    rest = lines.pop()!
    if (lines.length > 0) yield lines.filter(Boolean).map((line) => JSON.parse(line))
  }
}
