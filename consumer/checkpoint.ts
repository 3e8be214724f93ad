/**
 * The checkpoint: what is written, as an append-only log of deltas in one file.
 *
 *   <root>/.tallyman/checkpoint   magic, then entries: uint32 LE length, uint32 LE CRC-32 of the payload, payload
 *   a payload is a MessagePack map of what changed; the first entry of a file is a snapshot of everything
 *   runCounters, totalCounters   [bin: uint32 LE each, bin: float64 LE each]: places, and the counters that stand there now. The place of
 *                                a run, or of totals, is how many others the file had named before
 *
 * Invariants
 * - An entry is appended, durable, only after the data that it covers is: what it says is on disk.
 * - It may lag behind the files. Going on from an older state writes the same bytes to the same places again, so a torn or
 *   damaged tail is cut off and costs nothing but that work.
 * - A file that is not ours, or newer than us, is refused: starting from nothing would write every line a second time.
 * - Once the deltas outgrow the snapshot a new file takes its place, whole or not at all.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { decode, encode } from '@msgpack/msgpack'
import { z } from 'zod'
import { replaceFile } from '../wire/durable.ts'
import { ConsumerError } from './errors.ts'
import { syncData } from './kernel.ts'
import {
  type Counters,
  enterCounters,
  type LedgerChanges,
  type LedgerCounters,
  type LedgerState,
  NO_PARTITION,
  RUN_COUNTERS,
  type RunState,
  type SourceState,
  saturated,
  TOTAL_COUNTERS,
  type Totals,
} from './ledger.ts'

/** How far a partition is written: the offset of its next record, and the tenure in which it was claimed. */
export type PartitionState = {
  next: number
  tenure: number
  /** Checksum of the record before `next`: a topic that was deleted and made anew has another one there. */
  hash?: number
  /** Records that expired before they were read: how many offsets. */
  expired?: number
  /** How far the log went when that was found last: runs that are first heard of before that may be missing lines for that reason. */
  expiredTo?: number
}

/** How a closed file is compressed: frames (gzip: members) of `frame` bytes of text each, the last of them with the rest. */
export type Packed = {
  as: 'zst' | 'gz'
  /** The frame's text, and the length of each frame as it stands in the file. */
  frame: number
  frames: number[]
  /** The folder's file that is still to take the plain one's place; without it that is done. */
  aside?: string
}

/** A file of the root, by the path of its text below it. */
export type FileState = {
  /** Which partition writes it. */
  partition: number
  /** Bytes of text that are written. */
  length: number
  lines: number
  /** Times of its earliest and its latest line, ms since 1970; 0 while it has none. */
  first: number
  last: number
  /** Inode, time of birth and of the last change, ms since 1970, as of the last checkpoint: what replaced it has others. */
  seen?: [ino: number, birth: number, mtime: number]
  /** It is closed for good: what comes late for its day goes to another segment. */
  sealed?: true
  packed?: Packed
}

export const newFile = (partition: number): FileState => ({ partition, length: 0, lines: 0, first: 0, last: 0 })

/** Where a file's bytes are: its path below the root. */
export const storedAt = (file: string, { packed }: Pick<FileState, 'packed'>): string =>
  packed ? `${file}.${packed.as}` : file

/** How many bytes a file takes up. */
export const storedBytes = ({ length, packed }: FileState): number =>
  packed ? packed.frames.reduce((sum, bytes) => sum + bytes, 0) : length

/** A day whose index is another log than that which was written first. */
export type Reindexed = {
  /** How often it has been replaced. */
  times: number
  /** How long the log before was then, and how long this one. */
  was: number
  now: number
}

export type State = LedgerState & {
  partitions: Map<number, PartitionState>
  files: Map<string, FileState>
  /** How long the index of each day is. */
  index: Map<string, number>
  reindexed: Map<string, Reindexed>
  /** The first day that is kept: files of earlier ones are removed, or about to be. */
  floor: string
  /** When the newest of the records was appended, ms since 1970; 0 before the first. */
  appended: number
}

/** That of a root in which nothing has landed. */
export const emptyState = (): State => ({
  ...{ partitions: new Map(), files: new Map(), runs: new Map(), totals: new Map() },
  ...{ index: new Map(), reindexed: new Map(), floor: '', appended: 0 },
})

/** What has changed; `undefined` for what is forgotten. */
export type Delta = LedgerChanges & {
  partitions: [number, PartitionState][]
  files: [string, FileState | undefined][]
  index: [string, number | undefined][]
  reindexed?: [string, Reindexed][]
  floor?: string
  appended?: number
}

const MAGIC = Buffer.from('tallyman checkpoint 4\n')
/** The same without counters: it is read, and a new file takes its place. */
const MAGIC_BEFORE = Buffer.from('tallyman checkpoint 3\n')
const FAMILY = 'tallyman checkpoint '
const HEADER_BYTES = 8

/** The deltas may take as much as the snapshot, but at least this, before a new file is made. */
const MIN_DELTA_BYTES = 4 * 1024 * 1024

const offset = z.int().min(0)
/** What an earlier version could write for the sum of absurd numbers is no integer, and must not keep a root from starting. */
const sum = z.number().transform((n) => saturated(Math.trunc(n)))
/** Below zero where lines came late that another root has counted as lost: only over all roots the sum is whole. */
const byReason = z.record(z.string(), sum)
const hole = z.object({ from: offset, to: offset, reason: z.string(), day: z.string() })
const source = z.object({
  high: offset,
  written: offset,
  doubled: offset,
  holes: z.array(hole),
  closed: byReason,
  expired: z.literal(true).exactOptional(),
})
const partitionState = z.object({
  next: offset,
  tenure: offset,
  hash: offset.exactOptional(),
  expired: offset.exactOptional(),
  expiredTo: offset.exactOptional(),
})
export const runState = z.object({
  partition: z.int().default(NO_PARTITION),
  service: z.string(),
  module: z.string(),
  host: z.string(),
  container: z.string(),
  sources: z.tuple([source, source]),
  first: offset,
  last: offset,
  heard: offset.exactOptional(),
  ended: z.boolean(),
})
export const totalsState = z.object({
  service: z.string(),
  module: z.string(),
  day: z.string(),
  host: z.string(),
  written: offset,
  doubled: offset,
  lost: byReason,
  last: offset,
})
const packed = z.object({
  as: z.enum(['zst', 'gz']),
  frame: offset,
  frames: z.array(offset),
  aside: z.string().exactOptional(),
})
const file = z.object({
  partition: offset,
  length: offset,
  lines: offset,
  first: offset,
  last: offset,
  seen: z.tuple([z.number(), z.number(), z.number()]).exactOptional(),
  sealed: z.literal(true).exactOptional(),
  packed: packed.exactOptional(),
})
/**
 * Rows as they were decoded, and no copies: those that zod makes of many runs are a third of what it takes to start on them, and the
 * collector's work with both is another.
 * @param plain whether a row is seen at once to be one, as it is written today: of the others zod says whether they are
 * @param current whether a row that is understood stands as it is written today
 */
const rowsOf = <T extends z.ZodType>(
  row: T,
  plain: (each: unknown) => boolean,
  current: (each: z.output<T>) => boolean = () => true,
) =>
  z.custom<z.output<T>[]>(
    (rows) =>
      Array.isArray(rows) &&
      rows.every((each, i) => {
        if (plain(each)) return true
        const { success, data } = row.safeParse(each)
        if (success && !current(each as z.output<T>)) rows[i] = data
        return success
      }),
  )
const isOffset = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0

const isText = (text: unknown): boolean => typeof text === 'string'
const isNothing = (of: unknown): boolean => {
  if (typeof of !== 'object' || of === null || Array.isArray(of)) return false
  for (const _ in of) return false
  return true
}

/** A row `[key, state]`, as nearly all are: what this does not take is not wrong for that. */
const plainRow =
  <T extends object>(isPlain: (state: Partial<T>) => boolean) =>
  (row: unknown): boolean => {
    if (!Array.isArray(row) || row.length !== 2 || !isText(row[0])) return false
    const state: unknown = row[1]
    return typeof state === 'object' && state !== null && isPlain(state)
  }

const isPlainSource = (source: Partial<SourceState> | null | undefined): boolean =>
  typeof source === 'object' &&
  source !== null &&
  [source.high, source.written, source.doubled].every(isOffset) &&
  Array.isArray(source.holes) &&
  source.holes.length === 0 &&
  isNothing(source.closed) &&
  source.expired === undefined

const isPlainRun = plainRow<RunState>(
  ({ partition, service, module, host, container, sources, first, last, heard, ended }) =>
    isOffset(partition) &&
    [service, module, host, container].every(isText) &&
    Array.isArray(sources) &&
    (sources as SourceState[]).length === 2 &&
    sources.every(isPlainSource) &&
    [first, last, heard].every(isOffset) &&
    typeof ended === 'boolean',
)

const isPlainTotals = plainRow<Totals>(
  ({ service, module, day, host, written, doubled, lost, last }) =>
    [service, module, day, host].every(isText) && [written, doubled, last].every(isOffset) && isNothing(lost),
)

const isPlainFile = plainRow<FileState>(
  ({ partition, length, lines, first, last, seen, sealed, packed }) =>
    [partition, length, lines, first, last].every(isOffset) &&
    Array.isArray(seen) &&
    (seen as number[]).length === 3 &&
    seen.every(Number.isFinite) &&
    sealed === undefined &&
    packed === undefined,
)

const isWhole = (sums: Record<string, number>): boolean => Object.values(sums).every(Number.isSafeInteger)
const counters = z.tuple([z.instanceof(Uint8Array), z.instanceof(Uint8Array)])
type PackedCounters = z.infer<typeof counters>
const payload = z.object({
  partitions: z.array(z.tuple([offset, partitionState])),
  files: rowsOf(z.tuple([z.string(), file.nullable()]), isPlainFile),
  runs: rowsOf(
    z.tuple([z.string(), runState.nullable()]),
    isPlainRun,
    ([, run]) => run?.partition !== undefined && run.sources.every(({ closed }) => isWhole(closed)),
  ),
  totals: rowsOf(
    z.tuple([z.string(), totalsState.nullable()]),
    isPlainTotals,
    ([, of]) => of === null || isWhole(of.lost),
  ),
  runCounters: counters.exactOptional(),
  totalCounters: counters.exactOptional(),
  index: z.array(z.tuple([z.string(), offset.nullable()])),
  reindexed: z.array(z.tuple([z.string(), z.object({ times: offset, was: offset, now: offset })])).exactOptional(),
  floor: z.string().exactOptional(),
  appended: offset.exactOptional(),
})

/** Numbers that keys were given, in the order in which a file first names them. One that is forgotten keeps its own. */
class Places {
  #places = new Map<string, number>()
  #keys: string[] = []

  name(changes: Iterable<readonly [key: string, state: unknown]>): void {
    for (const [key] of changes) {
      if (!this.#places.has(key)) this.#places.set(key, this.#keys.push(key) - 1)
    }
  }

  pack({ keys, rows }: Counters): PackedCounters {
    const places = Uint32Array.from(keys, (key) => this.#places.get(key)!)
    return [bytesOf(places), bytesOf(rows)]
  }

  /** @throws Error where it is not what `pack` makes of keys that are among `states` */
  unpack([places, rows]: PackedCounters, width: number, states: ReadonlyMap<string, unknown>): Counters {
    // Copied, to be aligned; not by slice(), which of a Buffer copies nothing.
    const keys = Array.from(new Uint32Array(new Uint8Array(places).buffer), (place) => this.#keys[place] ?? '')
    const counters = new Float64Array(new Uint8Array(rows).buffer)
    if (counters.length !== width * keys.length || !counters.every(isCount) || !keys.every((key) => states.has(key)))
      throw new Error('counters of what is not known')
    return { keys, rows: counters }
  }
}

const bytesOf = ({ buffer }: { buffer: ArrayBufferLike }) => new Uint8Array(buffer as ArrayBuffer)

const isCount = (n: number): boolean => Number.isSafeInteger(n) && n >= 0

/** What a file names by numbers. */
type Named = { runs: Places; totals: Places }

const namedBy = ({ runs, totals }: Pick<State, 'runs' | 'totals'>): Named => {
  const named = { runs: new Places(), totals: new Places() }
  named.runs.name(runs)
  named.totals.name(totals)
  return named
}

/** @param named gets what is named for the first time */
function entry({ runCounters, totalCounters, ...delta }: Delta, named: Named): Buffer {
  named.runs.name(delta.runs)
  named.totals.name(delta.totals)
  const bytes = encode({
    ...delta,
    ...(runCounters && { runCounters: named.runs.pack(runCounters) }),
    ...(totalCounters && { totalCounters: named.totals.pack(totalCounters) }),
  })
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32LE(bytes.length, 0)
  header.writeUInt32LE(crc32(bytes), 4)
  return Buffer.concat([header, bytes])
}

/** A change as it was appended, or as it was read: what is forgotten is null there. */
type Change<K, V> = [K, V | null | undefined]

function applyTo<K, V>(map: Map<K, V>, changes: Change<K, V>[]): void {
  for (const [key, value] of changes) {
    if (value === null || value === undefined) map.delete(key)
    else map.set(key, value)
  }
}

function apply(
  state: State,
  delta: Delta | (Omit<z.infer<typeof payload>, keyof LedgerCounters> & LedgerCounters),
): void {
  applyTo(state.partitions, delta.partitions)
  applyTo(state.files, delta.files)
  applyTo(state.runs, delta.runs)
  applyTo(state.totals, delta.totals)
  enterCounters(state, delta)
  applyTo(state.index, delta.index)
  applyTo(state.reindexed, delta.reindexed ?? [])
  for (const [day, length] of delta.index) if (length === null || length === undefined) state.reindexed.delete(day)
  if (delta.floor !== undefined) state.floor = delta.floor
  state.appended = Math.max(state.appended, delta.appended ?? 0)
}

/**
 * Enters the entries of `bytes` into `state`.
 * @param named gets what they name
 * @returns the offset behind the last good one
 */
function replay(bytes: Buffer, state: State, named: Named): number {
  let at = MAGIC.length
  while (at + HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt32LE(at)
    const body = bytes.subarray(at + HEADER_BYTES, at + HEADER_BYTES + length)
    // Zeros, as a file system may leave them behind the end, are an empty payload with the right CRC.
    if (length === 0 || body.length < length || crc32(body) !== bytes.readUInt32LE(at + 4)) break
    const { runCounters, totalCounters, ...delta } = payload.parse(decode(body))
    // Of before partitions were remembered.
    for (const [, run] of delta.runs) if (run) run.partition ??= NO_PARTITION
    named.runs.name(delta.runs)
    named.totals.name(delta.totals)
    apply(state, {
      ...delta,
      ...(runCounters && { runCounters: named.runs.unpack(runCounters, RUN_COUNTERS, state.runs) }),
      ...(totalCounters && { totalCounters: named.totals.unpack(totalCounters, TOTAL_COUNTERS, state.totals) }),
    })
    at += HEADER_BYTES + length
  }
  return at
}

const startsWith = (bytes: Buffer, magic: Buffer): boolean => bytes.subarray(0, magic.length).equals(magic)

export class Checkpoint {
  /** What the file says. Kept up with `append`. */
  readonly state: State
  #path: string
  #watchers: ((delta: Delta) => void)[] = []
  #fd: number
  #length: number
  #snapshotLength: number
  #named: Named

  /**
   * Opens the checkpoint at `path`, or begins one where there is none.
   * @throws ConsumerError when the file is there and can't be understood
   */
  constructor(path: string) {
    this.#path = path
    this.state = emptyState()
    this.#named = namedBy(this.state)
    let bytes: Buffer
    try {
      bytes = readFileSync(path)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      this.#snapshotLength = this.#length = this.#writeSnapshot()
      this.#fd = openSync(path, 'r+')
      return
    }
    this.#length = this.#read(bytes)
    // What is appended belongs behind the magic that says so.
    if (startsWith(bytes, MAGIC_BEFORE)) this.#length = this.#writeSnapshot()
    this.#snapshotLength = this.#length
    this.#fd = openSync(path, 'r+')
    ftruncateSync(this.#fd, this.#length)
  }

  #read(bytes: Buffer): number {
    if (!startsWith(bytes, MAGIC) && !startsWith(bytes, MAGIC_BEFORE)) {
      const newer = bytes.toString('latin1', 0, FAMILY.length) === FAMILY
      throw new ConsumerError(
        'CHECKPOINT_FOREIGN',
        newer
          ? `${this.#path} was written by another version of tallyman; start that version, or give this one a new ROOT`
          : `${this.#path} is no checkpoint of tallyman; bring back the file from a backup, or give the consumer a new ROOT: without it every line that Kafka still holds would be written a second time`,
      )
    }
    try {
      return replay(bytes, this.state, this.#named)
    } catch (error) {
      throw new ConsumerError(
        'CHECKPOINT_FOREIGN',
        `${this.#path} holds an entry that this version does not understand: ${(error as Error).message}`,
      )
    }
  }

  /** Appends what has changed, durable when this returns. */
  append(changes: Partial<Delta>): void {
    const delta: Delta = { partitions: [], files: [], runs: [], totals: [], index: [], ...changes }
    const bytes = entry(delta, this.#named)
    // A disk that is nearly full takes a part and says so by the count alone.
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at, bytes.length - at, this.#length + at)
    syncData(this.#fd)
    this.#length += bytes.length
    apply(this.state, delta)
    for (const tell of this.#watchers) tell(delta)
    if (this.#length > 2 * this.#snapshotLength + MIN_DELTA_BYTES) this.#compact()
  }

  /** Tells from now on what has changed, once it is durable. */
  watch(tell: (delta: Delta) => void): void {
    this.#watchers.push(tell)
  }

  close(): void {
    closeSync(this.#fd)
  }

  #compact(): void {
    this.#snapshotLength = this.#length = this.#writeSnapshot()
    closeSync(this.#fd)
    this.#fd = openSync(this.#path, 'r+')
  }

  /** @returns the length of the new file */
  #writeSnapshot(): number {
    const { partitions, files, runs, totals, index, reindexed, floor, appended } = this.state
    const all: Delta = {
      ...{ partitions: [...partitions], files: [...files], index: [...index], reindexed: [...reindexed] },
      ...{ runs: [...runs], totals: [...totals], floor, appended },
    }
    const named = namedBy(this.state)
    const bytes = Buffer.concat([MAGIC, entry(all, named)])
    replaceFile(this.#path, bytes, true)
    this.#named = named
    return bytes.length
  }
}
