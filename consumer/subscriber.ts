/**
 * The subscriber: a member of the consumer group that claims, lands and checkpoints the batches of its partitions.
 *
 * A round takes every batch in hand: one claim for all of them, then their records to the files. Rounds are one at a
 * time, so state has one writer; while one runs, kafkajs fetches, and the batches of the next one gather.
 *
 * Invariants
 * - Nothing is written that was not claimed in this generation of the group. A claim that is refused, or whose fate is unknown, ends
 *   the batch with nothing written: what Kafka holds at the next assignment decides where we go on.
 * - What was claimed is written, by us and nobody else, whoever has the partition by then: at each assignment what is left of our own
 *   tenures comes first, for the ledger goes on from there.
 * - Commits are made inside a batch's handler, awaited, and by nobody else: a commit from a timer can move a group back.
 * - The checkpoint follows the files between rounds, CHECKPOINT_MS later, or as seldom as what one takes demands. Behind it the same
 *   bytes are written again.
 * - A disk that refuses stops the rounds and nothing else: Kafka holds the records, heartbeats go on, it is tried again. A stop does not
 *   wait for it: from then on nothing is written any more, and the next daemon writes again from the checkpoint on.
 * - What a disk refuses to make durable is lost to it, and is not asked for again: the next process writes it, from the checkpoint on.
 * - A partition without a leader keeps no other waiting: it is opened, and what we owe of it is written, once it has one.
 * - However long records take, heartbeats and HTTP get their turn between them.
 */
import type { Admin, Kafka, KafkaMessage } from 'kafkajs'
import type { Logger } from 'pino'
import { type Clock, realClock } from '../wire/clock.ts'
import type { Extent, Group, GroupBatch } from '../wire/group.ts'
import type { Checkpoint, PartitionState } from './checkpoint.ts'
import {
  type ClosedTenure,
  type Commit,
  type Opening,
  openTenure,
  readMetadata,
  recordHash,
  type Tenure,
  type Unfinished,
  unfinished,
  writeMetadata,
} from './claims.ts'
import { ConsumerError } from './errors.ts'
import type { IndexLog } from './index-log.ts'
import type { Landing } from './landing.ts'
import type { Ledger } from './ledger.ts'
import type { Claimed, LedgerTopic } from './ledger-topic.ts'
import { hashAt, type TakeOver, type TakeOverSources, takeOver } from './take-over.ts'
import type { Writer } from './writer.ts'

/**
 * Claims are made at least this far apart: under many small batches one claim carries them all. Until then nothing more is fetched of
 * what was in the last one. Fetched at once, it would wait for its claim, and what is stored meanwhile for the fetch that follows.
 */
const CLAIM_APART_MS = 20
const CHECKPOINT_MS = 200
/** Where a checkpoint takes long, for many files or on a slow disk, this share of the time goes to them, up to a bound. */
const CHECKPOINT_SHARE = 0.1
const MAX_CHECKPOINT_MS = 2_000
const RETRY_MS = 500
/** So long records are landed without a turn of the event loop. */
const BREATHE_MS = 200
/** It is looked this often what other roots have stored of ours, and have written of theirs. */
const SETTLE_MS = 10_000
/** So long a stop waits until the ledger's topic is up to date. */
const PUBLISH_MS = 500
/** While Kafka or the disk is away it is told this often. */
const REMIND_MS = 60_000
const UNWRITTEN =
  "stopped while the root's disk refuses what is to be written; nothing is lost, the next start writes what was claimed"

/** A partition in our possession; `claimed` is up to where Kafka says so, `high` the end of its log at the last fetch. */
type Held = Tenure & { claimed: number; high: number }

/** A batch that waits for its round. */
type Hand = {
  held: Held
  generation: number
  batch: GroupBatch
  messages: KafkaMessage[]
  /** Resolves with whether the batch landed; it did not when its partition was given to another member meanwhile. */
  done: PromiseWithResolvers<boolean>
}

/** What a round holds: told that we live while the disk refuses. */
type Round = readonly { batch: Pick<GroupBatch, 'heartbeat'> }[]

export type SubscriberOptions = {
  group: Pick<Group, 'start' | 'stop' | 'commits' | 'extents' | 'read' | 'begin'>
  ledgerTopic: LedgerTopic
  topic: string
  brokers: readonly string[]
  rootPath: string
  /** The root's UUID: the owner in our claims. */
  owner: string
  checkpoint: Pick<Checkpoint, 'state' | 'append'>
  ledger: Ledger
  landing: Pick<Landing, 'land' | 'count' | 'newest' | 'takeTimes'>
  writer: Pick<Writer, 'flush' | 'sync' | 'unsynced'>
  index: Pick<IndexLog, 'sync'>
  log: Logger
  /** Throws while nothing more may be written, although the disk would take it. */
  admit(): void
  /** Writes so much durable to the root's disk. Throws what that says where it does not take it. */
  probe(bytes: number): void
  clock?: Clock
  /**
   * A new connection to Kafka is about to join.
   * @param again whether another one had joined before
   * @throws ConsumerError when the topic can't be used
   */
  connected(kafka: Kafka, admin: Admin, again: boolean): Promise<void>
  /** The group knows us by this id. */
  joined(memberId: string): void
  /** What is in memory can't be relied on any more: the process has to end, and go on from the checkpoint. */
  failed(error: Error): void
  /** Chunks are in their files. @param times of their first lines, ms since 1970 */
  landed(times: readonly number[]): void
}

export class Subscriber {
  #options: SubscriberOptions
  #clock: Clock
  /** Counts the times that the group gave us partitions; batches of an earlier one are not ours any more. */
  #generation = 0
  #held = new Map<number, Held>()
  #read: TakeOverSources['read']
  /** How far each partition is written, by us. */
  #positions: Map<number, PartitionState>
  #hands: Hand[] = []
  #round: Promise<void> | undefined
  /** How many want to have a turn between two rounds: under a backlog there would never be one by itself. */
  #waiting = 0
  #claimedAt = Number.NEGATIVE_INFINITY
  #breathedAt = Number.NEGATIVE_INFINITY
  /** The disk refused while we were stopping: part of what is claimed is in the ledger, and in no file. */
  #brokenOff = false
  /** Partitions that were written since the last checkpoint. */
  #changed = new Set<number>()
  #checkpointTimer = false
  #checkpointDue = false
  #checkpointAfter = CHECKPOINT_MS
  /** Runs while batches have to wait for room on the disk. */
  #pause: NodeJS.Timeout | undefined
  /** What is done about the assignments, one after the other. */
  #assigning: Promise<void> = Promise.resolve()
  #stopping = new AbortController()
  /** Whether the group was joined once: from then on nothing but a stop ends us. */
  #joined = false
  /** Whether we know where the partitions of an assignment go on, but for those that wait. */
  #opened = false
  /** Partitions that wait to be opened, or for their rest to be written, mostly for a leader. */
  #unopened: ReadonlySet<number> = new Set()
  /** Why one of them could not be opened. */
  #refusal: string | undefined
  /** Partitions of ours that bring nothing for want of a leader. */
  #leaderless: ReadonlySet<number> = new Set()
  #recovered = false
  /** Why we are not ready, by who says so. */
  #troubles = new Map<'kafka' | 'disk' | 'space', string>([['kafka', 'not connected to Kafka yet']])
  #remindedAt = new Map<string, number>()

  constructor(options: SubscriberOptions) {
    this.#options = options
    this.#clock = options.clock ?? realClock
    this.#read = (partition, from, to) => options.group.read(partition, from, to)
    this.#positions = new Map(options.checkpoint.state.partitions)
  }

  /** Why records are not being landed, or undefined while they are. */
  get trouble(): string | undefined {
    return this.#troubles.values().next().value
  }

  /** Records that are not written yet, by partition, as of the last fetch. */
  get lag(): [partition: number, records: number][] {
    return Array.from(this.#held, ([partition, { high, next }]) => [partition, Math.max(0, high - next)])
  }

  /**
   * Whether all that an earlier daemon of this root had claimed is written again. Before that files can hold more than the checkpoint
   * says, and what comes next has to find everything as it was.
   */
  get recovered(): boolean {
    this.#recovered ||=
      this.#opened && this.#unopened.size === 0 && this.#held.values().every(({ next, claimed }) => next >= claimed)
    return this.#recovered
  }

  /** Partitions of ours that are not read at present, because they have no leader that can be reached. */
  get leaderless(): ReadonlySet<number> {
    return this.#unopened.union(this.#leaderless)
  }

  /** What roots that are away have claimed of the partitions that we hold, and have not written. */
  get claimed(): Claimed[] {
    const { ledgerTopic, owner: us } = this.#options
    return ledgerTopic.closed.filter(({ partition, owner }) => owner !== us && this.#held.has(partition))
  }

  /**
   * Joins the group, however long Kafka takes to answer.
   * @throws ConsumerError when the topic can't be used
   */
  async start(): Promise<void> {
    const { group, connected, joined, log } = this.#options
    await group.start({
      connected: (kafka, admin) => connected(kafka, admin, this.#joined),
      joined: (memberId) => {
        this.#joined = true
        joined(memberId)
      },
      assigned: (partitions) => this.#assigned(partitions),
      batch: (batch) => this.#batch(batch),
      leaderless: (partitions) => {
        this.#leaderless = new Set(partitions)
        this.#tellLeaderless()
      },
      away: (error) => {
        if (error instanceof ConsumerError && !this.#joined) throw error
        this.#begin()
        log.debug({ error: error.message }, 'the connection is given up')
        this.#kafkaAway(error.message)
      },
    })
  }

  /**
   * Runs `work` while nothing lands: what it does to files and checkpoint crosses nothing that we do to them.
   * @throws what `work` throws
   */
  async meanwhile<T>(work: () => T | Promise<T>): Promise<T> {
    let outcome: Promise<T>
    await this.#inRound(async () => {
      outcome = (async () => work())()
      await outcome.catch(() => {})
    })
    return outcome!
  }

  /** Brings the checkpoint up to all that has landed, and runs `work` before anything else lands. */
  async checkpointed<T>(work: () => T | Promise<T>): Promise<T> {
    return this.meanwhile(async () => {
      await this.#writeCheckpoint([])
      return work()
    })
  }

  /** Whether a stop left what is claimed to the next daemon, because the disk refused it. */
  get brokenOff(): boolean {
    return this.#brokenOff
  }

  /**
   * Finishes the round under way, writes the checkpoint and leaves the group. Where the disk refuses it, that is left to the next daemon.
   * @returns whether the group was left in good order
   */
  async stop(): Promise<boolean> {
    const { group, ledgerTopic, log } = this.#options
    this.#stopping.abort(new Error('the consumer was stopped'))
    // What waits is not claimed, and whoever reads on has it all.
    for (const { done } of this.#hands.splice(0)) done.resolve(false)
    await this.#inRound(() => this.#writeCheckpoint([])).catch((error: Error) => {
      if (!this.#brokenOff) throw error
      const { rootPath: root } = this.#options
      log.warn({ code: 'DISK_REFUSED', root, error: error.message }, UNWRITTEN)
    })
    // Before the partitions are another's: what is known by then it need not read again.
    const told = this.#held.size > 0 ? ledgerTopic.publish() : Promise.resolve()
    await Promise.race([told, this.#clock.sleep(PUBLISH_MS)]).catch((error: Error) =>
      log.debug({ error: error.message }, 'the ledger’s topic was not brought up to date'),
    )
    ledgerTopic.stop()
    return group.stop()
  }

  #kafkaAway(message: string): void {
    this.#troubles.set('kafka', message)
    this.#remind('kafka', () =>
      this.#options.log.warn(
        { code: 'KAFKA_AWAY', brokers: this.#options.brokers, error: message },
        "Kafka can't be read; nothing is lost, it is tried again. If this lasts, check KAFKA_BROKERS",
      ),
    )
  }

  #remind(what: string, tell: () => void): void {
    const now = this.#clock.now()
    if (now - (this.#remindedAt.get(what) ?? Number.NEGATIVE_INFINITY) < REMIND_MS) return
    this.#remindedAt.set(what, now)
    tell()
  }

  /** The group gave us partitions: finds out where each goes on, before a record of it is read. */
  #assigned(partitions: number[]): void {
    const generation = this.#begin()
    this.#troubles.set('kafka', 'finding out where the partitions go on')
    this.#assigning = this.#assigning.then(() => this.#takeUp(partitions, generation))
  }

  /** What we had is not ours any more. @returns the number of what comes now */
  #begin(): number {
    this.#held = new Map()
    this.#opened = false
    this.#unopened = new Set()
    this.#leaderless = new Set()
    return ++this.#generation
  }

  async #takeUp(partitions: number[], generation: number): Promise<void> {
    const { topic, group, log } = this.#options
    while (generation === this.#generation && !this.#stopping.signal.aborted) {
      try {
        const opened = await this.#open(partitions, generation)
        if (!opened || generation !== this.#generation) return
        group.begin(new Map(opened.map(({ partition, next }) => [partition, next])))
        this.#tellLeaderless()
        this.#troubles.delete('kafka')
        this.#remindedAt.delete('kafka')
        if (opened.length > 0) log.info({ topic, partitions: opened.length, generation }, 'reading')
        if (this.#unopened.size === 0) return
      } catch (error) {
        if (generation !== this.#generation) return
        // Where some are open, the others alone wait.
        if (!this.#opened) this.#kafkaAway((error as Error).message)
      }
      await this.#clock.sleep(RETRY_MS)
    }
  }

  /**
   * Opens those of the partitions that are not open yet, and can be.
   * @returns where these begin; undefined where the partitions are not ours any more by then
   */
  async #open(partitions: number[], generation: number): Promise<(Opening & { partition: number })[] | undefined> {
    const { group, owner, ledger, ledgerTopic, log } = this.#options
    // What an earlier generation had in hand is over by then, one way or the other.
    await this.#inRound(() => this.#writeCheckpoint([]))
    const [found, extents] = await Promise.all([group.commits(), group.extents()])
    const commits = new Map(
      Array.from(found, ([partition, { offset, metadata }]): [number, Commit] => [
        partition,
        { offset, metadata: readMetadata(metadata) },
      ]),
    )
    // Nobody but us has ever claimed anything: there is nothing to read of others. Of a partition that we know, and whose claims are
    // gone with the topic that it was in, that is not said.
    const alone = [...commits].every(([partition, { metadata }]) =>
      metadata ? metadata.owner === owner : !this.#positions.has(partition),
    )
    if (!alone) await ledgerTopic.refresh()
    const waiting = new Set<number>()
    for (const rest of this.#unfinished(commits, partitions)) {
      const { partition, from, to } = rest
      // One that Kafka does not have any more is over. One that it has and can't be asked about is not.
      if (from < to && extents.has(partition) && !extents.get(partition)) waiting.add(partition)
      else await this.#finish(rest, extents.get(partition), generation)
    }
    const opened: { opening: Opening & { partition: number }; taken: TakeOver | undefined; high: number }[] = []
    const open = async (partition: number): Promise<void> => {
      const extent = extents.get(partition)
      if (!extent) throw new Error(`partition ${partition} has no leader that can be reached`)
      const opening = await this.#opening(partition, commits, extent)
      opened.push({ opening, taken: await this.#takeOver(opening, extent), high: extent.high })
    }
    const unopened = partitions.filter((partition) => !this.#held.has(partition))
    let failure: Error | undefined
    await Promise.all(
      unopened.map((partition) =>
        open(partition).catch((error: Error) => {
          failure = error
          waiting.add(partition)
          log.debug({ partition, error: error.message }, 'a partition can’t be read yet')
        }),
      ),
    )
    if (generation !== this.#generation) return undefined
    this.#refusal = failure?.message
    if (failure && opened.length === 0 && this.#held.size === 0) throw failure
    await this.#inRound(async () => {
      for (const { taken } of opened) if (taken) ledger.adopt(taken.partition, taken.runs)
      for (const { opening, taken, high } of opened) this.#enter(opening, high, taken?.beheaded)
      // Before the first claim: what is claimed then is found again with the ledger as it was.
      await this.#writeCheckpoint([])
    })
    if (generation !== this.#generation) return undefined
    for (const { opening, high } of opened) this.#held.set(opening.partition, { ...opening, high })
    this.#unopened = waiting
    ledgerTopic.hold(Array.from(this.#held, ([partition, { tenure, from }]) => ({ partition, tenure, from })))
    if (!this.#opened) void this.#settle(generation)
    this.#opened = true
    return opened.map(({ opening }) => opening)
  }

  #tellLeaderless(): void {
    const { topic, log } = this.#options
    const { leaderless } = this
    if (leaderless.size > 0) {
      this.#remind('leaderless', () =>
        log.warn(
          {
            code: 'PARTITION_AWAY',
            topic,
            partitions: [...leaderless],
            ...(this.#refusal && { error: this.#refusal }),
          },
          'these partitions can’t be read, most often because they have no leader that can be reached; Kafka holds what they have, and the others are read. If this lasts, see to the brokers that hold them',
        ),
      )
    } else if (this.#remindedAt.delete('leaderless')) log.info({ topic }, 'all partitions are read again')
  }

  #unfinished(commits: ReadonlyMap<number, Commit>, assigned: readonly number[]): Unfinished[] {
    const { owner, ledgerTopic } = this.#options
    // One that is open goes on: there is nothing to finish.
    const over = [...commits].filter(([partition]) => !this.#held.has(partition))
    return over.flatMap(([partition, commit]) =>
      unfinished(
        ...([owner, partition, commit, ledgerTopic.closed] as const),
        ...([this.#positions.get(partition), assigned.includes(partition)] as const),
      ),
    )
  }

  /**
   * Hears what others have stored. A tenure of ours that is written is still owed, as far as its successor knows, until we have seen
   * what he stored; which he does after we have lost the partition.
   */
  async #settle(generation: number): Promise<void> {
    const { ledgerTopic, owner, checkpoint } = this.#options
    do {
      try {
        await ledgerTopic.refresh()
        for (const { owner: of, partition, tenure, to } of ledgerTopic.closed) {
          // As it is on the disk: what is forgotten here is not asked for again.
          const position = checkpoint.state.partitions.get(partition)
          if (of !== owner || !position || generation !== this.#generation) continue
          if (position.tenure > tenure || (position.tenure === tenure && position.next >= to))
            await ledgerTopic.release(partition, tenure)
        }
      } catch (error) {
        this.#options.log.debug({ error: (error as Error).message }, 'the ledger’s topic could not be read')
      }
      await this.#clock.sleep(SETTLE_MS, this.#stopping.signal).catch(() => {})
    } while (generation === this.#generation && !this.#stopping.signal.aborted)
  }

  /** Writes what is left of a tenure of ours that is over. */
  async #finish(rest: Unfinished, log: Extent | undefined, generation: number): Promise<void> {
    const { ledgerTopic } = this.#options
    const { partition, tenure, from, to, hash } = rest
    const there = from < to && log && (await this.#holds(partition, to, hash, log))
    const begin = there ? Math.min(Math.max(from, log.low), to) : to
    if (begin > from) await this.#inRound(async () => this.#giveUp(rest, begin, log?.high ?? to))
    if (there && begin < to) {
      await this.#landRest({ ...rest, from: begin }, generation)
      this.#options.log.info({ partition, tenure, from: begin, to }, 'wrote what was claimed before another took over')
    }
    await this.#inRound(async () => {
      const position = this.#positions.get(partition)
      if (from < to && position?.next !== to) this.#move(partition, { ...keptOf(position), next: to, tenure })
      await this.#writeCheckpoint([])
    })
    await ledgerTopic.release(partition, tenure)
  }

  async #landRest({ partition, tenure, from, to }: Unfinished, generation: number): Promise<void> {
    const held: Held = { tenure, from, next: from, claimed: to, high: to }
    for await (const messages of this.#read(partition, from, to)) {
      if (generation !== this.#generation) throw new Error('the group has changed')
      await this.#inRound(() => this.#land(partition, held, messages, []))
    }
  }

  /**
   * Counts as lost what of a tenure of ours Kafka does not have any more: all numbers up to where its successor, who has read it, says that
   * its runs go. What is left of it brings some of them back. The position moves with the counts, so that they are counted once.
   * @param begin where what is left begins
   * @param high the log's end
   */
  #giveUp({ partition, tenure, from, to }: Unfinished, begin: number, high: number): void {
    const { ledger, ledgerTopic, topic, log } = this.#options
    this.#expire(partition, begin - from, high)
    this.#move(partition, { ...keptOf(this.#positions.get(partition)), next: begin, tenure })
    const of = (each: Claimed) => each.partition === partition && each.tenure === tenure
    const { runs, totals } = ledgerTopic.closed.find(of) ?? { runs: [], totals: [] }
    let lines = 0
    for (const { run, of, container, high, ended } of runs) {
      lines += ledger.lose(run, partition, { ...totals[of]!, container: { name: container } }, high, ended)
    }
    log.error(
      { code: 'RECORDS_EXPIRED', topic, partition, tenure, from, to: begin, claimed: to, lines },
      'Kafka does not have records any more that this root had claimed and not written: so many lines are lost, but for those that it still has up to the end of the claim. Give the topic a longer retention',
    )
  }

  /** Whether the record before an offset is the one that had this hash, as far as that can be told. */
  async #holds(partition: number, offset: number, hash: number | undefined, { low, high }: Extent): Promise<boolean> {
    if (offset > high) return false
    if (hash === undefined || offset <= low) return true
    return (await hashAt(this.#read, partition, offset - 1)) === hash
  }

  async #opening(
    partition: number,
    commits: ReadonlyMap<number, Commit>,
    extent: Extent,
  ): Promise<Opening & { partition: number }> {
    const { owner } = this.#options
    const commit = commits.get(partition) ?? { offset: -1, metadata: undefined }
    const position = this.#positions.get(partition)
    const intact =
      !position || position.next > extent.high || (await this.#holds(partition, position.next, position.hash, extent))
    return { partition, ...openTenure(owner, commit, position, extent, intact) }
  }

  /** Learns what the root before us has come to, and stores what it owes, before anything is claimed. */
  async #takeOver({ partition, closes }: Opening & { partition: number }, log: Extent): Promise<TakeOver | undefined> {
    if (!closes) return undefined
    const { landing, ledgerTopic } = this.#options
    const closed: ClosedTenure = { partition, ...closes }
    const taken = await takeOver({ ledgerTopic, landing, read: this.#read }, closed, log)
    await ledgerTopic.close(taken.claimed)
    const { uncounted, owner: root } = taken.claimed
    if (uncounted > 0) {
      this.#options.log.error(
        { code: 'RECORDS_EXPIRED', partition, root, records: uncounted },
        'Kafka dropped records that another root had claimed, before that said that it wrote them and anybody counted their lines; give the topic a longer retention. Start the consumer of that root again, to have counted what it did not write',
      )
    }
    return taken
  }

  /**
   * Enters where a partition goes on.
   * @param high the log's end
   * @param beheaded whether records were dropped of which the root before us had not said what runs they were of
   */
  #enter(opening: Opening & { partition: number }, high: number, beheaded = false): void {
    const { partition, tenure, next, expired, headless, recreated } = opening
    this.#tellOpening(partition, expired, recreated)
    if (expired > 0 || headless || beheaded) this.#expire(partition, expired, high)
    const position = this.#positions.get(partition)
    if (position?.tenure === tenure && position.next === next) return
    this.#move(partition, { ...keptOf(position), next, tenure })
  }

  #expire(partition: number, records: number, high: number): void {
    const position = this.#positions.get(partition)
    this.#options.ledger[records > 0 ? 'expire' : 'behead'](partition, high)
    const expired = (position?.expired ?? 0) + records
    this.#move(partition, { next: 0, tenure: 0, ...position, expired, expiredTo: high })
  }

  #move(partition: number, position: PartitionState): void {
    this.#positions.set(partition, position)
    this.#changed.add(partition)
  }

  #tellOpening(partition: number, expired: number, recreated: boolean): void {
    const { log } = this.#options
    if (expired > 0) {
      log.error(
        { code: 'RECORDS_EXPIRED', partition, records: expired },
        'Kafka dropped records before they were read; give the topic a longer retention',
      )
    }
    if (recreated) {
      log.error(
        { code: 'TOPIC_RECREATED', partition },
        'the partition is not the one that was read: the topic was recreated, and is read from its beginning',
      )
    }
  }

  async #batch(batch: GroupBatch): Promise<boolean> {
    const held = this.#held.get(batch.partition)
    if (!held || this.#stopping.signal.aborted) return false
    if (this.#leaderless.has(batch.partition)) {
      this.#leaderless = this.#leaderless.difference(new Set([batch.partition]))
      this.#tellLeaderless()
    }
    held.high = batch.high
    const messages = batch.messages.filter(({ offset }) => Number(offset) >= held.next)
    if (messages.length === 0) return true
    const hand: Hand = { held, generation: this.#generation, batch, messages, done: Promise.withResolvers() }
    this.#hands.push(hand)
    this.#kick()
    return hand.done.promise
  }

  /** Starts rounds, unless one is under way, and goes on as long as there is something to do. */
  #kick(): void {
    this.#round ??= this.#rounds().finally(() => {
      this.#round = undefined
      if (this.#due) this.#kick()
    })
  }

  /** Whether there is something to do that may be done now. */
  get #due(): boolean {
    if (this.#waiting > 0) return false
    return this.#checkpointDue || (this.#hands.length > 0 && this.#pause === undefined)
  }

  async #rounds(): Promise<void> {
    while (this.#due) {
      const wait = this.#claimedAt + CLAIM_APART_MS - this.#clock.now()
      if (this.#hands.length > 0 && wait > 0) await this.#clock.sleep(wait)
      // What one fetch has brought comes in one turn, partition by partition.
      else await this.#clock.turn()
      const hands = this.#admitted() ? this.#hands.splice(0) : []
      try {
        const claimed = await this.#claim(hands)
        this.#breathedAt = this.#clock.now()
        for (const { batch, held, messages } of claimed) await this.#land(batch.partition, held, messages, claimed)
        if (this.#checkpointDue) await this.#writeCheckpoint(claimed)
        void this.#release(claimed)
      } catch (error) {
        for (const hand of hands) hand.done.reject(error)
      }
    }
  }

  /** Lets kafkajs go on with what has landed, as soon as there may be another claim. */
  async #release(hands: readonly Hand[]): Promise<void> {
    const wait = this.#claimedAt + CLAIM_APART_MS - this.#clock.now()
    if (wait > 0) await this.#clock.sleep(wait)
    for (const { done } of hands) done.resolve(true)
  }

  /** Runs `work` when no round is under way, and keeps rounds away meanwhile. */
  async #inRound(work: () => Promise<void>): Promise<void> {
    this.#waiting++
    while (this.#round) await this.#round.catch(() => {})
    this.#waiting--
    this.#round = work()
    try {
      await this.#round
    } finally {
      this.#round = undefined
      if (this.#due) this.#kick()
    }
  }

  /**
   * Whether batches may be taken up. While not they wait, unclaimed; rounds go on without them, because making room
   * needs the checkpoint.
   */
  #admitted(): boolean {
    if (this.#pause !== undefined) return false
    const { admit, log } = this.#options
    try {
      admit()
      if (this.#troubles.delete('space')) log.info('there is room on the disk again; going on')
      return true
    } catch (error) {
      const { message } = error as Error
      this.#troubles.set('space', message)
      this.#remind('space', () => log.warn({ code: 'DISK_NEARLY_FULL' }, message))
      this.#pause = setTimeout(() => {
        this.#pause = undefined
        const hands = this.#hands.splice(0)
        for (const hand of hands) {
          if (hand.generation === this.#generation) this.#hands.push(hand)
          else hand.done.resolve(false)
        }
        for (const hand of this.#hands) hand.batch.heartbeat().catch(() => {})
        if (this.#admitted()) this.#kick()
      }, RETRY_MS)
      return false
    }
  }

  /**
   * Claims the batches for our root.
   * @returns those that are ours; the others belong to an earlier generation and have been turned away
   * @throws Error when Kafka refuses, or does not say whether it took the claim
   */
  async #claim(hands: Hand[]): Promise<Hand[]> {
    const { owner } = this.#options
    // kafkajs takes up a new generation within one turn, and tells us at its end: in between a commit would be made in the new one for
    // what the old one brought.
    await this.#clock.turn()
    const current = hands.filter((hand) => hand.generation === this.#generation)
    for (const hand of hands) if (!current.includes(hand)) hand.done.resolve(false)
    const claims = current.flatMap(({ batch: { partition }, held, messages }) => {
      const offset = Number(messages.at(-1)!.offset) + 1
      return offset > held.claimed
        ? [{ held, commit: { partition, offset, metadata: writeMetadata(owner, held) } }]
        : []
    })
    if (claims.length === 0) return current
    this.#claimedAt = this.#clock.now()
    await current[0]!.batch.commit(claims.map(({ commit }) => commit))
    for (const { held, commit } of claims) held.claimed = commit.offset
    return current
  }

  /** Writes what is claimed. It is ours to finish even if the group moves on meanwhile: a successor starts behind it. */
  async #land(partition: number, held: Held, messages: KafkaMessage[], round: Round): Promise<void> {
    const { landing, writer } = this.#options
    const insist = async (work: () => void) => {
      await this.#insist(round, work)
      if (this.#outOfBreath) await this.#breathe(round)
    }
    let hash: number | undefined
    try {
      for (const message of messages) {
        // Before it is landed: its bytes are gone then.
        if (message === messages.at(-1)) hash = recordHash(message)
        await landing.land(partition, message, insist)
        held.next = Number(message.offset) + 1
        if (this.#outOfBreath) await this.#breathe(round)
      }
    } catch (error) {
      // Half of a record is in the ledger: taken up again it would be dropped as doubled. From the checkpoint on it is all done again.
      if (!this.#brokenOff) this.#options.failed(error as Error)
      throw error
    }
    await insist(() => writer.flush())
    this.#options.landed(landing.takeTimes())
    const { next, tenure } = held
    this.#move(partition, {
      ...keptOf(this.#positions.get(partition)),
      next,
      tenure,
      ...(hash !== undefined && { hash }),
    })
    this.#scheduleCheckpoint()
  }

  #scheduleCheckpoint(): void {
    if (this.#checkpointTimer) return
    this.#checkpointTimer = true
    void this.#clock.sleep(this.#checkpointAfter).then(() => {
      this.#checkpointTimer = false
      this.#checkpointDue = true
      this.#kick()
    })
  }

  async #writeCheckpoint(round: Round): Promise<void> {
    this.#checkpointDue = false
    if (this.#brokenOff) throw new Error(UNWRITTEN)
    if (this.#changed.size === 0) return
    const began = this.#clock.now()
    const { checkpoint, ledger, landing, writer, index } = this.#options
    const delta = {
      partitions: Array.from(this.#changed, (partition): [number, PartitionState] => [
        partition,
        this.#positions.get(partition)!,
      ]),
      files: [] as ReturnType<Writer['sync']>,
      index: [] as ReturnType<IndexLog['sync']>,
      ...ledger.takeChanges(),
      appended: landing.newest,
    }
    this.#changed.clear()
    // A batch that was broken off is in the ledger already: its bytes have to be in the files by then, too.
    await this.#insist(round, () => writer.flush())
    await this.#durable(round, () => {
      delta.files.push(...writer.sync())
    })
    await this.#insist(round, () => {
      delta.index.push(...index.sync())
    })
    await this.#insist(round, () => checkpoint.append(delta))
    this.#options.ledgerTopic.note(delta)
    const took = this.#clock.now() - began
    this.#checkpointAfter = Math.min(Math.max(CHECKPOINT_MS, took / CHECKPOINT_SHARE), MAX_CHECKPOINT_MS)
  }

  /**
   * Makes durable what was flushed; once, or it is the end. Where the disk refuses, Linux lets go of what was to be written, and says from
   * then on that all is durable: the checkpoint would say so too, and the bytes would be gone with the page cache.
   */
  async #durable(round: Round, work: () => void): Promise<void> {
    try {
      work()
    } catch (error) {
      let refusal: unknown = error
      const { unsynced } = this.#options.writer
      await this.#insist(round, () => {
        if (refusal === undefined) return this.#options.probe(unsynced)
        refusal = undefined
        throw error
      })
      const lost = new ConsumerError(
        'DISK_REFUSED',
        `the root's disk lost what it was given (${(error as Error).message}) and takes bytes again: what it lost is written again at the next start`,
      )
      this.#options.failed(lost)
      throw lost
    }
  }

  /** Whether records have taken long enough. */
  get #outOfBreath(): boolean {
    return this.#clock.now() - this.#breathedAt >= BREATHE_MS
  }

  /** Gives others their turn. */
  async #breathe([first]: Round): Promise<void> {
    first?.batch.heartbeat().catch(() => {})
    await this.#clock.turn()
    this.#breathedAt = this.#clock.now()
  }

  /**
   * Does what the disk may refuse, until it does not.
   * @throws what the disk says, once we are stopping
   */
  async #insist(round: Round, work: () => void): Promise<void> {
    for (;;) {
      try {
        work()
        if (this.#troubles.delete('disk')) this.#options.log.info('the disk takes bytes again')
        return
      } catch (error) {
        if (this.#stopping.signal.aborted) {
          this.#brokenOff = true
          throw error
        }
        const { message } = error as Error
        this.#troubles.set('disk', message)
        this.#remind('disk', () =>
          this.#options.log.warn(
            { code: 'DISK_REFUSED', root: this.#options.rootPath, error: message },
            "the root's disk refuses what is to be written; nothing is lost, Kafka holds it. Make room, or mend the disk",
          ),
        )
        for (const { batch } of round) await batch.heartbeat().catch(() => {})
        await this.#clock.sleep(RETRY_MS, this.#stopping.signal).catch(() => {})
      }
    }
  }
}

/** What of a position is kept where it moves without a record. */
const keptOf = ({
  expired,
  expiredTo,
}: Partial<PartitionState> = {}): Pick<PartitionState, 'expired' | 'expiredTo'> => ({
  ...(expired !== undefined && { expired }),
  ...(expiredTo !== undefined && { expiredTo }),
})
