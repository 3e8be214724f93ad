/**
 * The ledger's topic: what a root has to know of a partition that another root wrote before. Compacted, so that of every
 * key the last value stays.
 *
 *   partition 0     key ["tenure", group, partition, tenure, to]   {owner, from, hash, written, totals, runs, state}
 *   1 + p mod n     key ["run", group, partition, tenure, run id]  {at, …} what is known of the run before offset `at`
 *                   key ["mark", group, partition, tenure]         {owner, at, hash} before `at` all is known, and written
 *
 * Invariants
 * - A tenure is stored by its successor before that one's first claim, and removed by its owner once all of it is written.
 * - A tenure is over where the last who stored it says. One who read an earlier claim of it, and lost the partition before he had stored
 *   that, may do so late: so each has a key of his own, and the furthest counts.
 * - A mark is sent after the runs that it speaks of, and these after the checkpoint that holds them.
 * - A tenure has keys of its own. A root that is paused, and sends what it has when it wakes, overwrites nothing of its successor's.
 * - The runs of a tenure are all of its partition's, from its first mark on: what earlier tenures left is removed after it.
 */
import type { Logger } from 'pino'
import { z } from 'zod'
import { type Clock, realClock } from '../wire/clock.ts'
import type { Extent } from '../wire/group.ts'
import { within } from '../wire/within.ts'
import { runState, type State, totalsState } from './checkpoint.ts'
import type { ClosedTenure } from './claims.ts'
import type { LedgerChanges, RunState, Totals } from './ledger.ts'

/** Runs are sent at least this far apart, and so much further for each that is to be sent, ms: a successor reads again what is newer. */
const PUBLISH_MS = 5_000
const PUBLISH_MS_PER_RUN = 5
/** Those of a tenure of which nothing was sent yet wait no longer: until then a successor has to read all of it. */
const PUBLISH_FIRST_MS = 30_000
/** So long is waited until Kafka has stored a tenure, ms: whoever takes a partition up says then that it can't, and tries again. */
const STORE_MS = 15_000
/** A send of more would hold up the rest: bytes. */
const SEND_BYTES = 256 * 1024

const tenureKey = z.tuple([z.literal('tenure'), z.string(), z.int(), z.int(), z.int()])
const runKey = z.tuple([z.literal('run'), z.string(), z.int(), z.int(), z.string()])
const markKey = z.tuple([z.literal('mark'), z.string(), z.int(), z.int()])
const key = z.union([tenureKey, runKey, markKey])
const offset = z.int().min(0)
const closedValue = z.object({
  owner: z.string(),
  from: offset,
  hash: offset.optional(),
  written: offset,
  uncounted: offset.default(0),
  totals: z.array(totalsState),
  runs: z
    .array(
      z.object({
        run: z.string(),
        of: offset,
        container: z.string(),
        high: z.tuple([offset, offset]),
        ended: z.boolean(),
      }),
    )
    .default([]),
  state: z.enum(['claimed', 'disowned']),
})
const runValue = z.object({ at: offset, ...runState.shape })
const markValue = z.object({ owner: z.string(), at: offset, hash: offset.optional() })

/**
 * How far a run goes in what is claimed: without the records nobody could say any more what of it is missing. `of`: which of the totals it
 * was in last.
 */
export type ClaimedRun = {
  run: string
  of: number
  container: string
  high: [stdout: number, stderr: number]
  ended: boolean
}

/** A tenure that is over and not known to be written whole. */
export type Claimed = ClosedTenure & {
  /** Up to here its owner has said that it is written. */
  written: number
  /** Records of the rest that Kafka dropped before anybody counted what is in them: how many offsets. */
  uncounted: number
  /** What the rest comes to, but for those: lines that are claimed, and numbers that are missing among them. */
  totals: Totals[]
  runs: ClaimedRun[]
  state: 'claimed' | 'disowned'
}

/** What a partition's runs came to before offset `at`, by whoever had the tenure; some of them later. */
export type Known = {
  tenure: number
  at: number
  /** Of the record before `at`. */
  hash: number | undefined
  runs: Map<string, { at: number; run: RunState }>
}

export type Row = { key: string; value: string | null }

/** The topic in Kafka. */
export type LedgerLog = {
  /** By partition; undefined for one that has no leader. */
  extents(): Promise<Map<number, Extent | undefined>>
  read(partition: number, from: number, to: number): AsyncIterable<readonly { key: string; value: string | null }[]>
  /** Resolves once all in-sync replicas have them. */
  append(partition: number, rows: Row[]): Promise<void>
}

export type LedgerTopicOptions = {
  log: LedgerLog
  group: string
  /** Our root's UUID. */
  owner: string
  /** What is durable. */
  state: State
  logger: Logger
  clock?: Clock
}

/** A partition of ours: since when, in which tenure, and which of its runs have changed since they were sent; `undefined`: all. */
type Own = { tenure: number; from: number; changed: Set<string> | undefined }

export class LedgerTopic {
  #options: LedgerTopicOptions
  #clock: Clock
  /** Tenures that are over, by key. */
  #closed = new Map<string, Claimed>()
  #readTo = 0
  #own = new Map<number, Own>()
  /** Keys of earlier tenures, to be removed after our first mark. */
  #stale = new Map<number, string[]>()
  #publishing: Promise<void> | undefined
  #stopped = new AbortController()
  #due = false
  #publishedAt: number

  constructor(options: LedgerTopicOptions) {
    this.#options = options
    this.#clock = options.clock ?? realClock
    this.#publishedAt = this.#clock.now()
  }

  /** Tenures that are over and not known to be written, as of the last `refresh`. */
  get closed(): Claimed[] {
    const furthest = new Map<string, Claimed>()
    for (const claimed of this.#closed.values()) {
      const tenure = `${claimed.partition} ${claimed.tenure}`
      if (claimed.to >= (furthest.get(tenure)?.to ?? 0)) furthest.set(tenure, claimed)
    }
    return [...furthest.values()]
  }

  /** Reads which tenures are over. */
  async refresh(): Promise<void> {
    const { log, group } = this.#options
    const extent = (await log.extents()).get(0)
    if (!extent) throw new Error('the first partition of the ledger’s topic has no leader')
    if (extent.high < this.#readTo) {
      this.#readTo = 0
      this.#closed.clear()
    }
    for await (const rows of log.read(0, Math.max(this.#readTo, extent.low), extent.high)) {
      for (const row of rows) {
        const found = tenureKey.safeParse(parsed(row.key)).data
        if (found?.[1] !== group) continue
        const [, , partition, tenure, to] = found
        const value = closedValue.safeParse(parsed(row.value)).data
        if (value) this.#closed.set(row.key, { partition, tenure, to, ...value })
        else this.#closed.delete(row.key)
      }
    }
    this.#readTo = extent.high
  }

  /** Stores a tenure that is over. */
  async close({ partition, tenure, to, ...value }: Claimed): Promise<void> {
    const key = this.#key('tenure', partition, tenure, to)
    await this.#store([{ key, value: JSON.stringify(value satisfies z.infer<typeof closedValue>) }])
    this.#closed.set(key, { partition, tenure, to, ...value })
  }

  /** Forgets a tenure of ours, all of which is written. */
  async release(partition: number, tenure: number): Promise<void> {
    const keys = [...this.#closed].flatMap(([key, of]) =>
      of.partition === partition && of.tenure === tenure ? [key] : [],
    )
    if (keys.length === 0) return
    await this.#store(keys.map((key) => ({ key, value: null })))
    for (const key of keys) this.#closed.delete(key)
  }

  /**
   * Given up, it may be stored late, as what another root stores may. Of runs that can't be: an earlier one would come to stand for a
   * later one, so `#send` waits for as long as it takes.
   */
  #store(rows: Row[]): Promise<void> {
    return within(STORE_MS, this.#options.log.append(0, rows), this.#stopped.signal)
  }

  /**
   * Counts as lost what a root has claimed and not written.
   * @returns its tenures that are disowned now
   */
  async disown(root: string): Promise<Claimed[]> {
    await this.refresh()
    for (const claimed of this.#closed.values()) {
      if (claimed.owner === root && claimed.state === 'claimed') await this.close({ ...claimed, state: 'disowned' })
    }
    return this.closed.filter(({ owner }) => owner === root)
  }

  /** What the last root to say so knew of a partition's runs, in `tenure` or an earlier one. */
  async load(partition: number, tenure: number): Promise<Known | undefined> {
    const { log, group, logger } = this.#options
    const extents = await log.extents()
    const place = placeOf(partition, extents.size)
    const extent = extents.get(place)
    if (!extent) throw new Error(`partition ${place} of the ledger’s topic has no leader`)
    const marks = new Map<number, z.infer<typeof markValue>>()
    const runs = new Map<string, { tenure: number; id: string; at: number; run: RunState }>()
    const stale = new Set<string>()
    for await (const rows of log.read(place, extent.low, extent.high)) {
      for (const row of rows) {
        const found = key.safeParse(parsed(row.key)).data
        if (found?.[1] !== group || found[2] !== partition) continue
        stale.add(row.key)
        const value = parsed(row.value)
        if (found[0] === 'mark') {
          const mark = markValue.safeParse(value).data
          if (mark) marks.set(found[3], mark)
        } else if (found[0] === 'run') {
          const run = runValue.safeParse(value)
          if (run.success) {
            const { at, ...state } = run.data
            runs.set(row.key, { tenure: found[3], id: found[4], at, run: state })
          } else {
            runs.delete(row.key)
            if (row.value === null) stale.delete(row.key)
            else logger.warn({ key: row.key }, 'a row of the ledger’s topic is not understood, and left out')
          }
        }
      }
    }
    this.#stale.set(partition, [...stale])
    const last = Math.max(...[...marks.keys()].filter((each) => each <= tenure))
    const mark = marks.get(last)
    if (!mark) return undefined
    const known = [...runs.values()].filter((row) => row.tenure === last)
    const { at, hash } = mark
    return { tenure: last, at, hash, runs: new Map(known.map(({ id, at, run }) => [id, { at, run }])) }
  }

  /** These are our partitions from now on. */
  hold(tenures: readonly { partition: number; tenure: number; from: number }[]): void {
    const before = this.#own
    this.#own = new Map(
      tenures.map(({ partition, tenure, from }) => {
        const known = before.get(partition)
        return [partition, known?.tenure === tenure ? known : { tenure, from, changed: undefined }]
      }),
    )
  }

  /** These changes are durable. They are sent before long. */
  note({ runs, runCounters }: Pick<LedgerChanges, 'runs' | 'runCounters'>): void {
    for (const [id, run] of runs) {
      // Of one that is forgotten nothing tells where it was.
      if (run) this.#own.get(run.partition)?.changed?.add(id)
      else for (const { changed } of this.#own.values()) changed?.add(id)
    }
    for (const id of runCounters?.keys ?? []) {
      this.#own.get(this.#options.state.runs.get(id)!.partition)?.changed?.add(id)
    }
    if (this.#own.size === 0 || this.#due) return
    this.#due = true
    void this.#later()
  }

  async #later(): Promise<void> {
    // Of many runs each costs some 15 µs: sent as often as a few are, they would take a good part of all that a line costs.
    for (let wait = PUBLISH_MS; wait > 0; ) {
      await this.#clock.sleep(wait, this.#stopped.signal).catch(() => {})
      if (this.#stopped.signal.aborted) return
      wait = this.#publishedAt + this.#apart - this.#clock.now()
    }
    this.#due = false
    await this.publish().catch((error: Error) =>
      this.#options.logger.debug({ error: error.message }, 'what the ledger knows could not be sent'),
    )
  }

  /** Sends what has changed of our partitions' runs. */
  async publish(): Promise<void> {
    while (this.#publishing) await this.#publishing
    this.#publishing = this.#publish()
    try {
      await this.#publishing
    } finally {
      this.#publishing = undefined
    }
  }

  stop(): void {
    this.#stopped.abort(new Error('the consumer was stopped'))
  }

  async #publish(): Promise<void> {
    const extents = await this.#options.log.extents()
    this.#publishedAt = this.#clock.now()
    for (const [partition, own] of this.#own) {
      const place = placeOf(partition, extents.size)
      // Sent to, one without a leader would keep the others waiting.
      if (extents.get(place)) await this.#publishPartition(partition, own, place)
    }
  }

  /** How long after the last time what there is now is to be sent, ms. */
  get #apart(): number {
    const { runs } = this.#options.state
    let [changed, most] = [0, Number.POSITIVE_INFINITY]
    for (const own of this.#own.values()) {
      changed += own.changed?.size ?? runs.size
      if (!own.changed) most = PUBLISH_FIRST_MS
    }
    return Math.min(changed * PUBLISH_MS_PER_RUN, most)
  }

  async #publishPartition(partition: number, own: Own, place: number): Promise<void> {
    const { state, owner } = this.#options
    const position = state.partitions.get(partition)
    // Before our first claim the tenure may still become another's, and its keys with it.
    if (position?.tenure !== own.tenure || position.next <= own.from || own.changed?.size === 0) return
    // All of one moment, before anything is awaited: what is sent of a run holds at the mark.
    const { next: at, hash } = position
    const ids = own.changed ?? new Set(runsOf(state, partition))
    const rows = Array.from(ids, (id): Row => {
      const run = state.runs.get(id)
      const value = run?.partition === partition ? JSON.stringify({ at, ...run }) : null
      return { key: this.#key('run', partition, own.tenure, id), value }
    })
    own.changed = new Set()
    try {
      const mark = { key: this.#key('mark', partition, own.tenure), value: JSON.stringify({ owner, at, hash }) }
      await this.#send(place, [...rows, mark])
    } catch (error) {
      for (const id of ids) own.changed.add(id)
      throw error
    }
    const stale = this.#stale.get(partition)?.filter((key) => tenureOfKey(key) < own.tenure) ?? []
    this.#stale.delete(partition)
    await this.#send(
      place,
      stale.map((key) => ({ key, value: null })),
    )
  }

  async #send(place: number, rows: Row[]): Promise<void> {
    for (let from = 0; from < rows.length; ) {
      let to = from
      for (let bytes = 0; to < rows.length && bytes < SEND_BYTES; to++) {
        bytes += rows[to]!.key.length + (rows[to]!.value?.length ?? 0)
      }
      await this.#options.log.append(place, rows.slice(from, to))
      from = to
    }
  }

  #key(what: 'tenure' | 'run' | 'mark', partition: number, tenure: number, ...rest: (string | number)[]): string {
    return JSON.stringify([what, this.#options.group, partition, tenure, ...rest])
  }
}

/** Where a partition's runs are, in a topic of so many partitions. */
const placeOf = (partition: number, count: number): number => (count === 1 ? 0 : 1 + (partition % (count - 1)))

const tenureOfKey = (text: string): number => key.parse(parsed(text))[3]

function* runsOf({ runs }: Pick<State, 'runs'>, of: number): Generator<string> {
  for (const [id, { partition }] of runs) if (partition === of) yield id
}

function parsed(text: string | null): unknown {
  try {
    return JSON.parse(text ?? '')
  } catch {
    return undefined
  }
}
