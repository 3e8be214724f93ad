/**
 * A stream of events, as a client reads it: NDJSON, in which lines of a live tail may come in batches, as the bytes that stand in
 * their files. Knows nothing of Node, so that the page reads streams by it as well.
 *
 *   {"type":"batch","until":"2026-11-23T08:24:41.123Z","stretches":[{"file":…,"position":…,"bytes":…,"service":…, …}, …]}
 *   2026-11-23T08:24:41.100Z web-1 a line of the first stretch
 *   2026-11-23T08:24:41.123Z web-1! the next, which was printed to stderr
 *
 * Invariants
 * - The lines are those that would have come one by one, in the same order: by time, then file, then position, as far as `until`.
 *   What is later is held here, until a batch says that all is there which comes before it.
 * - A cursor stands for nothing that is held here: the consumer sends it behind the batch that lets go of it.
 */
import type { BatchEvent, Line, StretchHead } from './api-schema.ts'
import { isStderr, NEWLINE, STAMP_BYTES, textBegin } from './text-line.ts'

/** Accept: who takes batches says so. */
export const BATCHES = 'application/vnd.tallyman.batches'

const TIME_CHARACTERS = STAMP_BYTES - 1
/** More than a stretch or an event of a consumer's ever has: who sends it is none. */
const MAX_BYTES = 64 * 1024 * 1024

/** A part of a stream: an event that is no batch, a stretch of one, or its end. */
export type Part<E> = { event: E } | { stretch: StretchHead; bytes: Uint8Array } | { until: string | undefined }

/** Takes a stream apart. */
export class EventSplitter<E> {
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  /** What is not taken apart yet, and how much of it there has to be before anything can be. */
  #pieces: Uint8Array[] = []
  #length = 0
  #needed = 1
  /** Of which stretches are still to come. */
  #batch: BatchEvent | undefined

  /** What was begun and is not whole: a stream that was not broken off leaves nothing, or an event without its newline. */
  get rest(): string {
    return this.#batch ? 'a batch' : this.#decoder.decode(joined(this.#pieces, this.#length))
  }

  /**
   * The parts that are whole by now.
   * @throws SyntaxError for what no consumer sends
   */
  *split(piece: Uint8Array): Generator<Part<E>, void, undefined> {
    // What is begun, not the piece: all that was packed together can come in one.
    if (this.#length > MAX_BYTES) throw new SyntaxError(`an event or a stretch of more than ${MAX_BYTES} bytes`)
    this.#pieces.push(piece)
    this.#length += piece.length
    if (this.#length < this.#needed) return
    const bytes = this.#pieces.length === 1 ? piece : joined(this.#pieces, this.#length)
    let at = 0
    for (;;) {
      const stretch = this.#batch?.stretches[0]
      if (stretch) {
        this.#needed = stretch.bytes
        if (bytes.length - at < this.#needed) break
        this.#batch?.stretches.shift()
        yield { stretch, bytes: bytes.subarray(at, at + stretch.bytes) }
        at += stretch.bytes
      } else if (this.#batch) {
        const { until } = this.#batch
        this.#batch = undefined
        yield { until }
      } else {
        const end = bytes.indexOf(NEWLINE, at)
        this.#needed = bytes.length - at + 1
        if (end === -1) break
        const text = this.#decoder.decode(bytes.subarray(at, end))
        at = end + 1
        if (text === '') continue
        const event = JSON.parse(text) as E | BatchEvent
        if (isBatch(event)) this.#batch = event
        else yield { event }
      }
    }
    this.#length = bytes.length - at
    this.#pieces = this.#length > 0 ? [bytes.subarray(at)] : []
  }
}

/** Makes events of a stream, lines of what is in batches. */
export class EventDecoder<E> {
  #splitter = new EventSplitter<E>()
  #text = new TextDecoder('utf-8', { ignoreBOM: true })
  #held: Line[] = []

  /** As of EventSplitter. */
  get rest(): string {
    return this.#splitter.rest
  }

  /**
   * Decodes what has arrived, step by step: each takes little time, and may give nothing.
   * @throws SyntaxError for what no consumer sends
   */
  *decode(piece: Uint8Array): Generator<E[], void, undefined> {
    for (const part of this.#splitter.split(piece)) {
      if ('stretch' in part) {
        this.#read(part.stretch, part.bytes)
        yield []
      } else if ('until' in part) yield this.#release(part.until) as E[]
      // What is left out stands behind what is held, and so may be the batch that would let go of that; a consumer that went away sends none.
      else yield isBreak(part.event) ? [...(this.#release(undefined) as E[]), part.event] : [part.event]
    }
  }

  #read({ file, position: begin, service, module, host, container }: StretchHead, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const end = bytes.indexOf(NEWLINE, at)
      const text = end === -1 ? -1 : textBegin(bytes, at, end)
      if (text === -1) throw new SyntaxError('a batch holds what is no line')
      const said = this.#text.decode(bytes.subarray(at, end))
      const position = begin + at
      this.#held.push({
        type: 'line',
        at: `${file}:${position}`,
        file,
        position,
        time: said.slice(0, TIME_CHARACTERS),
        service,
        module,
        host,
        container,
        source: isStderr(bytes, text) ? 'stderr' : 'stdout',
        // In front of it all is ASCII.
        line: said.slice(text - at),
      })
      at = end + 1
    }
  }

  /** What is held up to a time, in order; all of it where none is said. */
  #release(until: string | undefined): Line[] {
    this.#held.sort(byTime)
    const later = until === undefined ? -1 : this.#held.findIndex(({ time }) => time > until)
    return this.#held.splice(0, later === -1 ? this.#held.length : later)
  }
}

const typeOf = (event: unknown): unknown => (event as { type?: unknown } | null)?.type
const isBatch = (event: unknown): event is BatchEvent => typeOf(event) === 'batch'
const isBreak = (event: unknown): boolean => typeOf(event) === 'missed' || typeOf(event) === 'gap'

/** Stamps of files are all of the same length: their order is that of their times. */
const byTime = (a: Line, b: Line): number =>
  a.time < b.time ? -1 : a.time > b.time ? 1 : a.file < b.file ? -1 : a.file > b.file ? 1 : a.position - b.position

function joined(pieces: readonly Uint8Array[], length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  let at = 0
  for (const piece of pieces) {
    bytes.set(piece, at)
    at += piece.length
  }
  return bytes
}
