/**
 * The subscriber: a member of the consumer group that claims, lands and checkpoints the batches of its partitions.
 *
 * A round takes every batch in hand: one claim for all of them, then their records to the files. Rounds are one at a
 * time, so state has one writer; while one runs, kafkajs fetches, and the batches of the next one gather.
 *
 * Invariants
 * - Nothing is written that was not claimed in this generation of the group. A claim that is refused, or whose fate is unknown, ends
 *   the batch with nothing written: kafkajs joins again, and what Kafka holds then decides where we go on.
 * - Commits are made inside eachBatch, awaited, and by nobody else: a commit from a timer can move a group back.
 * - The checkpoint follows the files between rounds, at most CHECKPOINT_MS later. Behind it the same bytes are written again.
 * - A disk that refuses stops the rounds and nothing else: Kafka holds the records, heartbeats go on, it is tried again.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Admin, Consumer, EachBatchPayload, Kafka, KafkaMessage } from 'kafkajs'
import type { Logger } from 'pino'
import type { Checkpoint, PartitionState } from './checkpoint.ts'
import { openTenure, readMetadata, type Tenure, writeMetadata } from './claims.ts'
import { ConsumerError } from './errors.ts'
import type { IndexLog } from './index-log.ts'
import type { Landing } from './landing.ts'
import type { Ledger } from './ledger.ts'
import type { Membership } from './membership.ts'
import type { Settings } from './settings.ts'
import { ensureTopic } from './topic.ts'
import type { Writer } from './writer.ts'

/** Claims are made at least this far apart: under many small batches one claim carries them all. */
const CLAIM_APART_MS = 10
const CHECKPOINT_MS = 200
const RETRY_MS = 500
/** While Kafka or the disk is away it is told this often. */
const REMIND_MS = 60_000
/** As many partitions are worked on at a time: each waits in its eachBatch until the round that holds it is over. */
const CONCURRENT_PARTITIONS = 64

/** A partition in our possession; `claimed` is up to where Kafka says so, `high` the end of its log at the last fetch. */
type Held = Tenure & { claimed: number; high: number }

/** A batch that waits for its round. */
type Hand = {
  partition: number
  held: Held
  generation: number
  messages: KafkaMessage[]
  commit: EachBatchPayload['commitOffsetsIfNecessary']
  heartbeat: EachBatchPayload['heartbeat']
  /** Resolves with whether the batch landed; it did not when its partition was given to another member meanwhile. */
  done: PromiseWithResolvers<boolean>
}

export type SubscriberOptions = {
  kafka: Kafka
  settings: Settings
  /** The root's UUID: the owner in our claims. */
  owner: string
  membership: Membership
  checkpoint: Checkpoint
  ledger: Ledger
  landing: Landing
  writer: Writer
  index: IndexLog
  log: Logger
  /** Throws while nothing more may be written, although the disk would take it. */
  admit(): void
  /** Chunks are in their files. @param times of their first lines, ms since 1970 */
  landed(times: readonly number[]): void
}

export class Subscriber {
  #options: SubscriberOptions
  #admin: Admin | undefined
  #consumer: Consumer | undefined
  /** Counts the times that the group gave us partitions; batches of an earlier one are not ours any more. */
  #generation = 0
  #held = new Map<number, Held>()
  #hands: Hand[] = []
  #round: Promise<void> | undefined
  #claimedAt = -CLAIM_APART_MS
  /** Partitions that were written since the last checkpoint. */
  #changed = new Map<number, PartitionState>()
  #checkpointTimer: NodeJS.Timeout | undefined
  #checkpointDue = false
  /** Runs while batches have to wait for room on the disk. */
  #pause: NodeJS.Timeout | undefined
  #stopping = new AbortController()
  /** Why we are not ready, by who says so. */
  #troubles = new Map<'kafka' | 'disk' | 'space', string>([['kafka', 'not connected to Kafka yet']])
  #remindedAt = new Map<string, number>()

  constructor(options: SubscriberOptions) {
    this.#options = options
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
   * Joins the group, however long Kafka takes to answer.
   * @throws ConsumerError when the topic can't be used
   */
  async start(): Promise<void> {
    const { settings, kafka, log } = this.#options
    while (!this.#stopping.signal.aborted) {
      this.#admin = kafka.admin()
      this.#consumer = kafka.consumer({
        groupId: settings.KAFKA_GROUP,
        sessionTimeout: 6_000,
        heartbeatInterval: 1_500,
        rebalanceTimeout: 10_000,
        maxWaitTimeInMs: 250,
        maxBytes: 2 * 1024 * 1024,
        metadataMaxAge: 10_000,
        allowAutoTopicCreation: false,
        retry: { retries: 5, initialRetryTime: 100, maxRetryTime: 1_000, restartOnFailure: async () => true },
      })
      try {
        await this.#admin.connect()
        await this.#options.membership.leaveForTheDead(kafka, settings.KAFKA_GROUP)
        await ensureTopic(this.#admin, settings, log)
        await this.#subscribe(this.#consumer)
        return
      } catch (error) {
        if (error instanceof ConsumerError) throw error
        this.#kafkaAway((error as Error).message)
        await Promise.allSettled([this.#consumer.disconnect(), this.#admin.disconnect()])
        await sleep(RETRY_MS, undefined, { signal: this.#stopping.signal }).catch(() => {})
      }
    }
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

  /** Finishes the round under way, writes the checkpoint and leaves the group. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the consumer was stopped'))
    // What waits for room is not claimed, and whoever reads on has it all.
    if (this.#pause !== undefined) for (const hand of this.#hands.splice(0)) hand.done.resolve(false)
    await this.#consumer?.stop().catch(() => {})
    await this.#round
    await this.#inRound(() => this.#writeCheckpoint([]))
    const [left] = await Promise.allSettled([this.#consumer?.disconnect(), this.#admin?.disconnect()])
    if (left.status === 'fulfilled') this.#options.membership.left()
  }

  async #subscribe(consumer: Consumer): Promise<void> {
    const { KAFKA_TOPIC: topic } = this.#options.settings
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
      this.#options.membership.joined(payload.memberId)
      void this.#assigned(payload.memberAssignment[topic] ?? [])
    })
    consumer.on(consumer.events.CRASH, ({ payload }) => this.#kafkaAway(payload.error.message))
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: CONCURRENT_PARTITIONS,
      eachBatch: (payload) => this.#eachBatch(payload),
    })
  }

  #kafkaAway(message: string): void {
    this.#troubles.set('kafka', message)
    this.#remind('kafka', () =>
      this.#options.log.warn(
        { code: 'KAFKA_AWAY', brokers: this.#options.settings.KAFKA_BROKERS, error: message },
        "Kafka can't be read; nothing is lost, it is tried again. If this lasts, check KAFKA_BROKERS",
      ),
    )
  }

  #remind(what: string, tell: () => void): void {
    const now = performance.now()
    if (now - (this.#remindedAt.get(what) ?? Number.NEGATIVE_INFINITY) < REMIND_MS) return
    this.#remindedAt.set(what, now)
    tell()
  }

  /** The group gave us partitions: find out where each goes on, before a record of it is fetched. */
  async #assigned(partitions: number[]): Promise<void> {
    const { settings, log } = this.#options
    const topic = settings.KAFKA_TOPIC
    const consumer = this.#consumer!
    const generation = ++this.#generation
    this.#held = new Map()
    if (partitions.length > 0) consumer.pause([{ topic, partitions }])
    while (generation === this.#generation && !this.#stopping.signal.aborted) {
      try {
        const held = await this.#open(partitions)
        if (generation !== this.#generation) return
        this.#held = held
        for (const [partition, { next }] of held) consumer.seek({ topic, partition, offset: String(next) })
        if (partitions.length > 0) consumer.resume([{ topic, partitions }])
        this.#troubles.delete('kafka')
        this.#remindedAt.delete('kafka')
        log.info({ topic, partitions: partitions.length, generation }, 'reading')
        return
      } catch (error) {
        this.#kafkaAway((error as Error).message)
        await this.#admin!.connect().catch(() => {})
        await sleep(RETRY_MS)
      }
    }
  }

  async #open(partitions: number[]): Promise<Map<number, Held>> {
    const { settings, owner, checkpoint } = this.#options
    const topic = settings.KAFKA_TOPIC
    // What an earlier generation wrote has to be in the checkpoint, for it says where we go on.
    await this.#inRound(() => this.#writeCheckpoint([]))
    const [commits, logs] = await Promise.all([
      this.#admin!.fetchOffsets({ groupId: settings.KAFKA_GROUP, topics: [topic] }),
      this.#admin!.fetchTopicOffsets(topic),
    ])
    const held = new Map<number, Held>()
    for (const partition of partitions) {
      const found = commits[0]?.partitions.find((p) => p.partition === partition)
      const log = logs.find((p) => p.partition === partition)
      if (!log) throw new Error(`partition ${partition} of ${topic} has no leader`)
      const commit = { offset: Number(found?.offset ?? -1), metadata: readMetadata(found?.metadata) }
      const extent = { low: Number(log.low), high: Number(log.high) }
      const opening = openTenure(owner, commit, checkpoint.state.partitions.get(partition), extent)
      this.#tellOpening(partition, opening.expired, opening.recreated)
      const ours = commit.metadata?.owner === owner && commit.metadata.tenure === opening.tenure
      held.set(partition, { ...opening, claimed: ours ? commit.offset : opening.next, high: extent.high })
    }
    return held
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
        'the partition is shorter than what was read of it: the topic was recreated, and is read from its beginning',
      )
    }
  }

  async #eachBatch({
    batch,
    resolveOffset,
    heartbeat,
    commitOffsetsIfNecessary,
    isRunning,
    isStale,
  }: EachBatchPayload): Promise<void> {
    const held = this.#held.get(batch.partition)
    // Fetched before we knew where to go on: not resolved, so it is fetched again from there.
    if (!held || !isRunning() || isStale() || this.#stopping.signal.aborted) return
    held.high = Number(batch.highWatermark)
    const hand: Hand = {
      partition: batch.partition,
      held,
      generation: this.#generation,
      messages: batch.messages.filter(({ offset }) => Number(offset) >= held.next),
      commit: commitOffsetsIfNecessary,
      heartbeat,
      done: Promise.withResolvers(),
    }
    if (hand.messages.length > 0) {
      this.#hands.push(hand)
      this.#kick()
      if (!(await hand.done.promise)) return
    }
    resolveOffset(batch.lastOffset())
    await heartbeat()
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
    return this.#checkpointDue || (this.#hands.length > 0 && this.#pause === undefined)
  }

  async #rounds(): Promise<void> {
    while (this.#due) {
      const wait = this.#claimedAt + CLAIM_APART_MS - performance.now()
      if (this.#hands.length > 0 && wait > 0) await sleep(wait)
      const hands = this.#admitted() ? this.#hands.splice(0) : []
      try {
        const claimed = await this.#claim(hands)
        for (const hand of claimed) await this.#land(hand, claimed)
        if (this.#checkpointDue) await this.#writeCheckpoint(claimed)
        for (const hand of claimed) hand.done.resolve(true)
      } catch (error) {
        for (const hand of hands) hand.done.reject(error)
      }
    }
  }

  /** Runs `work` when no round is under way, and keeps rounds away meanwhile. */
  async #inRound(work: () => Promise<void>): Promise<void> {
    while (this.#round) await this.#round
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
        for (const hand of this.#hands) hand.heartbeat().catch(() => {})
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
    const { settings, owner } = this.#options
    const current = hands.filter((hand) => hand.generation === this.#generation)
    for (const hand of hands) if (!current.includes(hand)) hand.done.resolve(false)
    const claims = current.flatMap(({ partition, held, messages }) => {
      const end = Number(messages.at(-1)!.offset) + 1
      return end > held.claimed ? [{ held, partition, offset: String(end), metadata: writeMetadata(owner, held) }] : []
    })
    if (claims.length === 0) return current
    this.#claimedAt = performance.now()
    const partitions = claims.map(({ partition, offset, metadata }) => ({ partition, offset, metadata }))
    await current[0]!.commit({ topics: [{ topic: settings.KAFKA_TOPIC, partitions }] })
    for (const { held, offset } of claims) held.claimed = Number(offset)
    return current
  }

  /** Writes what is claimed. It is ours to finish even if the group moves on meanwhile: a successor starts behind it. */
  async #land({ partition, held, messages }: Hand, round: Hand[]): Promise<void> {
    const { landing, writer } = this.#options
    const flush = () => this.#insist(round, () => writer.flush())
    for (const message of messages) {
      await landing.land(partition, message, flush)
      held.next = Number(message.offset) + 1
    }
    await flush()
    this.#options.landed(landing.takeTimes())
    this.#changed.set(partition, { next: held.next, tenure: held.tenure })
    this.#scheduleCheckpoint()
  }

  #scheduleCheckpoint(): void {
    this.#checkpointTimer ??= setTimeout(() => {
      this.#checkpointTimer = undefined
      this.#checkpointDue = true
      this.#kick()
    }, CHECKPOINT_MS)
  }

  async #writeCheckpoint(round: Hand[]): Promise<void> {
    this.#checkpointDue = false
    if (this.#changed.size === 0) return
    const { checkpoint, ledger, writer, index } = this.#options
    const delta = {
      partitions: [...this.#changed],
      files: [] as ReturnType<Writer['sync']>,
      index: [] as ReturnType<IndexLog['sync']>,
      ...ledger.takeChanges(),
    }
    this.#changed.clear()
    // A batch that was broken off is in the ledger already: its bytes have to be in the files by then, too.
    await this.#insist(round, () => writer.flush())
    await this.#insist(round, () => {
      delta.files.push(...writer.sync())
    })
    await this.#insist(round, () => {
      delta.index.push(...index.sync())
    })
    await this.#insist(round, () => checkpoint.append(delta))
  }

  /** Does what the disk may refuse, until it does not. */
  async #insist(round: Hand[], work: () => void): Promise<void> {
    for (;;) {
      try {
        work()
        if (this.#troubles.delete('disk')) this.#options.log.info('the disk takes bytes again')
        return
      } catch (error) {
        const { message } = error as Error
        this.#troubles.set('disk', message)
        this.#remind('disk', () =>
          this.#options.log.warn(
            { code: 'DISK_REFUSED', root: this.#options.settings.ROOT, error: message },
            "the root's disk refuses what is to be written; nothing is lost, Kafka holds it. Make room, or mend the disk",
          ),
        )
        for (const hand of round) await hand.heartbeat().catch(() => {})
        await sleep(RETRY_MS)
      }
    }
  }
}
