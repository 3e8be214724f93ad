/**
 * Shipping: reads journals, numbers lines, cuts chunks and has them acknowledged by Kafka.
 *
 * Invariants
 * - One batch is in flight. The next may be built meanwhile; it is sent after the one before is acknowledged, so a
 *   run's records stand in Kafka in the order of its lines (second copies aside).
 * - A run's checkpoint is the state behind the last acknowledged batch, never behind one that was merely built.
 * - A segment is removed only after a checkpoint past it is durable; a run's folder after its `end` is acknowledged. Until then,
 *   and as long after as its container's budget allows, it is there for `docker logs`.
 * - What Kafka refuses for its size goes again in smaller chunks, down to a line: that one is given up, and told in `lost`. What
 *   it refuses for want of the partition goes to another. Either way the runs of the batch are built anew from what is acknowledged.
 * - The journals stay within `journalMax`: what is shipped goes first, then the run that holds the most gives its oldest segment. Its lines are counted as they would
 *   have been shipped, and a checkpoint behind them is durable before it goes; the next chunk tells them in `lost`.
 * - Memory is bounded whatever waits: two arenas of encoded chunks, one workspace, and a pending split line a source.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { ChunkEncoder, type LostRange, MAX_DATA_BYTES, type SourcePair, STDERR, STDOUT } from '../wire/chunk.ts'
import { type OutgoingRecord, type Producer, RefusedError } from '../wire/producer.ts'
import { partitionOf, recordHeaders, recordKey } from '../wire/record.ts'
import { type ShippingCheckpoint, startOfRun, writeCheckpoint } from './checkpoint.ts'
import { CHUNK_OVERHEAD, ChunkBuilder } from './chunks.ts'
import { Cursor } from './cursor.ts'
import { MAX_FRAME_BYTES } from './frames.ts'
import { giveReserve, JournalReader, removeRun, runFolder, takeReserve } from './journal.ts'
import { Retention } from './retention.ts'
import type { RunRecord } from './run.ts'
import type { Slots } from './slots.ts'

/** Encoded chunks that one send carries at most. */
const BATCH_BYTES = 2 * 1024 * 1024
/** Encoded chunks to one partition in one send: kafkajs makes one record batch of them, and brokers refuse 1 MB. */
const PARTITION_BYTES = 768 * 1024
/**
 * Sends start this far apart, and further for each chunk that the last one carried, unless WAITING_BYTES wait: a chunk of a few
 * lines costs as much as one of hundreds, so the more runs there are the more lines each of their chunks should hold.
 */
const APART_MS = 10
const APART_MS_PER_CHUNK = 0.5
const MAX_APART_MS = 100
const WAITING_BYTES = 256 * 1024
/**
 * A run's checkpoint lags at most this far behind its acknowledgements, in time or in bytes, and is written once the run is
 * quiet. What is behind it would be sent a second time after a kill; a file each second for each run costs more than that.
 */
const CHECKPOINT_MS = 5_000
const CHECKPOINT_BYTES = 16 * 1024 * 1024
const QUIET_MS = 500
/** How long we wait before we send again what was refused for no reason that we can see. */
const REFUSED_MS = 500
/** The journals' size is looked at this often: a container that writes flat out adds some 20 MB meanwhile. */
const JOURNAL_CHECK_MS = 250
/** A disk that is full gets this many segments back at a time. */
const ROOM_SEGMENTS = 4
/** A wait ends at least this often, to write checkpoints that are due. */
const IDLE_MS = 1000

type Run = {
  slot: number
  record: RunRecord
  folder: string
  id: Buffer
  key: string
  headers: Record<string, string>
  reader: JournalReader
  partition: number | undefined
  /** Built up to here, and whether the end was built. */
  cursor: Cursor
  ended: boolean
  /** A chunk is full at this many bytes: fewer after Kafka refused one for its size, down to 1, a line a chunk. */
  chunkBytes: number
  /** Kafka refused a batch that held this run and others: it goes alone, to find out whose fault that was. */
  alone: boolean
  /** Kafka refused the run's next line, alone in a chunk: it is given up. */
  refused: boolean
  /** How much of the journal there was when the run was last read to its end: what is left of that is half a frame. */
  seen: number
  /** Acknowledged up to here, and what the checkpoint on disk says. */
  acked: ShippingCheckpoint
  savedAt: number
  savedOffset: number
  ackedAt: number
  /** What is not acknowledged yet was journalled after this moment, ms of the monotonic clock. */
  behindSince: number
}

type Batch = {
  arena: Buffer<ArrayBuffer>
  bytes: number
  partitionBytes: Map<number, number>
  records: OutgoingRecord[]
  /** State of each run behind this batch, and whether the batch holds its end. */
  states: Map<Run, { state: ShippingCheckpoint; ended: boolean }>
  /** Lines in all, and of each chunk the time of its first line, ms since 1970. */
  lines: number
  times: number[]
  builtAt: number
}

/** What Kafka acknowledged with one send. */
export type Acknowledged = { lines: number; bytes: number; times: readonly number[] }

/** How the journals stand. */
export type JournalState = {
  /** Bytes of all journals, and those that Kafka has not acknowledged. */
  bytes: number
  unshippedBytes: number
  /** How long the oldest of those has been waiting, s. */
  oldestUnshipped: number
  /** Runs that are open or not shipped to their end. */
  runs: number
}

export type ShipperEvents = {
  /** The run is acknowledged to its end: its slot is free. */
  done(slot: number): void
  /** A run's folder is gone. */
  removed(record: RunRecord): void
  /** A send was acknowledged. */
  acknowledged(sent: Acknowledged): void
  /** Bytes of the journal were no frame and were passed over. */
  skipped(run: string, offset: number, bytes: number): void
  /** Kafka refused a batch of so many runs. Nothing is lost by that: it goes again in another form. */
  refused(reason: RefusedError['reason'], message: string, runs: number): void
  /** The disk did not take a checkpoint; it is tried again. */
  diskRefused(error: Error): void
  /** Lines were given up: Kafka refuses one alone (`too-large`), the journals are full (`journal-full`), or the disk is (`disk`). */
  lost(run: string, range: LostRange): void
}

export type ShipperOptions = {
  /** The folder of the journals, and how many bytes they may take together. */
  journal: string
  journalMax: number
  /** As many runs that are over and shipped are kept at most. */
  runsMax: number
  topic: string
  slots: Slots
  producer: Producer
  events: ShipperEvents
}

export class Shipper {
  #journal: string
  #journalMax: number
  #topic: string
  #slots: Slots
  #producer: Producer
  #events: ShipperEvents
  #runs: Run[] = []
  #retention: Retention
  #unsaved = new Set<Run>()
  #partitions: number | undefined
  #chunk = new ChunkBuilder()
  #encoder = new ChunkEncoder()
  #arenas = [Buffer.alloc(BATCH_BYTES), Buffer.alloc(BATCH_BYTES)]
  /** The run that is served first in the next batch: each in turn, so that a noisy one does not starve the others. */
  #turn = 0
  #roomWanted = false
  #stopped = false

  constructor(options: ShipperOptions) {
    this.#journal = options.journal
    this.#journalMax = options.journalMax
    this.#topic = options.topic
    this.#slots = options.slots
    this.#producer = options.producer
    this.#events = options.events
    const { journal, runsMax, events } = options
    this.#retention = new Retention({ journal, runsMax, removed: (record) => events.removed(record) })
  }

  /** Takes up a run that is over and shipped, for readers alone. Older ones first. */
  keep(record: RunRecord, checkpoint: ShippingCheckpoint): void {
    this.#retention.keep(record, checkpoint.offset)
  }

  /** Takes up a run from its checkpoint on, or from its beginning where it has none. */
  add(slot: number, record: RunRecord, checkpoint = startOfRun()): void {
    const folder = runFolder(this.#journal, record.run)
    const reader = new JournalReader(folder)
    this.#runs.push({
      slot,
      record,
      folder,
      id: Buffer.from(record.run.replaceAll('-', ''), 'hex'),
      key: record.options.key === 'run' ? record.run : recordKey(record.service, record.module),
      headers: recordHeaders(record),
      reader,
      partition: checkpoint.partition,
      cursor: this.#cursor(record, reader, checkpoint),
      ended: false,
      chunkBytes: MAX_DATA_BYTES,
      alone: false,
      refused: false,
      seen: 0,
      acked: checkpoint,
      savedAt: Number.NEGATIVE_INFINITY,
      savedOffset: checkpoint.offset,
      ackedAt: Number.NEGATIVE_INFINITY,
      behindSince: performance.now(),
    })
  }

  #cursor(record: RunRecord, reader: JournalReader, from: ShippingCheckpoint): Cursor {
    return new Cursor(reader, from, record.options.maxLineBytes, (offset, bytes) =>
      this.#events.skipped(record.run, offset, bytes),
    )
  }

  /** Ships until `stop`. */
  async loop(): Promise<void> {
    takeReserve(this.#journal)
    // Of its own accord, because the loop waits while Kafka is away, which is when journals grow.
    const check = setInterval(() => {
      if (this.#roomWanted) this.#giveRoom()
      this.#keepWithinMax()
    }, JOURNAL_CHECK_MS)
    try {
      await this.#ship()
    } finally {
      clearInterval(check)
    }
  }

  async #ship(): Promise<void> {
    let sentAt = -MAX_APART_MS
    let apart = APART_MS
    let ready: Batch | undefined
    while (!this.#stopped) {
      if (!ready || ready.states.size === 0) {
        const seen = this.#slots.rings
        const waiting = this.#waiting()
        if (waiting === 0) {
          this.#saveCheckpoints(false)
          await this.#slots.rung(seen, IDLE_MS)
          continue
        }
        const wait = sentAt + apart - performance.now()
        if (waiting < WAITING_BYTES && wait > 0) await sleep(wait)
        this.#partitions ??= await this.#producer.partitions(this.#topic)
        ready = this.#build()
      }
      if (ready.states.size === 0) continue
      sentAt = performance.now()
      apart = Math.min(APART_MS + APART_MS_PER_CHUNK * ready.records.length, MAX_APART_MS)
      const sending = this.#send(ready)
      // It may be rejected, by a stop, before it is awaited below.
      sending.catch(() => {})
      // By the next turn kafkajs has handed the batch to zstd's thread, and this one is free to build ahead.
      await turn()
      let ahead = this.#waiting() >= WAITING_BYTES ? this.#build() : undefined
      try {
        await sending
        this.#acknowledged(ready)
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error
        await this.#refused(ready, ahead, error)
        ahead = undefined
      }
      ready = ahead
    }
  }

  /** Changes what Kafka refused, and takes the runs back to what is acknowledged, to be built anew. */
  async #refused(batch: Batch, ahead: Batch | undefined, { reason, message }: RefusedError): Promise<void> {
    const runs = [...batch.states.keys()]
    if (reason === 'no-partition') {
      this.#partitions = await this.#producer.partitions(this.#topic)
      const homeless = runs.filter((run) => run.partition! >= this.#partitions!)
      for (const run of homeless) run.partition = undefined
      // Kafka has the partition and did not take the records all the same: its metadata is on the way.
      if (homeless.length === 0) await sleep(REFUSED_MS)
    } else if (runs.length > 1) {
      for (const run of runs) run.alone = true
    } else {
      const run = runs[0]!
      run.refused = run.chunkBytes === 1 && batch.records.length === 1
      // Two chunks in one send may be too much where each is not: alone they go from half on.
      run.chunkBytes = Math.max(1, Math.floor(run.chunkBytes / 2))
      run.alone = true
    }
    this.#events.refused(reason, message, runs.length)
    for (const run of new Set([...runs, ...(ahead?.states.keys() ?? [])])) this.#rewind(run)
  }

  #rewind(run: Run): void {
    run.cursor = this.#cursor(run.record, run.reader, run.acked)
    run.ended = false
    run.seen = -1
  }

  get state(): JournalState {
    const now = performance.now()
    const state = { bytes: this.#retention.bytes(), unshippedBytes: 0, oldestUnshipped: 0, runs: this.#runs.length }
    for (const run of this.#runs) {
      state.bytes += this.#held(run)
      const unshipped = this.#slots.written(run.slot) - run.acked.offset
      if (unshipped === 0) continue
      state.unshippedBytes += unshipped
      state.oldestUnshipped = Math.max(state.oldestUnshipped, (now - run.behindSince) / 1000)
    }
    return state
  }

  /** Ends `loop`, which rejects if a send is under way, and writes what is acknowledged by now into the checkpoints. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#slots.ring()
    await this.#producer.stop()
    this.#saveCheckpoints(true)
  }

  /** Bytes that are journalled and not yet built; a run whose end is to be built counts as one. */
  #waiting(): number {
    let bytes = 0
    for (const run of this.#runs) {
      if (run.ended) continue
      const written = this.#slots.written(run.slot)
      if (this.#slots.ended(run.slot)) bytes += written - run.cursor.offset + 1
      else if (written !== run.seen) bytes += written - run.cursor.offset
    }
    return bytes
  }

  #build(): Batch {
    const arena = this.#arenas.pop() ?? Buffer.alloc(BATCH_BYTES)
    const batch: Batch = {
      arena,
      bytes: 0,
      partitionBytes: new Map(),
      records: [],
      states: new Map(),
      lines: 0,
      times: [],
      builtAt: performance.now(),
    }
    const count = this.#runs.length
    for (let i = 0; i < count && this.#room(batch, undefined) > 2 * CHUNK_OVERHEAD; i++) {
      const run = this.#runs[(this.#turn + i) % count]!
      if (run.ended || (run.alone && batch.states.size > 0)) continue
      this.#fill(run, batch)
      if (run.alone && batch.states.size > 0) break
    }
    this.#turn = count === 0 ? 0 : (this.#turn + 1) % count
    return batch
  }

  /** Bytes that may still be added to the batch, for a partition where one is given. */
  #room(batch: Batch, partition: number | undefined): number {
    const room = batch.arena.length - batch.bytes
    if (partition === undefined) return room
    return Math.min(room, PARTITION_BYTES - (batch.partitionBytes.get(partition) ?? 0))
  }

  /** Adds what the run has to the batch, as far as there is room. */
  #fill(run: Run, batch: Batch): void {
    // In this order: once the run has ended, `written` is final.
    const ended = this.#slots.ended(run.slot)
    const written = this.#slots.written(run.slot)
    const { cursor } = run
    const before = cursor.offset
    if (before === written && !ended) return
    if (before === run.acked.offset) run.behindSince = batch.builtAt
    const partition = this.#partitionOf(run)
    this.#begin(run, batch, partition)
    const room = () => {
      this.#seal(run, batch, partition, false)
      // A run that is being looked into goes a chunk at a time.
      return !run.alone || batch.records.length === 0
    }
    let done = cursor.advance(this.#chunk, written, ended, room)
    while (cursor.gap) {
      if (this.#chunk.lines > 0 && !room()) break
      cursor.passGap((range) => this.#lose(run, cursor, range))
      this.#begin(run, batch, partition)
      done = cursor.advance(this.#chunk, written, ended, room)
    }
    run.seen = done ? written : -1
    if (done && ended) this.#finish(run, batch, partition)
    else if (this.#chunk.lines > 0) this.#seal(run, batch, partition, false)
    if (cursor.offset > before || run.ended)
      batch.states.set(run, { state: cursor.state(run.partition), ended: run.ended })
  }

  #finish(run: Run, batch: Batch, partition: number): void {
    while (!run.cursor.lines.finish(this.#chunk)) {
      // Nothing fitted and nothing can be sealed to make room: in the next batch.
      if (this.#chunk.lines === 0) return
      this.#seal(run, batch, partition, false)
      if (run.alone && batch.records.length > 0) return
    }
    if (this.#room(batch, partition) < CHUNK_OVERHEAD) return
    run.ended = true
    const { next } = run.cursor.lines
    // A run that never printed leaves nothing in Kafka either.
    if (next[0] > 1 || next[1] > 1) this.#seal(run, batch, partition, true)
  }

  #begin(run: Run, batch: Batch, partition: number): void {
    this.#chunk.begin(run.cursor.lines.next, this.#room(batch, partition), run.chunkBytes)
  }

  /** Encodes the chunk into the batch and begins the next one. */
  #seal(run: Run, batch: Batch, partition: number, end: boolean): void {
    if (this.#chunk.lines === 0 && !end) return
    const { record, cursor } = run
    let columns = this.#chunk.seal()
    if (run.refused) {
      this.#giveUp(run, columns.first)
      this.#begin(run, batch, partition)
      if (!end) return
      columns = this.#chunk.seal()
    }
    const encoded = this.#encoder.encode({
      ...columns,
      run: run.id,
      service: record.service,
      module: record.module,
      host: record.host,
      container: record.container,
      attrs: record.attrs,
      lost: cursor.lost,
      end: end ? [cursor.lines.next[0] - 1, cursor.lines.next[1] - 1] : undefined,
    })
    cursor.lost = []
    if (columns.lines > 0) {
      batch.lines += columns.lines
      batch.times.push(Number(columns.t0 / 1_000_000n))
    }
    batch.arena.set(encoded, batch.bytes)
    const value = batch.arena.subarray(batch.bytes, batch.bytes + encoded.length)
    batch.bytes += encoded.length
    batch.partitionBytes.set(partition, (batch.partitionBytes.get(partition) ?? 0) + encoded.length)
    batch.records.push({ topic: this.#topic, partition, key: run.key, headers: run.headers, value })
    this.#begin(run, batch, partition)
  }

  /** Counts the chunk's lines as lost instead of sending them; the next chunk tells. */
  #giveUp(run: Run, first: SourcePair): void {
    run.refused = false
    for (const source of [STDOUT, STDERR] as const) {
      const count = run.cursor.lines.next[source] - first[source]
      if (count === 0) continue
      this.#lose(run, run.cursor, { source, from: first[source], count, reason: 'too-large' })
    }
  }

  /** The run's partition; chosen once, and written down before anything is sent to it. */
  #partitionOf(run: Run): number {
    if (run.partition === undefined) {
      run.partition = partitionOf(run.key, this.#partitions!)
      run.acked = { ...run.acked, partition: run.partition }
      this.#writeCheckpoint(run, run.acked, false)
    }
    return run.partition
  }

  async #send(batch: Batch): Promise<void> {
    const failures = batch.records.length > 0 ? await this.#producer.send(batch.records) : 0
    // After a failure kafkajs may hold on to the arena, and could send bytes that were put there since.
    if (failures === 0) this.#arenas.push(batch.arena)
  }

  #acknowledged(batch: Batch): void {
    if (batch.records.length > 0) this.#events.acknowledged(batch)
    const now = performance.now()
    for (const [run, { state, ended }] of batch.states) {
      run.ackedAt = now
      // What was given up meanwhile may reach further.
      if (state.offset > run.acked.offset) run.acked = state
      run.behindSince = batch.builtAt
      run.chunkBytes = Math.min(MAX_DATA_BYTES, run.chunkBytes * 2)
      run.alone &&= run.chunkBytes < MAX_DATA_BYTES
      if (ended) this.#remove(run)
      else this.#unsaved.add(run)
    }
    this.#saveCheckpoints(false)
  }

  #remove(run: Run): void {
    const { record, reader, acked } = run
    reader.close()
    this.#unsaved.delete(run)
    this.#runs.splice(this.#runs.indexOf(run), 1)
    const kept = record.options.cacheBytes > 0 && acked.offset > 0
    if (!kept || !this.#writeCheckpoint(run, { ...acked, ended: true }, false)) {
      removeRun(this.#journal, record.run)
      this.#events.removed(record)
    } else {
      this.#retention.keep(record, acked.offset)
      while (this.#shipped(record) > record.options.cacheBytes && this.#retention.giveOldest(record.container.id));
    }
    this.#events.done(run.slot)
  }

  /** Bytes of the container that are shipped and still there. */
  #shipped({ container }: RunRecord): number {
    return this.#runs.reduce(
      (sum, run) => (run.record.container.id === container.id ? sum + run.acked.offset - run.reader.start : sum),
      this.#retention.bytes(container.id),
    )
  }

  /** Drops what is shipped beyond the budget of the run's container: runs that are over first, then its own. */
  #trim(run: Run): void {
    const { container, options } = run.record
    let over = this.#shipped(run.record) - options.cacheBytes
    if (over <= 0) return
    while (over > 0 && this.#retention.giveOldest(container.id)) over = this.#shipped(run.record) - options.cacheBytes
    if (over <= 0 || !run.reader.droppable(run.acked.offset)) return
    if (!this.#writeCheckpoint(run, run.acked, true)) return
    while (run.reader.droppable(run.acked.offset) && this.#shipped(run.record) > options.cacheBytes)
      run.reader.dropFirst()
  }

  #held(run: Run): number {
    return this.#slots.written(run.slot) - run.reader.start
  }

  #keepWithinMax(): void {
    const held = () => this.#runs.reduce((sum, run) => sum + this.#held(run), this.#retention.bytes())
    if (held() <= this.#journalMax) return
    while (held() > this.#journalMax && this.#retention.giveOldest());
    const byHeld = (a: Run, b: Run) => this.#held(b) - this.#held(a)
    for (const shipped of [true, false]) {
      while (held() > this.#journalMax) {
        // The largest has a segment to give, or only the one that is being written.
        const run = this.#runs
          .toSorted(byHeld)
          .find((run) => (!shipped || run.reader.droppable(run.acked.offset)) && this.#giveSegment(run))
        if (!run) break
      }
    }
  }

  /** Gives up the run's first segment. @returns false where it is the one that is being written */
  #giveSegment(run: Run): boolean {
    const end = run.reader.bases()[1]
    if (end === undefined) return false
    const cursor = this.#cursor(run.record, run.reader, run.acked)
    const first = [...cursor.lines.next]
    if (cursor.offset < end) {
      const sink = this.#chunk
      const anew = () => {
        sink.begin(cursor.lines.next, Number.POSITIVE_INFINITY)
        return true
      }
      anew()
      // A frame that reaches into the next segment goes whole.
      const limit = Math.min(end + MAX_FRAME_BYTES, this.#slots.written(run.slot))
      cursor.advance(sink, limit, false, anew)
      while (cursor.gap && cursor.offset < end) {
        cursor.passGap((range) => this.#lose(run, cursor, range))
        anew()
        cursor.advance(sink, limit, false, anew)
      }
      if (cursor.offset < end) return false
      for (const source of [STDOUT, STDERR] as const) {
        const count = cursor.lines.next[source] - first[source]!
        if (count > 0) this.#lose(run, cursor, { source, from: first[source]!, count, reason: 'journal-full' })
      }
    }
    const acked = cursor.state(run.partition)
    if (!this.#writeCheckpoint(run, acked, true)) return false
    run.acked = acked
    run.reader.dropFirst()
    if (run.cursor.offset < run.acked.offset) this.#rewind(run)
    return true
  }

  /** Enters lines that are given up: with the ones before them where they follow each other, so that the list stays short. */
  #lose(run: Run, cursor: Cursor, range: LostRange): void {
    const { source, from, count, reason } = range
    const last = cursor.lost.findLast((lost) => lost.source === source)
    const follows = last?.reason === reason && last.from + last.count === from
    cursor.lost = follows
      ? cursor.lost.map((lost) => (lost === last ? { ...lost, count: lost.count + count } : lost))
      : [...cursor.lost, range]
    this.#events.lost(run.record.run, range)
  }

  /** Writes the checkpoints that are due, or all that have changed. */
  #saveCheckpoints(all: boolean): void {
    const now = performance.now()
    for (const run of this.#unsaved) {
      if (run.reader.droppable(run.acked.offset)) this.#trim(run)
      const due =
        all ||
        now - run.savedAt >= CHECKPOINT_MS ||
        now - run.ackedAt >= QUIET_MS ||
        run.acked.offset - run.savedOffset >= CHECKPOINT_BYTES
      if (!due) continue
      run.savedAt = now
      run.savedOffset = run.acked.offset
      if (this.#writeCheckpoint(run, run.acked, false)) this.#unsaved.delete(run)
    }
  }

  /** @returns whether the disk took it. Where it did not the checkpoint lags, and what is behind it is sent a second time after a restart. */
  #writeCheckpoint(run: Run, checkpoint: ShippingCheckpoint, durable: boolean): boolean {
    try {
      writeCheckpoint(run.folder, checkpoint, durable)
      return true
    } catch (error) {
      this.#events.diskRefused(error as Error)
      return false
    }
  }

  /** Whether a disk refuses what intake journals: room is made for it while this lasts, of what is shipped. */
  makeRoom(wanted: boolean): void {
    this.#roomWanted = wanted
    if (wanted) this.#giveRoom()
    else takeReserve(this.#journal)
  }

  #giveRoom(): void {
    for (let given = 0; given < ROOM_SEGMENTS; given++) {
      if (this.#retention.giveOldest()) continue
      giveReserve(this.#journal)
      const gave = this.#runs.some((run) => run.reader.droppable(run.acked.offset) && this.#giveSegment(run))
      takeReserve(this.#journal)
      if (!gave) return
    }
  }
}
