/**
 * Taking over a partition from another root: what its runs have come to, and what of it that root still owes.
 *
 * The ledger is a pure function of a partition's records, so what the predecessor knew, as far as it was sent, and the records
 * that it claimed since then give what it knew, or will know, at its last claim. They are read to be counted, and not written.
 */
import type { FetchedRecord } from '../wire/deferred-records.ts'
import type { Extent } from '../wire/group.ts'
import { type ClosedTenure, recordHash } from './claims.ts'
import type { Landing } from './landing.ts'
import { Ledger, type LedgerState, type RunState, type Totals } from './ledger.ts'
import type { Claimed, ClaimedRun, Known, LedgerTopic } from './ledger-topic.ts'

export type TakeOver = {
  partition: number
  runs: Map<string, RunState>
  /** Kafka had dropped records before anybody could say what runs they were of. */
  beheaded: boolean
  claimed: Claimed
}

export type TakeOverSources = {
  ledgerTopic: Pick<LedgerTopic, 'load'>
  landing: Pick<Landing, 'count'>
  /** Records of a partition, from an offset up to and without another. */
  read(partition: number, from: number, to: number): AsyncIterable<FetchedRecord[]>
}

/** @param log what Kafka holds of the partition */
export async function takeOver(sources: TakeOverSources, closes: ClosedTenure, log: Extent): Promise<TakeOver> {
  const { ledgerTopic, landing, read } = sources
  const { partition, tenure, from, to } = closes
  const loaded = await ledgerTopic.load(partition, tenure)
  // Else it is of another topic that had the same name.
  const known = loaded && (await holds(read, loaded, closes, log)) ? loaded : undefined
  const ats = new Map(Array.from(known?.runs ?? [], ([id, { at }]) => [id, at]))
  const replica = new Ledger({
    runs: new Map(Array.from(known?.runs ?? [], ([id, { run }]) => [id, run])),
    totals: new Map(),
  })
  const begin = Math.max(known?.at ?? 0, log.low)
  const beheaded = begin > (known?.at ?? 0)
  if (beheaded) replica.expire(partition, log.high)
  let hash: number | undefined
  const count = async (ledger: Ledger, begin: number, end: number, entered = new Set<string>()): Promise<void> => {
    for await (const messages of read(partition, begin, Math.min(end, log.high))) {
      const last = messages.at(-1)!
      if (Number(last.offset) === to - 1) hash = recordHash(last)
      for (const message of messages) {
        landing.count(ledger, partition, message, (run) => {
          if ((ats.get(run) ?? 0) > Number(message.offset)) return true
          entered.add(run)
          return false
        })
        message.release?.()
      }
    }
  }
  const written = known?.tenure === tenure ? Math.max(known.at, from) : from
  await count(replica, begin, written)
  // From here on it is not known to be written: what it comes to is owed.
  const owed = new Ledger({ runs: replica.state.runs, totals: new Map() }, beheaded ? [[partition, log.high]] : [])
  const entered = new Set<string>()
  await count(owed, Math.max(begin, written), to, entered)
  const { runs } = owed.state
  const totals = [...owed.state.totals.values()]
  const claimed: Claimed = {
    ...closes,
    hash,
    written,
    // Nobody can say any more what lines were in them.
    uncounted: Math.max(0, Math.min(log.low, to) - written),
    totals,
    runs: claimedRuns(runs, entered, totals),
    state: 'claimed',
  }
  return { partition, runs, beheaded, claimed }
}

/** They go into one record, of which Kafka takes 1 MB. Of others it can't be said later what of them expired. */
const MAX_CLAIMED_RUNS = 10_000

function claimedRuns(runs: LedgerState['runs'], of: ReadonlySet<string>, totals: readonly Totals[]): ClaimedRun[] {
  const named = ({ service, module, host }: Pick<Totals, 'service' | 'module' | 'host'>) =>
    JSON.stringify([service, module, host])
  const places = new Map(totals.map((each, i) => [named(each), i]))
  return [...of].slice(0, MAX_CLAIMED_RUNS).flatMap((run): ClaimedRun[] => {
    const state = runs.get(run)
    // So many have ended since that it is forgotten.
    if (!state) return []
    const { sources, container, ended } = state
    const [stdout, stderr] = sources
    return [{ run, of: places.get(named(state))!, container, high: [stdout.high, stderr.high], ended }]
  })
}

/** Whether what is known of a partition's runs is of the records that Kafka holds, as far as that can be told. */
async function holds(
  read: TakeOverSources['read'],
  { at, hash }: Known,
  { partition, to }: ClosedTenure,
  { low, high }: Extent,
): Promise<boolean> {
  if (at > to) return false
  if (hash === undefined || at <= low || at > high) return true
  return (await hashAt(read, partition, at - 1)) === hash
}

/** Of the record at an offset. */
export async function hashAt(
  read: TakeOverSources['read'],
  partition: number,
  offset: number,
): Promise<number | undefined> {
  for await (const [message] of read(partition, offset, offset + 1)) if (message) return recordHash(message)
  return undefined
}
