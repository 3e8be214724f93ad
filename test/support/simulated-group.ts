/**
 * A simulated Kafka and roots on it: the consumer's own subscriber, ledger and landing, over brokers, a group, disks and a clock that do
 * what a seed says, one step at a time.
 *
 * Every answer of Kafka, and every sleep, is a step that waits here until it is drawn; between two steps anything may happen: a process
 * is killed, paused, woken, started, loses its connection, or the group is dealt out anew. What is killed never hears of its steps again.
 * The disks hold what was written, also what no checkpoint knows of; now and then one refuses, or loses what it was to make durable.
 * Or they are real ones, in folders, of hosts that lose power.
 */
import type { KafkaMessage } from 'kafkajs'
import pino from 'pino'
import { type Delta, emptyState, type FileState, type State } from '../../consumer/checkpoint.ts'
import { Days } from '../../consumer/days.ts'
import { ConsumerError } from '../../consumer/errors.ts'
import { Landing, type LandingOptions } from '../../consumer/landing.ts'
import { Layout } from '../../consumer/layout.ts'
import { enterCounters, expiredOf, Ledger } from '../../consumer/ledger.ts'
import { type LedgerLog, LedgerTopic } from '../../consumer/ledger-topic.ts'
import { Subscriber, type SubscriberOptions } from '../../consumer/subscriber.ts'
import type { Clock } from '../../wire/clock.ts'
import type { GroupEvents } from '../../wire/group.ts'
import { record, type Said } from './landing.ts'
import { PowerCut } from './power.ts'

const log = pino({ level: 'silent' })
const days = new Days('UTC')
const TOPIC = 't'
/** At most so many records come in one batch. */
const BATCH = 4

/** Reproducible: the same seed, the same numbers (mulberry32). */
export function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** What waits to happen to a process, at `due` at the earliest. */
type Step = { of: Process; due: number; run(): void }

type Row = { key: string; value: string | null }

export class SimulatedKafka {
  now = 0
  /** A step takes up to so long, ms. */
  pace = 20
  /** Whether disks refuse. */
  disturbed = true
  readonly draw: () => number
  readonly log: KafkaMessage[][]
  /** Where each partition begins. */
  readonly low: number[]
  readonly commits = new Map<number, { offset: number; metadata: string }>()
  readonly ledger: Row[][]
  steps: Step[] = []
  /** Members in the order in which they joined. One that is dead or paused is in it until its session is over. */
  members: Process[] = []
  generation = 0

  constructor(draw: () => number, partitions: number) {
    this.draw = draw
    this.log = Array.from({ length: partitions }, () => [])
    this.low = this.log.map(() => 0)
    this.ledger = Array.from({ length: partitions + 1 }, () => [])
  }

  /** Records that nobody has claimed. */
  get unclaimed(): number {
    return this.log.reduce((sum, { length }, i) => sum + Math.max(0, length - (this.commits.get(i)?.offset ?? 0)), 0)
  }

  /** Tenures that are over, and of which nobody has said that they are written. */
  get tenures(): number {
    const last = new Map(this.ledger[0]!.map(({ key, value }) => [key, value]))
    return [...last.values()].filter((value) => value !== null).length
  }

  /** A number below `n`. */
  below(n: number): number {
    return Math.floor(this.draw() * n)
  }

  /** Stores numbered lines of a run. */
  append(partition: number, run: number, first: number, count: number, when: Pick<Said, 'ms' | 'appended'> = {}): void {
    const log = this.log[partition]!
    log.push(record(log.length, { partition, module: `m${run}`, run, first, count, bytes: 0, ...when }).message)
  }

  /** Records up to an offset are past the topic's retention. */
  expire(partition: number, to: number): void {
    this.low[partition] = Math.max(this.low[partition]!, to)
  }

  /** The topic is deleted, with what groups have committed of it, and made anew. */
  recreate(): void {
    this.commits.clear()
    for (const partition of this.log.keys()) {
      this.log[partition] = []
      this.low[partition] = 0
    }
  }

  /** @throws Error where the first of them is past the retention, or not there yet */
  records(partition: number, from: number, to: number): KafkaMessage[] {
    const log = this.log[partition]!
    if (from < this.low[partition]! || from > log.length) throw new Error('OFFSET_OUT_OF_RANGE')
    return log.slice(from, to)
  }

  /** Up to here it is known what the runs of a partition have come to, by the mark of the latest tenure that has one. */
  known(partition: number): number {
    const marks = this.ledger.flat().flatMap(({ key, value }) => {
      const [what, , of, tenure] = JSON.parse(key) as [string, string, number, number]
      if (what !== 'mark' || of !== partition || value === null) return []
      return [{ tenure, at: (JSON.parse(value) as { at: number }).at }]
    })
    return marks.reduce((last, mark) => (mark.tenure >= last.tenure ? mark : last), { tenure: 0, at: 0 }).at
  }

  /** Deals the partitions out among the members, at random. */
  rebalance(): void {
    this.generation++
    const generation = this.generation
    const shares = new Map(this.members.map((member): [Process, number[]] => [member, []]))
    if (this.members.length > 0)
      for (const partition of this.log.keys())
        shares.get(this.members[this.below(this.members.length)]!)!.push(partition)
    for (const [member, partitions] of shares) {
      this.later(member, () => {
        if (generation === this.generation && this.members.includes(member)) member.learn(generation, partitions)
      })
    }
  }

  leave(member: Process): void {
    if (!this.members.includes(member)) return
    this.members = this.members.filter((each) => each !== member)
    this.rebalance()
  }

  later(of: Process, run: () => void, ms = 0): void {
    this.steps.push({ of, run, due: this.now + ms })
  }

  /** Does one of the steps that are due, or lets time pass until one is. @returns false where nobody waits for anything */
  async step(): Promise<boolean> {
    const live = this.steps.filter(({ of }) => !of.dead)
    this.steps = live
    const awake = live.filter(({ of }) => !of.paused)
    if (awake.length === 0) return false
    let due = awake.filter((step) => step.due <= this.now)
    if (due.length === 0) {
      this.now = Math.min(...awake.map((step) => step.due))
      due = awake.filter((step) => step.due <= this.now)
    }
    const step = due[this.below(due.length)]!
    this.steps.splice(this.steps.indexOf(step), 1)
    this.now += this.below(this.pace)
    step.run()
    // Whatever follows from it without waiting.
    await new Promise((resolve) => setImmediate(resolve))
    return true
  }
}

/** What a daemon finds on its root, and works with. */
export type Opened = Pick<SubscriberOptions, 'checkpoint' | 'ledger' | 'landing' | 'writer' | 'index' | 'probe'> & {
  /** A pass of housekeeping, where there is any. */
  keep?(stop: AbortSignal): Promise<void>
  /** Nothing is done any more. */
  close?(): void
}

export type Root = {
  readonly owner: string
  /** What is durable. */
  readonly state: State
  /** What its files hold, as far as its checkpoint says. */
  readonly lines: string[]
  open(kafka: SimulatedKafka, process: Process): Opened
}

/** A root in memory. */
export class SimulatedRoot implements Root {
  readonly owner: string
  readonly files = new Map<string, string[]>()
  state: State = emptyState()

  constructor(owner: string) {
    this.owner = owner
  }

  get lines(): string[] {
    return Array.from(this.files, ([name, pieces]) => pieces.slice(0, this.state.files.get(name)?.length ?? 0))
      .flat()
      .flatMap((piece) => piece.split('\n').filter(Boolean))
  }

  open(kafka: SimulatedKafka): Opened {
    const state = structuredClone(this.state)
    const ledger = new Ledger(structuredClone({ runs: state.runs, totals: state.totals }), expiredOf(state))
    const disk = new SimulatedDisk(kafka, this, state)
    const writer = disk.writer()
    const index = { add: () => {}, sync: () => [] }
    const landing = new Landing({
      ...{ topic: TOPIC, ledger, layout: new Layout('text', days, 7) },
      ...({ writer, index, letters: undefined } as unknown as Pick<LandingOptions, 'writer' | 'index' | 'letters'>),
    })
    const checkpoint = { state, append: (delta: Partial<Delta>) => disk.append(delta) }
    return { checkpoint, ledger, landing, writer, index, probe: () => disk.refuse(0.5) }
  }
}

/** A daemon on a root. */
export class Process {
  dead = false
  paused = false
  readonly root: Root
  readonly subscriber: Subscriber
  /** The simulated one: each sleep is a step. */
  readonly clock: Clock
  #kafka: SimulatedKafka
  #opened: Opened
  #pass: Promise<void> | undefined
  #stopping = new AbortController()
  #events!: GroupEvents
  #generation = -1
  #positions = new Map<number, { next: number; busy: boolean }>()

  constructor(kafka: SimulatedKafka, root: Root) {
    this.#kafka = kafka
    this.root = root
    this.clock = {
      now: () => kafka.now,
      sleep: (ms) => new Promise((resolve) => kafka.later(this, resolve, ms)),
      turn: () => Promise.resolve(),
    }
    const { clock } = this
    this.#opened = root.open(kafka, this)
    const { keep: _, close: __, ...opened } = this.#opened
    const ledgerTopic = new LedgerTopic({
      ...{ log: this.#ledgerLog(), group: 'g', owner: root.owner, state: opened.checkpoint.state, logger: log, clock },
    })
    this.subscriber = new Subscriber({
      ...{ group: this.#group(), ledgerTopic, topic: TOPIC, brokers: [], rootPath: '', owner: root.owner },
      ...{ ...opened, log, clock },
      admit: () => {},
      connected: async () => {},
      joined: () => {},
      failed: (error) => {
        if (!(error instanceof ConsumerError || error instanceof PowerCut)) throw error
        this.kill()
      },
      landed: () => {},
    })
    void this.subscriber.start()
  }

  /** Begins a pass of housekeeping, as soon as it may and unless one is under way. */
  keep(): void {
    const { keep } = this.#opened
    if (!keep || !this.subscriber.recovered || this.#stopping.signal.aborted) return
    this.#pass ??= keep(this.#stopping.signal).finally(() => {
      this.#pass = undefined
    })
  }

  /** The process is gone. Its member is one until its session is over, unless the same root starts again. */
  kill(): void {
    if (this.dead) return
    this.dead = true
    this.#opened.close?.()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.all([this.subscriber.stop(), this.#pass])
    this.kill()
  }

  /** The connection is given up, and a new one joins. */
  lose(): void {
    this.#generation = -1
    this.#positions.clear()
    this.#kafka.leave(this)
    this.#events.away(new Error('it stands still'))
    this.#join()
  }

  learn(generation: number, partitions: number[]): void {
    this.#generation = generation
    this.#positions = new Map()
    this.#events.assigned(partitions)
  }

  #join(): void {
    this.#kafka.later(this, () => {
      // One root, one member: it leaves in the name of the one that was killed.
      this.#kafka.members = this.#kafka.members.filter(({ root }) => root !== this.root)
      this.#kafka.members.push(this)
      this.#kafka.rebalance()
    })
  }

  /** A question to Kafka: it is answered in two steps, at the broker and with us, and the second may be an error. */
  #ask<T>(answer: () => T, mayFail = 0.02): Promise<T> {
    const kafka = this.#kafka
    return new Promise((resolve, reject) => {
      kafka.later(this, () => {
        if (kafka.draw() < mayFail) return kafka.later(this, () => reject(new Error('it was lost on the way there')))
        let found: T
        try {
          found = answer()
        } catch (error) {
          return kafka.later(this, () => reject(error))
        }
        if (kafka.draw() < mayFail) return kafka.later(this, () => reject(new Error('it was lost on the way back')))
        kafka.later(this, () => resolve(found))
      })
    })
  }

  #group(): ConstructorParameters<typeof Subscriber>[0]['group'] {
    const kafka = this.#kafka
    const process = this
    return {
      start: async (events) => {
        this.#events = events
        this.#join()
      },
      stop: async () => {
        kafka.leave(this)
        return true
      },
      commits: () =>
        this.#ask(
          () => new Map(Array.from(kafka.log, (_, i) => [i, kafka.commits.get(i) ?? { offset: -1, metadata: null }])),
        ),
      // Now and then one has no leader.
      extents: () =>
        this.#ask(
          () =>
            new Map(
              Array.from(kafka.log, ({ length }, i) => [
                i,
                kafka.draw() < 0.1 ? undefined : { low: kafka.low[i]!, high: length },
              ]),
            ),
        ),
      async *read(partition, from, to) {
        for (let next = from; next < to; ) {
          const batch = await process.#ask(() => kafka.records(partition, next, Math.min(to, next + BATCH)))
          next += batch.length
          yield batch
        }
      },
      begin: (starts) => {
        for (const [partition, next] of starts) this.#positions.set(partition, { next, busy: false })
        this.fetch()
      },
    }
  }

  /** Has each partition that has more bring a batch. */
  fetch(): void {
    for (const [partition, position] of this.#positions) {
      const { length } = this.#kafka.log[partition]!
      if (position.busy || position.next >= length) continue
      position.busy = true
      const generation = this.#generation
      this.#kafka.later(this, () => {
        if (this.#positions.get(partition) !== position) return
        // Out of range, it is gone on with where the log begins.
        position.next = Math.max(position.next, this.#kafka.low[partition]!)
        const { next } = position
        const messages = this.#kafka.records(partition, next, next + 1 + this.#kafka.below(BATCH))
        if (messages.length === 0) {
          position.busy = false
          return
        }
        const handled = this.#events.batch({
          partition,
          messages,
          high: length,
          commit: (commits) => this.#commit(generation, commits),
          heartbeat: async () => {},
        })
        const done = (landed: boolean) => {
          position.busy = false
          if (landed) position.next += messages.length
          if (this.#positions.get(partition) === position) this.#kafka.later(this, () => this.fetch())
        }
        handled.then(done, () => done(false))
      })
    }
  }

  /** As the group does it: after a commit whose fate is unknown comes a new connection, and with it another generation. */
  async #commit(generation: number, commits: { partition: number; offset: number; metadata: string }[]): Promise<void> {
    const kafka = this.#kafka
    let refused = false
    const store = () => {
      refused = generation !== kafka.generation || !kafka.members.includes(this)
      if (refused) throw new Error('ILLEGAL_GENERATION')
      for (const { partition, ...commit } of commits) kafka.commits.set(partition, commit)
    }
    try {
      await this.#ask(store, 0.05)
    } catch (error) {
      if (!refused) {
        // It may be on the way still.
        kafka.later(this, () => {
          try {
            store()
          } catch {
            // Then it came too late.
          }
        })
        this.lose()
      }
      throw error
    }
  }

  #ledgerLog(): LedgerLog {
    const { ledger } = this.#kafka
    const process = this
    return {
      extents: () => this.#ask(() => new Map(Array.from(ledger, ({ length }, i) => [i, { low: 0, high: length }]))),
      async *read(partition, from, to) {
        yield await process.#ask(() => ledger[partition]!.slice(from, to))
      },
      // As the producer does it: until it is acknowledged, and so it may be stored twice; and late, where a tenure's is given up.
      append: async (partition, rows) => {
        const appending = (async () => {
          for (;;) {
            const done = await this.#ask(() => ledger[partition]!.push(...rows), 0.1).then(
              () => true,
              () => false,
            )
            if (done) return
          }
        })()
        if (partition === 0 && this.#kafka.draw() < 0.1) throw new Error('it took too long')
        await appending
      },
    }
  }
}

/** The disk of a root in memory, as one daemon uses it. */
class SimulatedDisk {
  #kafka: SimulatedKafka
  #root: SimulatedRoot
  #state: State
  #lengths: Map<string, FileState>
  #waiting: { file: string; at: number; text: string }[] = []
  /** What was written since it was last made durable, with what stood there before. */
  #written: { file: string; at: number; before: string | undefined }[] = []
  #changed = new Set<string>()

  constructor(kafka: SimulatedKafka, root: SimulatedRoot, state: State) {
    this.#kafka = kafka
    this.#root = root
    this.#state = state
    this.#lengths = new Map(structuredClone([...state.files]))
  }

  append(delta: Partial<Delta>): void {
    for (const target of [this.#state, this.#root.state]) {
      for (const name of ['partitions', 'files', 'runs', 'totals'] as const) {
        for (const [key, value] of structuredClone(delta[name] ?? [])) {
          const map = target[name] as Map<unknown, unknown>
          if (value === undefined) map.delete(key)
          else map.set(key, value)
        }
      }
      enterCounters(target, delta)
    }
  }

  refuse(share: number): void {
    if (this.#kafka.disturbed && this.#kafka.draw() < share) throw new Error('the disk refuses')
  }

  /** A file is its pieces by the position of their first byte. */
  writer() {
    return {
      unsynced: 0,
      fits: () => this.#waiting.length < 3,
      write: (folder: string, day: string, partition: number, bytes: Uint8Array) => {
        const file = `${folder}/${day}.p${partition}`
        const state = this.#lengths.get(file) ?? { partition, length: 0, lines: 0, first: 0, last: 0 }
        this.#lengths.set(file, state)
        this.#waiting.push({ file, at: state.length, text: Buffer.from(bytes).toString() })
        state.length += bytes.length
      },
      flush: () => {
        this.refuse(0.02)
        for (const { file, at, text } of this.#waiting.splice(0)) {
          const pieces = this.#root.files.get(file) ?? []
          this.#root.files.set(file, pieces)
          this.#written.push({ file, at, before: pieces[at] })
          pieces[at] = text
          // Other bytes than last time, where records are gone by now.
          for (let over = at + 1; over < Math.min(at + text.length, pieces.length); over++) {
            if (pieces[over] === undefined) continue
            this.#written.push({ file, at: over, before: pieces[over] })
            delete pieces[over]
          }
          this.#changed.add(file)
        }
      },
      sync: () => {
        try {
          this.refuse(0.01)
        } catch (error) {
          for (const { file, at, before } of this.#written.reverse()) {
            const pieces = this.#root.files.get(file)!
            if (before === undefined) delete pieces[at]
            else pieces[at] = before
          }
          throw error
        }
        this.#written = []
        const changed = Array.from(this.#changed, (file): [string, FileState] => [
          file,
          structuredClone(this.#lengths.get(file)!),
        ])
        this.#changed.clear()
        return changed
      },
    }
  }
}
