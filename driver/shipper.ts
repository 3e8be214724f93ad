/**
 * Shipping: reads journals, numbers lines, cuts chunks and has them acknowledged by Kafka.
 *
 * Invariants
 * - One batch is in flight. The next may be built meanwhile; it is sent after the one before is acknowledged, so a
 *   run's records stand in Kafka in the order of its lines (second copies aside).
 * - A run's checkpoint is the state behind the last acknowledged batch, never behind one that was merely built.
 * - A run's folder goes after its `end` is acknowledged. Until then, and as long after as its container's budget allows, it is
 *   there for `docker logs`.
 * - A batch is for one topic, and topics take turns. One that Kafka does not have keeps only its own runs waiting.
 * - What Kafka refuses for its size goes again in smaller chunks, down to a line: that one is given up, and told in `lost`. What
 *   it refuses for want of the partition goes to another. Either way the runs of the batch are built anew from what is acknowledged.
 * - A partition without a leader keeps only its own runs waiting: what others of the batch have stored is acknowledged.
 * - A run that can't be read or built keeps no other waiting, and the process goes on (shipment.ts).
 * - Memory is bounded whatever waits: two arenas of encoded records, one workspace, and a pending split line a source.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import type { Chunk, LostRange } from '../wire/chunk.ts'
import { type Producer, RefusedError } from '../wire/producer.ts'
import { partitionOf } from '../wire/record.ts'
import type { Topics } from '../wire/topics.ts'
import { BATCH_BYTES, Batch } from './batch.ts'
import { type ShippingCheckpoint, startOfRun } from './checkpoint.ts'
import { CHUNK_OVERHEAD, ChunkBuilder, MAX_TOLD } from './chunks.ts'
import { removeRun } from './journal.ts'
import { JournalSync } from './journal-sync.ts'
import { Retention } from './retention.ts'
import { Room } from './room.ts'
import type { RunRecord } from './run.ts'
import { rangesSince, Shipment } from './shipment.ts'
import type { Slots } from './slots.ts'

/**
 * Sends start `linger` apart, and further for each record that the last one carried, unless WAITING_BYTES wait: a chunk of a few
 * lines costs as much as one of hundreds, so the more runs there are the more lines each of their chunks should hold. Most of
 * that is intake's pace: what is here already goes soon.
 */
const APART_MS_PER_RECORD = 0.15
const MAX_APART_MS = 100
const WAITING_BYTES = 256 * 1024
/** The doorbell rings this often at least, so that checkpoints that are due are written. A timeout for each wait would be a timer a send. */
const IDLE_MS = 1000

const NONE: ReadonlySet<number> = new Set()

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
  /** So many lines were read for the first time, those included that are given up. */
  numbered(lines: number): void
  /** The segment that the run's bytes go to is to be closed, so that it can go. */
  closeSegment(slot: number): void
  /** A send was acknowledged. */
  acknowledged(sent: Acknowledged): void
  /** So many bytes of the journal between these offsets were no frame and were passed over. */
  skipped(run: string, where: { from: number; to: number; bytes: number }): void
  /** A run could not be read or built. It is tried again, or what stood in its way is given up and counted. */
  stumbled(run: RunRecord, error: Error, gaveUp: boolean): void
  /** Kafka refused a batch for a topic, what it holds of so many runs. Nothing is lost by that: it goes again in another form. */
  refused(topic: string, refusal: RefusedError, runs: number): void
  /** The disk did not take a checkpoint, or did not sync; it is tried again. */
  diskRefused(error: Error): void
  /**
   * Lines were given up: Kafka refuses one alone (`too-large`), the journals are full (`journal-full`), the disk is (`disk`), or what
   * the journal holds is no frame or can't be read (`damaged`). Said once, when that can't change any more.
   */
  lost(run: RunRecord, range: LostRange): void
}

export type ShipperOptions = {
  /** The folder of the journals, and how many bytes they may take together. */
  journal: string
  journalMax: number
  /** As many runs that are over and shipped are kept at most. */
  runsMax: number
  /** Of runs that name no other. */
  topic: string
  /** Sends start at least this far apart, ms. */
  linger: number
  /** What Kafka has not taken for this long is made durable, ms; 0: never. */
  syncInterval: number
  /** A run that can't be read or built is tried again after this long, ms. */
  retryMs: number
  slots: Slots
  producer: Pick<Producer, 'send' | 'stop'>
  topics: Pick<Topics, 'partitions' | 'leaderless' | 'lost' | 'forget' | 'stop'>
  events: ShipperEvents
}

/** The runs of one topic. */
type Lane = {
  topic: string
  shipments: Shipment[]
  /** The run that is served first in the next batch: each in turn, so that a noisy one does not starve the others. */
  turn: number
}

export class Shipper {
  #options: ShipperOptions
  #lanes: Lane[] = []
  #shipments = new Set<Shipment>()
  #retention: Retention
  #room: Room
  #sync = new JournalSync()
  #unsaved = new Set<Shipment>()
  #chunk = new ChunkBuilder()
  #arenas = [Buffer.alloc(BATCH_BYTES), Buffer.alloc(BATCH_BYTES)]
  #stopped = false

  constructor(options: ShipperOptions) {
    this.#options = options
    const { journal, journalMax, runsMax, slots, events } = options
    this.#retention = new Retention({ journal, runsMax, removed: (record) => events.removed(record) })
    this.#room = new Room({
      journal,
      journalMax,
      shipments: this.#shipments,
      retention: this.#retention,
      slots,
      sink: this.#chunk,
      close: ({ slot }) => events.closeSegment(slot),
    })
  }

  /** Takes up a run that is over and shipped, for readers alone. Older ones first. */
  keep(record: RunRecord, checkpoint: ShippingCheckpoint): void {
    this.#retention.keep(record, checkpoint.offset)
  }

  /** Takes up a run from its checkpoint on, or from its beginning where it has none. */
  add(slot: number, record: RunRecord, checkpoint = startOfRun()): void {
    const shipment = new Shipment(this.#options.journal, slot, record, checkpoint, this.#options)
    this.#shipments.add(shipment)
    const topic = record.options.topic ?? this.#options.topic
    const lane = this.#lanes.find((lane) => lane.topic === topic)
    if (lane) lane.shipments.push(shipment)
    else this.#lanes.push({ topic, shipments: [shipment], turn: 0 })
  }

  /** The topic, or where its partitions are, is known by now: what waited for that can go. */
  found(): void {
    this.#options.slots.ring()
  }

  /** Ships until `stop`. */
  async loop(): Promise<void> {
    const { syncInterval, events } = this.#options
    this.#room.start()
    const idle = setInterval(() => this.#options.slots.ring(), IDLE_MS)
    if (syncInterval > 0) this.#sync.start(syncInterval, this.#shipments, (error) => events.diskRefused(error))
    try {
      await this.#ship()
    } finally {
      clearInterval(idle)
      this.#room.stop()
      this.#sync.stop()
    }
  }

  async #ship(): Promise<void> {
    const { slots, linger } = this.#options
    let sentAt = Number.NEGATIVE_INFINITY
    let apart = linger
    let ready: Batch | undefined
    while (!this.#stopped) {
      if (!ready || ready.states.size === 0) {
        const seen = slots.rings
        const { lane, bytes } = this.#next()
        if (!lane) {
          this.#saveCheckpoints(false)
          await slots.rung(seen)
          continue
        }
        const wait = sentAt + apart - performance.now()
        if (bytes < WAITING_BYTES && wait > 0) await sleep(wait)
        ready = this.#build(lane)
      }
      if (ready.states.size === 0) continue
      sentAt = performance.now()
      apart = Math.min(linger + APART_MS_PER_RECORD * ready.records.length, Math.max(linger, MAX_APART_MS))
      const sending = this.#send(ready)
      // It may be rejected, by a stop, before it is awaited below.
      sending.catch(() => {})
      // By the next turn it is compressed and on its way: the next one is built while Kafka has this one.
      await turn()
      const { lane, bytes } = this.#next()
      let ahead = lane && bytes >= WAITING_BYTES ? this.#build(lane) : undefined
      try {
        await sending
        this.#acknowledged(ready)
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error
        this.#refused(ready, ahead, error)
        ahead = undefined
      }
      ready = ahead
    }
  }

  /** The lane whose turn it is of those with something to send, and how many bytes wait in all. */
  #next(): { lane: Lane | undefined; bytes: number } {
    let next: Lane | undefined
    let bytes = 0
    for (const lane of [...this.#lanes]) {
      const partitions = this.#options.topics.partitions(lane.topic)
      if (partitions === undefined) {
        // A container that prints nothing has nothing to wait for, and they may come and go by the thousand meanwhile.
        for (const run of lane.shipments.filter((run) => run.isEmpty)) this.#remove(run)
        continue
      }
      const leaderless = this.#options.topics.leaderless(lane.topic)
      let waiting = 0
      for (const run of lane.shipments) if (!isAmong(leaderless, run, partitions)) waiting += run.waiting
      if (waiting > 0) next ??= lane
      bytes += waiting
    }
    return { lane: next, bytes }
  }

  /** Changes what Kafka refused, and takes the runs back to what is acknowledged, to be built anew. */
  #refused(batch: Batch, ahead: Batch | undefined, refusal: RefusedError): void {
    const { reason, acknowledged } = refusal
    const refused = new Set(batch.partitions.keys()).difference(acknowledged)
    this.#acknowledged(batch, refused)
    const runs = [...batch.states].flatMap(([run, { state }]) => (refused.has(state.partition!) ? [run] : []))
    if (reason === 'no-leader') this.#options.topics.lost(batch.topic, refused)
    else if (reason === 'no-partition') {
      // Not even where the partition is known: what Kafka says of it may lag behind, either way.
      this.#options.topics.forget(batch.topic)
    } else if (runs.length > 1) {
      for (const run of runs) run.alone = true
    } else if (runs[0]) {
      const [run] = runs
      run.refused = run.chunkBytes === 1 && batch.records.length === 1
      // Two chunks in one send may be too much where each is not: alone they go from half on.
      run.chunkBytes = Math.max(1, Math.floor(run.chunkBytes / 2))
      run.alone = true
    }
    // Else it is of a run that stumbled behind what it left in the batch: it is built anew as it is.
    this.#options.events.refused(batch.topic, refusal, runs.length)
    for (const run of new Set([...runs, ...(ahead?.states.keys() ?? [])])) run.rewind()
  }

  get state(): JournalState {
    const now = performance.now()
    const state = { bytes: this.#retention.bytes(), unshippedBytes: 0, oldestUnshipped: 0, runs: this.#shipments.size }
    for (const { held, unshipped, behindSince } of this.#shipments) {
      state.bytes += held
      if (unshipped === 0) continue
      state.unshippedBytes += unshipped
      state.oldestUnshipped = Math.max(state.oldestUnshipped, (now - behindSince) / 1000)
    }
    return state
  }

  /** Ends `loop`, which rejects if a send is under way, and writes what is acknowledged by now into the checkpoints. */
  stop(): void {
    this.#stopped = true
    this.#options.slots.ring()
    this.#options.producer.stop()
    this.#options.topics.stop()
    this.#saveCheckpoints(true)
  }

  #build(lane: Lane): Batch {
    const batch = new Batch(lane.topic, this.#arenas.pop() ?? Buffer.alloc(BATCH_BYTES))
    const partitions = this.#options.topics.partitions(lane.topic)!
    const leaderless = this.#options.topics.leaderless(lane.topic)
    const { shipments } = lane
    for (let i = 0; i < shipments.length && batch.room() > 2 * CHUNK_OVERHEAD; i++) {
      const run = shipments[(lane.turn + i) % shipments.length]!
      if (run.ended || run.rests || (run.alone && batch.states.size > 0) || isAmong(leaderless, run, partitions))
        continue
      try {
        this.#fill(run, batch, partitions)
      } catch (error) {
        run.stumbled(error as Error)
      }
      if (run.alone && batch.states.size > 0) break
    }
    lane.turn = shipments.length === 0 ? 0 : (lane.turn + 1) % shipments.length
    this.#lanes.push(...this.#lanes.splice(this.#lanes.indexOf(lane), 1))
    if (batch.states.size === 0) this.#arenas.push(batch.arena)
    return batch
  }

  /** Adds what the run has to the batch, as far as there is room. */
  #fill(run: Shipment, batch: Batch, partitions: number): void {
    // In this order: once the run has ended, `written` is final.
    const ended = this.#options.slots.ended(run.slot)
    const { cursor, written } = run
    const before = cursor.offset
    if (before === written && !ended) return
    if (before === run.acked.offset) run.behindSince = batch.builtAt
    const partition = this.#partitionOf(run, partitions)
    this.#begin(run, batch, partition)
    const room = () => {
      this.#seal(run, batch, partition, false)
      // A run that is being looked into goes a chunk at a time.
      return !run.alone || batch.records.length === 0
    }
    let done = cursor.advance(this.#chunk, written, ended, room)
    while (cursor.gap) {
      if (this.#chunk.lines > 0 && !room()) break
      cursor.passGap((range) => batch.lose(run, range))
      this.#begin(run, batch, partition)
      done = cursor.advance(this.#chunk, written, ended, room)
    }
    run.seen = done ? written : -1
    if (done && ended) this.#finish(run, batch, partition)
    else if (this.#chunk.lines > 0) this.#seal(run, batch, partition, false)
    run.countNumbered(cursor)
    // Also where the cursor has not come any further: a gap may be passed, or a line sent that was pending.
    batch.states.set(run, { state: run.built(), ended: run.ended })
  }

  #finish(run: Shipment, batch: Batch, partition: number): void {
    while (!run.cursor.lines.finish(this.#chunk)) {
      // Nothing fitted and nothing can be sealed to make room: in the next batch.
      if (this.#chunk.lines === 0) return
      this.#seal(run, batch, partition, false)
      if (run.alone && batch.records.length > 0) return
    }
    // All that is lost is told before the end is, in chunks without a line where there are none.
    while (run.cursor.lost.length > MAX_TOLD && batch.room(partition) >= CHUNK_OVERHEAD)
      this.#seal(run, batch, partition, false, true)
    if (run.cursor.lost.length > MAX_TOLD || batch.room(partition) < CHUNK_OVERHEAD) return
    run.ended = true
    const { next } = run.cursor.lines
    // A run that never printed leaves nothing in Kafka either.
    if (next[0] > 1 || next[1] > 1) this.#seal(run, batch, partition, true)
  }

  #begin(run: Shipment, batch: Batch, partition: number): void {
    this.#chunk.begin(run.cursor.lines.next, batch.room(partition), run.chunkBytes, run.format.costs)
  }

  /** Encodes the chunk into the batch and begins the next one. */
  #seal(run: Shipment, batch: Batch, partition: number, end: boolean, empty = end): void {
    if (this.#chunk.lines === 0 && !empty) return
    const { record, cursor } = run
    let columns = this.#chunk.seal()
    if (run.refused) {
      run.refused = false
      for (const range of rangesSince(columns.first, cursor.lines.next, 'too-large')) batch.lose(run, range)
      this.#begin(run, batch, partition)
      if (!end) return
      columns = this.#chunk.seal()
    }
    const chunk: Chunk = {
      ...columns,
      run: run.id,
      service: record.service,
      module: record.module,
      host: record.host,
      container: record.container,
      attrs: record.attrs,
      lost: cursor.lost.slice(0, MAX_TOLD),
      end: end ? [cursor.lines.next[0] - 1, cursor.lines.next[1] - 1] : undefined,
    }
    run.format.encode(chunk, (value) => batch.add(partition, run.key, run.headers, value))
    cursor.lost = cursor.lost.slice(MAX_TOLD)
    if (columns.lines > 0) {
      const t0 = Number(columns.t0 / 1_000_000n)
      batch.count(partition, columns.lines, t0, t0 + Number(columns.dt[columns.lines - 1]) / 1e6)
    }
    this.#begin(run, batch, partition)
  }

  /** The run's partition; chosen once, and written down before anything is sent to it. Another one where the topic came back without it. */
  #partitionOf(run: Shipment, partitions: number): number {
    if (run.partition === undefined || run.partition >= partitions) {
      run.partition = partitionOf(run.key, partitions)
      run.acked = { ...run.acked, partition: run.partition }
      run.save(run.acked, false)
    }
    return run.partition
  }

  async #send(batch: Batch): Promise<void> {
    const { topic, records } = batch
    const failures = records.length > 0 ? await this.#options.producer.send(topic, records) : 0
    // After a failure kafkajs may hold on to the arena, and could send bytes that were put there since.
    if (failures === 0) this.#arenas.push(batch.arena)
  }

  /** @param refused partitions of which Kafka did not acknowledge what the batch holds */
  #acknowledged(batch: Batch, refused: ReadonlySet<number> = NONE): void {
    const sent = { lines: 0, bytes: 0, times: refused.size === 0 ? batch.times : [] }
    for (const [partition, { lines, bytes }] of batch.partitions) {
      if (refused.has(partition)) continue
      sent.lines += lines
      sent.bytes += bytes
    }
    if (sent.bytes > 0) this.#options.events.acknowledged(sent)
    for (const [run, { state, ended }] of batch.states) {
      // One that sends nothing with the batch may have no partition yet.
      if (state.partition !== undefined && refused.has(state.partition)) continue
      run.acknowledged(state, batch.builtAt, batch.lost.get(run) ?? [])
      if (ended) this.#remove(run)
      else this.#unsaved.add(run)
    }
    this.#saveCheckpoints(false)
  }

  #remove(run: Shipment): void {
    const { record, acked } = run
    const { journal, topic, events } = this.#options
    // One that is empty may go while a batch is under way that says so.
    if (!this.#shipments.delete(run)) return
    run.reader.close()
    this.#unsaved.delete(run)
    this.#room.remove(run)
    const lane = this.#lanes.find((lane) => lane.topic === (record.options.topic ?? topic))!
    lane.shipments.splice(lane.shipments.indexOf(run), 1)
    if (lane.shipments.length === 0) this.#lanes.splice(this.#lanes.indexOf(lane), 1)
    const kept = record.options.cacheBytes > 0 && acked.offset > 0
    if (!kept || !run.save({ ...acked, ended: true }, false)) {
      try {
        removeRun(journal, record.run)
      } catch (error) {
        // A disk that only reads. The next driver ships what is behind the last checkpoint again, and removes it.
        events.diskRefused(error as Error)
      }
      events.removed(record)
    } else {
      this.#retention.keep(record, acked.offset)
      this.#room.trimKept(record)
    }
    events.done(run.slot)
  }

  /** Writes the checkpoints that are due, or all that have changed. */
  #saveCheckpoints(all: boolean): void {
    for (const run of this.#unsaved) {
      if (run.reader.droppable(run.acked.offset)) this.#room.trim(run)
      if ((all || run.due) && run.saveAcked()) this.#unsaved.delete(run)
    }
  }

  /** Whether a disk refuses what intake journals: room is made for it while this lasts, of what is shipped. */
  makeRoom(wanted: boolean): void {
    this.#room.make(wanted)
  }
}

/** Whether what a run sends goes to one of these partitions, of `count` in all. */
function isAmong(these: ReadonlySet<number>, { partition, key }: Shipment, count: number): boolean {
  if (these.size === 0) return false
  return these.has(partition !== undefined && partition < count ? partition : partitionOf(key, count))
}
