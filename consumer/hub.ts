/**
 * The hub: what has just landed, on its way to those who follow it.
 *
 * The landing hands it each stretch of lines; once the writer has flushed, the hub parses and encodes them, once for all readers.
 * Readers who ask for the same share a channel. A channel holds lines for its window, puts them in the order of their times, packs
 * them where its readers take that, and gives the same bytes to all of them.
 *
 * Invariants
 * - The writer never waits for a reader: a reader has a queue of `readerBytes`, as they go over the wire, and of what does not fit it
 *   is told how many lines it missed.
 * - All of it is bounded by `memory`: half of it is for windows, half for queues and what leaves them, in equal shares. The more follow,
 *   the less each may be behind; from then on lines are sent before their time, or left out and told as missed.
 * - Nothing is parsed, copied or kept while nobody follows, nor of lines that nobody asks for.
 * - A reader that joins sees each line once: it joins between two flushes, gets from the hub what landed after that moment, and
 *   reads what landed before it from the files, up to `lengths`.
 * - A cursor is sent only when all lines that it stands for were sent, or told as missed.
 */
import TinyQueue from 'tinyqueue'
import { EncodedLines } from './encoded-lines.ts'
import { type Wire, wireBytes } from './event-stream.ts'
import { gzipBlock } from './gzip.ts'
import type { Selector, TextFilter } from './selection.ts'
import { lineEvent, type Stretch } from './stored-line.ts'

/** Lines in a channel's window take at most this much: what is over is sent before its time. */
const HELD_BYTES = 16 * 1024 * 1024
/** A stretch that is held takes up this many times its text, and this beside it. */
const HELD_TIMES = 4
const STRETCH_BYTES = 1024
/**
 * How often a channel sends at most, ms: the less often, the less a line costs, so those that hold their lines wait for as long again,
 * but for LONGEST_TICK_MS.
 */
const SHORTEST_TICK_MS = 10
const LONGEST_TICK_MS = 300
/** Each second it says where it is. */
const CURSOR_MS = 1_000

/** Lines that wait in a channel's window, in the order of their times: `order` names them by their place among all of the stretch. */
type Held = {
  lines: EncodedLines
  order: Uint32Array | undefined
  /** The next one, and where they end. */
  at: number
  end: number
  bytes: number
  arrived: number
  sequence: number
}

/** Consecutive lines of a stretch, on their way out. */
type Piece = { lines: EncodedLines; from: number; to: number; sequence: number }

type Landed = { stretch: Stretch; bytes: Buffer }

/** Which lines are followed, and how they are told. */
export type Follow = {
  /** Those who have the same key share a channel. */
  key: string
  selector: Selector
  filter: TextFilter | undefined
  /** For how long lines are held to be put in order, ms. */
  window: number
  wire: Wire
}

/** A reader that has joined. `lengths` of the files, and `cursor`, are of the moment it did. */
export type Joined = { reader: Reader; lengths: ReadonlyMap<string, number>; cursor: string }

export type HubOptions = {
  /** What a reader may be behind, bytes. */
  readerBytes: number
  /** What all readers and their windows take up together, bytes, but for what is being sent just now. */
  memory: number
  /** How long each file is with all that was flushed. */
  lengths(): ReadonlyMap<string, number>
  /** All that is durable is found again from this cursor on. */
  cursor(): string
}

export class Hub {
  #options: HubOptions
  #channels = new Map<string, Channel>()
  /** Something was taken that is not flushed. */
  #dirty = false
  #landed: Landed[] = []
  #sequence = 0
  #atFlush: (() => void)[] = []
  #readers = 0

  constructor(options: HubOptions) {
    this.#options = options
  }

  /** Lines that were left out for readers that were slow, since the daemon started. */
  missed = 0

  /** How many readers follow. */
  get readers(): number {
    return this.#readers
  }

  /** How many bytes of text a channel may hold. */
  #heldMost(): number {
    return Math.min(HELD_BYTES, this.#options.memory / 2 / HELD_TIMES / this.#channels.size)
  }

  /** How many bytes a reader may be behind. What it has taken last is on its way still, so its share counts twice. */
  #readerMost(): number {
    return Math.min(this.#options.readerBytes, this.#options.memory / 4 / this.readers)
  }

  /** Lines were handed to the writer. @param bytes valid until this returns */
  take(stretch: Stretch, bytes: Uint8Array): void {
    this.#dirty = true
    if (this.#channels.values().some((channel) => channel.wants(stretch)))
      this.#landed.push({ stretch, bytes: Buffer.from(bytes) })
  }

  /** All that was taken stands in the files. */
  flushed(): void {
    if (!this.#dirty) return
    this.#dirty = false
    this.#sequence++
    const now = performance.now()
    for (const { stretch, bytes } of this.#landed.splice(0)) {
      const lines = EncodedLines.of(stretch, bytes)
      for (const channel of this.#channels.values()) {
        if (channel.wants(stretch)) channel.add(lines, bytes.length, now, this.#sequence)
      }
    }
    for (const act of this.#atFlush.splice(0)) act()
  }

  /** There is a new cursor. */
  durable(): void {
    if (this.#channels.size === 0) return
    const cursor = this.#options.cursor()
    const now = performance.now()
    for (const channel of this.#channels.values()) channel.mark(cursor, now)
  }

  /** Joins between two flushes. */
  follow(follow: Follow): Promise<Joined> {
    return new Promise((resolve) => {
      const join = () => {
        const key = JSON.stringify([follow.key, follow.window, follow.wire])
        let channel = this.#channels.get(key)
        if (!channel) {
          channel = new Channel(follow, () => this.#heldMost())
          this.#channels.set(key, channel)
        }
        const missed = (lines: number) => {
          this.missed += lines
        }
        const reader = new Reader(this.#sequence, () => this.#readerMost(), follow.wire, key, missed)
        channel.readers.add(reader)
        this.#readers++
        resolve({ reader, lengths: this.#options.lengths(), cursor: this.#options.cursor() })
      }
      if (this.#dirty) this.#atFlush.push(join)
      else join()
    })
  }

  leave(reader: Reader): void {
    const channel = this.#channels.get(reader.channel)
    if (channel?.readers.delete(reader)) this.#readers--
    if (channel?.readers.size !== 0) return
    channel.close()
    this.#channels.delete(reader.channel)
  }
}

/** Readers who follow the same lines. */
class Channel {
  readonly readers = new Set<Reader>()
  #follow: Follow
  #most: () => number
  #held: Held[] = []
  #heldBytes = 0
  #timer: NodeJS.Timeout | undefined
  #tickedAt = Number.NEGATIVE_INFINITY
  /** Cursors that are not reached yet: lines that came before them are still held. */
  #marks: { cursor: string; arrived: number }[] = []
  /** The last cursor that is reached, while it was not said and lines were sent since the last one that was. */
  #reached: string | undefined
  #unsaid = false
  #saidAt = performance.now()

  /** @param most bytes of text that may be held */
  constructor(follow: Follow, most: () => number) {
    this.#follow = follow
    this.#most = most
  }

  wants({ names, stderr, lines }: Stretch): boolean {
    const { selector } = this.#follow
    return (stderr === 0 ? selector.stdout : stderr < lines || selector.stderr) && selector.names(names)
  }

  /** @param bytes of the stretch */
  add(all: EncodedLines, bytes: number, arrived: number, sequence: number): void {
    const { filter } = this.#follow
    const lines = filter ? filtered(all, filter) : all
    const order = this.#order(lines)
    const end = order ? order.length : lines.count
    if (end === 0) return
    const held: Held = { lines, order, at: 0, end, bytes: bytes + STRETCH_BYTES, arrived, sequence }
    this.#held.push(held)
    this.#heldBytes += held.bytes
    if (this.#heldBytes > this.#most()) this.#send(Number.POSITIVE_INFINITY, arrived)
    this.#schedule(arrived)
  }

  /** Which lines of a stretch are sent, by time. @returns undefined where all are, as they stand */
  #order({ count, times, stderr, positions }: EncodedLines): Uint32Array | undefined {
    const { selector } = this.#follow
    const both = selector.stdout && selector.stderr
    let sorted = true
    for (let i = 1; sorted && i < count; i++) sorted = times[i - 1]! <= times[i]!
    if (both && sorted) return undefined
    const order = Uint32Array.from({ length: count }, (_, i) => i).filter((i) =>
      stderr[i] ? selector.stderr : selector.stdout,
    )
    return sorted ? order : order.sort((a, b) => times[a]! - times[b]! || positions[a]! - positions[b]!)
  }

  mark(cursor: string, now: number): void {
    this.#marks.push({ cursor, arrived: now })
    this.#reach(now)
    this.#schedule(now)
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  #schedule(now: number): void {
    if (this.#timer) return
    const due = Math.min(
      this.#held.length > 0
        ? Math.max(
            this.#held.reduce((least, { arrived }) => Math.min(least, arrived), now) + this.#follow.window,
            this.#tickedAt + Math.min(Math.max(this.#follow.window, SHORTEST_TICK_MS), LONGEST_TICK_MS),
          )
        : Number.POSITIVE_INFINITY,
      this.#reached === undefined ? Number.POSITIVE_INFINITY : this.#saidAt + CURSOR_MS,
    )
    if (due === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(() => this.#tick(), Math.max(0, due - now))
  }

  #tick(): void {
    this.#timer = undefined
    const now = performance.now()
    this.#tickedAt = now
    let until = Number.NEGATIVE_INFINITY
    // A timer may fire a little early.
    for (const held of this.#held)
      if (held.arrived + this.#follow.window <= now + 1) until = Math.max(until, timeOf(held, held.end - 1))
    this.#send(until, now)
    this.#schedule(now)
  }

  /** Sends what is held up to a time, merged. */
  #send(until: number, now: number): void {
    const pieces: Piece[] = []
    const heads = new TinyQueue([...this.#held], byHead)
    for (let head = heads.pop(); head && timeOf(head, head.at) <= until; head = heads.pop()) {
      const next = heads.peek()
      const { lines, sequence } = head
      // As far as no other stretch has a line that comes first: nearly always all of them.
      do {
        const i = placeOf(head, head.at++)
        const last = pieces.at(-1)
        if (last?.lines === lines && last.to === i) last.to++
        else pieces.push({ lines, from: i, to: i + 1, sequence })
      } while (head.at < head.end && timeOf(head, head.at) <= until && !(next && byHead(next, head) < 0))
      if (head.at < head.end) heads.push(head)
      else this.#heldBytes -= head.bytes
    }
    this.#held = this.#held.filter(({ at, end }) => at < end)
    if (pieces.length > 0) {
      this.#give(pieces)
      this.#unsaid = true
    }
    this.#reach(now)
  }

  #give(pieces: readonly Piece[]): void {
    const oldest = pieces.reduce((least, { sequence }) => Math.min(least, sequence), Number.POSITIVE_INFINITY)
    let shared: Buffer | undefined
    const count = linesOf(pieces)
    for (const reader of this.readers) {
      if (reader.joined < oldest) {
        shared ??= this.#encode(pieces)
        reader.offer(shared, count)
        continue
      }
      // What landed before it joined it has from the files.
      const own = pieces.filter(({ sequence }) => sequence > reader.joined)
      if (own.length > 0) reader.offer(this.#encode(own), linesOf(own))
    }
  }

  #encode(pieces: readonly Piece[]): Buffer {
    const { format, gzip } = this.#follow.wire
    const parts = pieces.map(({ lines, from, to }) => {
      const { bytes, offsets } = lines.encoded(format)
      return bytes.subarray(offsets[from], offsets[to])
    })
    const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    return gzip ? gzipBlock(bytes) : bytes
  }

  /** Says the last cursor in front of which nothing is held any more. */
  #reach(now: number): void {
    const least = this.#held.reduce((least, { arrived }) => Math.min(least, arrived), Number.POSITIVE_INFINITY)
    while (this.#marks.length > 0 && this.#marks[0]!.arrived < least) {
      const { cursor } = this.#marks.shift()!
      if (this.#unsaid) this.#reached = cursor
    }
    if (this.#reached === undefined || now < this.#saidAt + CURSOR_MS) return
    this.#tell([JSON.stringify({ type: 'cursor', cursor: this.#reached })])
    this.#saidAt = now
    this.#unsaid = false
    this.#reached = undefined
  }

  #tell(events: readonly string[]): void {
    const bytes = wireBytes(events, this.#follow.wire)
    for (const reader of this.readers) reader.offer(bytes, 0)
  }
}

const linesOf = (pieces: readonly Piece[]): number => pieces.reduce((sum, { from, to }) => sum + to - from, 0)

const placeOf = ({ order }: Held, at: number): number => (order ? order[at]! : at)

const timeOf = (held: Held, at: number): number => held.lines.times[placeOf(held, at)]!

/** As `byTime`, of the next lines. */
function byHead(a: Held, b: Held): number {
  const [i, j] = [placeOf(a, a.at), placeOf(b, b.at)]
  const [file, other] = [a.lines.stretch.file, b.lines.stretch.file]
  return (
    a.lines.times[i]! - b.lines.times[j]! ||
    (file < other ? -1 : file > other ? 1 : a.lines.positions[i]! - b.lines.positions[j]!)
  )
}

/** The lines that pass, with the places that matched. */
function filtered(all: EncodedLines, filter: TextFilter): EncodedLines {
  const lines = all.lines.filter(({ text }) => filter.passes(text))
  return EncodedLines.ofLines(
    all.stretch,
    lines,
    lines.map((line) => lineEvent(line, filter.spans(line.text))),
  )
}

/** One who follows: a queue that the hub fills and the reader's connection empties. */
export class Reader {
  /** The flush behind which it joined. */
  readonly joined: number
  readonly channel: string
  #wire: Wire
  #most: () => number
  #queue: Buffer[] = []
  #bytes = 0
  #missed = 0
  #wake: (() => void) | undefined
  #tell: (missed: number) => void

  /** @param tell gets how many lines are left out */
  constructor(joined: number, most: () => number, wire: Wire, channel: string, tell: (missed: number) => void) {
    this.#tell = tell
    this.joined = joined
    this.channel = channel
    this.#most = most
    this.#wire = wire
  }

  /** Takes events into the queue, or counts their lines as missed. */
  offer(bytes: Buffer, lines: number): void {
    if (this.#missed > 0 || (this.#bytes > 0 && this.#bytes + bytes.length > this.#most())) {
      this.#missed += lines
      this.#tell(lines)
      return
    }
    this.#queue.push(bytes)
    this.#bytes += bytes.length
    this.#wake?.()
  }

  /** What is in the queue, once there is something. @returns undefined once the signal is aborted */
  async next(signal: AbortSignal): Promise<Buffer | undefined> {
    if (this.#queue.length === 0 && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>()
      const wake = () => resolve()
      this.#wake = wake
      signal.addEventListener('abort', wake, { once: true })
      await promise
      signal.removeEventListener('abort', wake)
      this.#wake = undefined
    }
    if (signal.aborted) return undefined
    const queue = this.#queue.splice(0)
    this.#bytes = 0
    if (this.#missed > 0) {
      queue.push(wireBytes([JSON.stringify({ type: 'missed', lines: this.#missed })], this.#wire))
      this.#missed = 0
    }
    return queue.length === 1 ? queue[0]! : Buffer.concat(queue)
  }
}
