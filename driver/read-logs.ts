/**
 * `docker logs`, from the journal: frames of dockerd's, read by offset and framed anew.
 *
 * What dockerd does with an answer (moby daemon/logger/adapter.go): it takes time, line and source of each entry and nothing
 * else, adds no newline, and leaves Tail to us. So an entry's line ends in a newline unless it is a part that is not the last, and
 * parts are not joined: `--tail` counts them, as it does with Docker's own drivers.
 *
 * Invariants
 * - It only reads files and the slots, on the main thread, a block at a time: intake and shipping know nothing of it.
 * - A reader holds one block while it has something to send, and nothing but a promise while it has not. One whose client does not
 *   read waits for its socket. At most MAX_FOLLOWERS follow; the one that was idle longest is closed first.
 * - Segments may go while they are read: reading goes on behind the hole, as with a file that was rotated away.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { STDERR } from '../wire/chunk.ts'
import { readCheckpoint, type SegmentStart } from './checkpoint.ts'
import { Frame, INCOMPLETE, readFrame, resync } from './frames.ts'
import type { History, Readable } from './history.ts'
import { JournalReader, journalEnd, runFolder } from './journal.ts'
import type { Slots } from './slots.ts'

/** ns since 1970, in the halves that frames have it in. */
export type Moment = { high: number; low: number }

export type ReadConfig = {
  since: Moment | undefined
  until: Moment | undefined
  /** The last entries, as many as this; all where it is negative. */
  tail: number
  follow: boolean
}

export type LogReaderLimits = {
  followers: number
  /** A container that has just ended may have bytes in its pipe: waited for this long at most, ms. */
  drainMs: number
}

export const LOG_READER_LIMITS: LogReaderLimits = { followers: 256, drainMs: 2_000 }

const BLOCK_BYTES = 64 * 1024
const NEWLINE = 10
/** The shortest frame, a length and a source, becomes an entry of at most 30 bytes. */
const ENTRIES_BYTES = Math.ceil(BLOCK_BYTES / 12) * 30

/** A nanosecond RFC 3339 time, as Go writes it. @returns undefined for Go's zero time and for what is no time */
export function moment(text: string): Moment | undefined {
  const [, seconds, fraction = '', zone] =
    /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text) ?? []
  if (seconds === undefined || seconds.startsWith('0001-')) return undefined
  const ms = Date.parse(`${seconds}${zone}`)
  if (Number.isNaN(ms)) return undefined
  const ns = BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, '0'))
  return ns < 0n ? { high: 0, low: 0 } : { high: Number(ns >> 28n), low: Number(ns & 0xfff_ffffn) }
}

const isBefore = (frame: Frame, { high, low }: Moment): boolean =>
  frame.timeHigh < high || (frame.timeHigh === high && frame.timeLow < low)

const isAfter = (frame: Frame, { high, low }: Moment): boolean =>
  frame.timeHigh > high || (frame.timeHigh === high && frame.timeLow > low)

function writeVarint(to: Buffer, at: number, value: number): number {
  let out = at
  let rest = value
  while (rest > 0x7f) {
    to[out++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  to[out++] = rest
  return out
}

/** A time of halves: four bytes of seven bits for the low one, which others follow, then the high one. */
function writeTime(to: Buffer, at: number, high: number, low: number): number {
  let out = at
  for (let shift = 0; shift < 28; shift += 7) to[out++] = ((low >>> shift) & 0x7f) | 0x80
  let rest = high
  while (rest > 0x7f) {
    to[out++] = (rest % 128) | 0x80
    rest = Math.floor(rest / 128)
  }
  to[out++] = rest
  return out
}

/** Writes the frame, which lies in `from`, as an entry for dockerd. @returns the offset behind it */
function writeEntry(to: Buffer, at: number, from: Uint8Array, frame: Frame): number {
  const bytes = frame.lineEnd - frame.lineStart
  const terminated = !frame.partial || frame.last
  let out = at + 4
  out += to.write(frame.source === STDERR ? '\n\x06stderr' : '\n\x06stdout', out, 'latin1')
  to[out++] = 0x10
  out = writeTime(to, out, frame.timeHigh, frame.timeLow)
  to[out++] = 0x1a
  out = writeVarint(to, out, bytes + (terminated ? 1 : 0))
  to.set(from.subarray(frame.lineStart, frame.lineEnd), out)
  out += bytes
  if (terminated) to[out++] = NEWLINE
  to.writeUInt32BE(out - at - 4, at)
  return out
}

/** A journal from an offset on, a block at a time, frame by frame. */
class Scan {
  readonly frame = new Frame()
  readonly block = Buffer.allocUnsafe(BLOCK_BYTES)
  #reader: JournalReader
  /** Offset of the block in the stream. */
  #offset: number
  #at = 0
  #length = 0
  /** The gap that was passed last. */
  #passed = -1

  constructor(reader: JournalReader, offset: number) {
    this.#reader = reader
    this.#offset = offset
  }

  /** Reads on, from the frame that is not whole yet. @returns whether there is something that was not there before */
  fill(limit: number): boolean {
    const rest = this.#length - this.#at
    this.#offset += this.#at
    this.#at = 0
    this.#length = 0
    const wanted = Math.min(this.block.length, limit - this.#offset)
    if (wanted <= rest) return false
    this.#length = this.#reader.read(this.block, 0, wanted, this.#offset)
    const gap = this.#reader.gapFrom(this.#offset, this.#passed)
    if (gap && gap.offset < this.#offset + this.#length) {
      this.#length = gap.offset - this.#offset
      if (this.#length > rest) return true
      // What is left before the gap is no whole frame, and never will be.
      this.#offset = this.#passed = gap.offset
      this.#length = 0
      return this.fill(limit)
    }
    if (this.#length > rest) return true
    // What is there before a hole is no whole frame, and never will be.
    const behind = this.#reader.next(this.#offset + this.#length)
    if (behind === undefined || behind >= limit) return false
    // A hole: what we were about to read was dropped meanwhile, or is not given.
    this.#offset = behind
    this.#length = 0
    return this.fill(limit)
  }

  /** Takes the next whole frame of the block into `frame`. @returns whether there is one */
  next(): boolean {
    while (this.#at < this.#length) {
      const next = readFrame(this.block, this.#at, this.#length, this.frame)
      if (next === INCOMPLETE) return false
      if (next > 0) {
        this.#at = next
        return true
      }
      this.#at = resync(this.block, this.#at, this.#length, this.frame)
    }
    return false
  }
}

function countFrames(reader: JournalReader, from: number, to: number): number {
  const scan = new Scan(reader, from)
  let frames = 0
  while (scan.fill(to)) while (scan.next()) frames++
  return frames
}

/**
 * Where the first frame begins that begins in a segment, which may begin within one: that one counts with the segment before. A line's
 * own bytes may look like a frame: the one is meant that others follow, as far as a block goes.
 */
function firstFrame(reader: JournalReader, base: number, end: number): number {
  if (base === reader.start) return base
  const block = Buffer.allocUnsafe(BLOCK_BYTES)
  const length = reader.read(block, 0, Math.min(block.length, end - base), base)
  const frame = new Frame()
  let at = 0
  while (at < length) {
    let behind = at
    let next = readFrame(block, at, length, frame)
    while (next > 0) {
      behind = next
      next = readFrame(block, behind, length, frame)
    }
    if (next === INCOMPLETE && (behind > at || at === 0)) return base + at
    at = resync(block, at, length, frame)
  }
  return base
}

/** Where to begin: in which run, at which offset, and how many entries there are to be passed over. */
type Beginning = { first: number; offset: number; skip: number }

export class LogReader {
  #journal: string
  #history: History
  #slots: Slots
  #limits: LogReaderLimits
  /** Who follows, the one that was idle longest first. */
  #followers = new Set<AbortController>()
  #growth: Promise<void> | undefined

  constructor(journal: string, history: History, slots: Slots, limits = LOG_READER_LIMITS) {
    this.#journal = journal
    this.#history = history
    this.#slots = slots
    this.#limits = limits
  }

  /**
   * The entries of a container, in blocks of whole entries.
   * @param gone aborted when nobody reads any more
   */
  async *read(container: string, config: ReadConfig, gone: AbortSignal): AsyncGenerator<Buffer, void, void> {
    const follower = config.follow ? this.#follow() : undefined
    const signal = follower ? AbortSignal.any([gone, follower.signal]) : gone
    try {
      await this.#drained(container)
      const runs = [...this.#history.runs(container)]
      const { first, offset, skip } = await this.#begin(runs, config.tail)
      for (let i = first; i < runs.length && !signal.aborted; i++) {
        const from = i === first ? { offset, skip } : { offset: 0, skip: 0 }
        const follows = config.follow && i === runs.length - 1
        for await (const block of this.#entries(runs[i]!, from, config, follows, signal)) {
          if (follower) this.#active(follower)
          yield block
          // A client that reads as fast as we do would keep everybody else waiting.
          await turn()
        }
      }
    } finally {
      if (follower) this.#followers.delete(follower)
    }
  }

  #follow(): AbortController {
    if (this.#followers.size >= this.#limits.followers) {
      const [idlest] = this.#followers
      this.#followers.delete(idlest!)
      idlest!.abort()
    }
    const follower = new AbortController()
    this.#followers.add(follower)
    return follower
  }

  #active(follower: AbortController): void {
    if (this.#followers.delete(follower)) this.#followers.add(follower)
  }

  /** Waits for the runs that dockerd has stopped already: what they printed last is on its way into the journal. */
  async #drained(container: string): Promise<void> {
    const stopping = this.#history.runs(container).filter((run) => run.stopping)
    if (stopping.length === 0) return
    const drained = new AbortController()
    const limit = sleep(this.#limits.drainMs, undefined, { signal: drained.signal }).catch(() => {})
    await Promise.race([Promise.all(stopping.map((run) => run.over.promise)), limit])
    drained.abort()
  }

  async #begin(runs: readonly Readable[], tail: number): Promise<Beginning> {
    const last = runs.length - 1
    if (tail < 0) return { first: 0, offset: 0, skip: 0 }
    if (tail === 0) return { first: last, offset: last < 0 ? 0 : this.#end(runs[last]!), skip: 0 }
    let missing = tail
    for (let first = last; first >= 0; first--) {
      const run = runs[first]!
      const reader = new JournalReader(this.#folder(run))
      try {
        let to = this.#end(run)
        for (const [, offset] of this.#starts(run, reader).toReversed()) {
          const count = countFrames(reader, offset, to)
          if (count >= missing) return { first, offset, skip: count - missing }
          missing -= count
          to = offset
          await turn()
        }
      } finally {
        reader.close()
      }
    }
    return { first: 0, offset: 0, skip: 0 }
  }

  #folder({ record }: Readable): string {
    return runFolder(this.#journal, record.run)
  }

  /** Bytes that the run's journal holds by now. */
  #end(run: Readable): number {
    return run.slot === undefined ? journalEnd(this.#folder(run)) : this.#slots.written(run.slot)
  }

  /**
   * Where the first frame of each segment begins. Shipping has noted it for those that it came by; for one that waits for
   * Kafka it is looked for when it is read.
   */
  #starts(run: Readable, reader: JournalReader): SegmentStart[] {
    let known = new Map<number, number>()
    try {
      known = new Map(readCheckpoint(this.#folder(run))?.starts)
    } catch {
      // Shipping says what is wrong with it.
    }
    return reader.bases().map((base) => [base, known.get(base) ?? firstFrame(reader, base, this.#end(run))])
  }

  /** The entries of a run from `offset` on, but for the first `skip`. */
  async *#entries(
    run: Readable,
    from: { offset: number; skip: number },
    { since, until }: ReadConfig,
    follows: boolean,
    signal: AbortSignal,
  ): AsyncGenerator<Buffer, void, void> {
    const reader = new JournalReader(this.#folder(run))
    try {
      const scan = new Scan(reader, from.offset || (this.#starts(run, reader)[0]?.[1] ?? 0))
      let { skip } = from
      while (!signal.aborted) {
        const { rings } = this.#slots
        // In this order: once the stream is over, its end is final.
        const over = !follows || run.slot === undefined || this.#slots.ended(run.slot)
        const limit = this.#end(run)
        while (!signal.aborted && scan.fill(limit)) {
          const to = Buffer.allocUnsafe(ENTRIES_BYTES)
          let out = 0
          while (scan.next()) {
            if (skip > 0) skip--
            else if (since && isBefore(scan.frame, since)) continue
            else if (until && isAfter(scan.frame, until)) {
              if (out > 0) yield to.subarray(0, out)
              return
            } else out = writeEntry(to, out, scan.block, scan.frame)
          }
          if (out > 0) yield to.subarray(0, out)
        }
        if (over) return
        await this.#grown(rings, signal)
      }
    } finally {
      reader.close()
    }
  }

  /** Waits until the doorbell rings, unless it has since `rings`. */
  async #grown(rings: number, signal: AbortSignal): Promise<void> {
    if (this.#slots.rings !== rings || signal.aborted) return
    this.#growth ??= this.#slots.rung(rings).finally(() => {
      this.#growth = undefined
    })
    const { promise, resolve } = Promise.withResolvers<void>()
    const abort = () => resolve()
    signal.addEventListener('abort', abort, { once: true })
    await Promise.race([this.#growth, promise])
    signal.removeEventListener('abort', abort)
  }
}
