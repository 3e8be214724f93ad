/**
 * The hub: what has just landed, on its way to those who follow it.
 *
 * The landing hands it each stretch of lines; once the writer has flushed, it is for the readers. Those who ask for the same share a
 * channel. A channel holds what has landed for its window, encodes what leaves that, packs it where its readers take that, and gives
 * the same bytes to all of them. Where they take batches, nothing is done for a line; where they do not, lines are parsed and encoded
 * once for all channels, and each puts its own in the order of their times.
 *
 * Invariants
 * - The writer never waits for a reader: a reader has a queue of `readerBytes`, as they go over the wire, and of what does not fit it
 *   is told how many lines it missed.
 * - All of it is bounded by `memory`: half of it is for windows, half for queues and what leaves them, in equal shares. The more follow,
 *   the less each may be behind; from then on lines are sent before their time, or left out and told as missed.
 * - Nothing is copied or kept while nobody follows, nor of lines that nobody asks for.
 * - A reader that joins sees each line once: it joins between two flushes, gets from the hub what landed after that moment, and
 *   reads what landed before it from the files, up to `lengths`.
 * - A cursor is sent only when all lines that it stands for were sent, or told as missed.
 */
import { type Wire, wireBytes } from './event-stream.ts'
import { HeldLines } from './held-lines.ts'
import { HeldStretches } from './held-stretches.ts'
import { pack } from './packing.ts'
import type { Selector, TextFilter } from './selection.ts'
import type { Stretch } from './stored-line.ts'
import { Landed, type Leaving, type Window } from './window.ts'

/** Lines in a channel's window take at most this much: what is over is sent before its time. */
const HELD_BYTES = 16 * 1024 * 1024
/** Lines that are held take up this many times their text. */
const HELD_TIMES = 4
/**
 * How often a channel sends at most, ms: the less often, the less a line costs, so those that hold their lines wait for as long again,
 * but for LONGEST_TICK_MS.
 */
const SHORTEST_TICK_MS = 10
const LONGEST_TICK_MS = 300
/** Where so much waits for a batch, nobody reads line by line: it waits BUSY_TIMES as long. What it costs to send is then half. */
const BUSY_BYTES = 256 * 1024
const BUSY_TIMES = 2
/** Each second it says where it is. */
const CURSOR_MS = 1_000

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
  #taken: { stretch: Stretch; bytes: Buffer }[] = []
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
      this.#taken.push({ stretch, bytes: Buffer.from(bytes) })
  }

  /** All that was taken stands in the files. */
  flushed(): void {
    if (!this.#dirty) return
    this.#dirty = false
    this.#sequence++
    const now = performance.now()
    for (const { stretch, bytes } of this.#taken.splice(0)) {
      const landed = new Landed(stretch, bytes, now, this.#sequence)
      for (const channel of this.#channels.values()) if (channel.wants(stretch)) channel.add(landed)
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
  #window: Window
  #timer: NodeJS.Timeout | undefined
  #tickedAt = Number.NEGATIVE_INFINITY
  #busy = false
  /** Cursors that are not reached yet: lines that came before them are still held. */
  #marks: { cursor: string; arrived: number }[] = []
  /** The last cursor that is reached, while it was not said and lines were sent since the last one that was. */
  #reached: string | undefined
  #unsaid = false
  #saidAt = performance.now()

  /** @param most bytes of text that may be held */
  constructor(follow: Follow, most: () => number) {
    const { selector, filter, wire } = follow
    this.#follow = follow
    this.#most = most
    this.#window = wire.format === 'batches' ? new HeldStretches() : new HeldLines(selector, filter, wire.format)
  }

  wants({ names, stderr, lines }: Stretch): boolean {
    const { selector } = this.#follow
    return (stderr === 0 ? selector.stdout : stderr < lines || selector.stderr) && selector.names(names)
  }

  add(landed: Landed): void {
    this.#window.add(landed)
    if (this.#window.bytes > this.#most()) this.#send(Number.POSITIVE_INFINITY, landed.arrived)
    this.#schedule(landed.arrived)
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
    const { window } = this.#follow
    const due = Math.min(
      Math.max(
        this.#window.oldest + window,
        this.#tickedAt + (this.#busy ? BUSY_TIMES : 1) * Math.min(Math.max(window, SHORTEST_TICK_MS), LONGEST_TICK_MS),
      ),
      this.#reached === undefined ? Number.POSITIVE_INFINITY : this.#saidAt + CURSOR_MS,
    )
    if (due === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(() => this.#tick(), Math.max(0, due - now))
  }

  #tick(): void {
    this.#timer = undefined
    const now = performance.now()
    this.#tickedAt = now
    this.#busy = this.#follow.wire.format === 'batches' && this.#window.bytes > BUSY_BYTES
    // A timer may fire a little early.
    this.#send(this.#window.latest(now + 1 - this.#follow.window), now)
    this.#schedule(now)
  }

  /** Sends what is held up to a time. */
  #send(until: number, now: number): void {
    const leaving = this.#window.take(until)
    if (leaving) {
      this.#give(leaving)
      this.#unsaid = true
    }
    this.#reach(now)
  }

  #give(leaving: Leaving): void {
    let shared: Buffer | undefined
    for (const reader of this.readers) {
      if (reader.joined < leaving.sequence) {
        shared ??= this.#packed(leaving)
        reader.offer(shared, leaving.lines)
        continue
      }
      // What landed before it joined it has from the files.
      const own = leaving.behind(reader.joined)
      if (own) reader.offer(this.#packed(own), own.lines)
    }
  }

  #packed(leaving: Leaving): Buffer {
    const { packing } = this.#follow.wire
    const bytes = leaving.encode()
    return packing ? pack(bytes, packing) : bytes
  }

  /** Says the last cursor in front of which nothing is held any more. */
  #reach(now: number): void {
    while (this.#marks.length > 0 && this.#marks[0]!.arrived < this.#window.oldest) {
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
    for (const reader of this.readers) reader.offerCursor(bytes)
  }
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

  /** Takes events into the queue, or counts their lines as missed. Where they hold none, lines that were sent wait for them. */
  offer(bytes: Buffer, lines: number): void {
    if (this.#missed === 0 && (lines === 0 || this.#fits(bytes))) {
      this.#put(bytes)
      return
    }
    this.#missed += lines
    this.#tell(lines)
  }

  /** Takes a cursor into the queue where there is room: the next one stands for more. */
  offerCursor(bytes: Buffer): void {
    if (this.#missed === 0 && this.#fits(bytes)) this.#put(bytes)
  }

  #fits({ length }: Buffer): boolean {
    return this.#bytes === 0 || this.#bytes + length <= this.#most()
  }

  #put(bytes: Buffer): void {
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
