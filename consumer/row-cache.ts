/**
 * The index as it is read: the rows of whole days in columns, kept in memory up to a bound, and those that are not in any day's log
 * yet.
 *
 * Invariants
 * - A row that has landed is found: in a day's columns, or among the pending ones, never in both.
 * - A day stays what it was read as but for growing: what the index writes from then on is taken up as it is written.
 * - A day that is too large to be kept is read anew for each question, and only what is asked for is held meanwhile.
 * - Reading a day gives the event loop back every few ms: lines land meanwhile.
 * - What a damaged log does not tell of is left out, and every answer says so.
 */
import { setImmediate as turn } from 'node:timers/promises'
import type { Gap } from './api-schema.ts'
import type { FileState, Reindexed } from './checkpoint.ts'
import { type Damage, type IndexLog, type Names, type Row, readBlocks, readIndex } from './index-log.ts'
import type { LineFormat } from './layout.ts'
import type { RunState } from './ledger.ts'
import { nameOf, readFileName } from './names.ts'
import { type Stretch, stretchOf } from './stored-line.ts'

/** Bytes of a row in the columns. */
const ROW_BYTES = 5 * 4 + 3 * 8
const SLICE_MS = 4
/** A steady trickle of lines makes a row for each checkpoint; for reading they are joined up to these bounds. */
const JOINED_BYTES = 64 * 1024
const JOINED_MS = 10_000
/** After so many rows those that came one by one are joined. */
const JOIN_EVERY = 65_536
/** Stretches of a log of which it is known from when to when they are. */
const PART_BYTES = 256 * 1024

/** Which rows are meant. Times are ms since 1970; `until` is left out. */
export type Wanted = {
  since: number
  until: number
  names(names: Names): boolean
  stdout: boolean
  stderr: boolean
  /** Only what stands in front of these places, by file. */
  lengths?: ReadonlyMap<string, number>
}

const NARROW = ['file', 'name', 'bytes', 'lines', 'stderr'] as const
const WIDE = ['position', 'tmin', 'tmax'] as const
const COLUMNS = [...NARROW, ...WIDE] as const

/** Rows in columns. `file` and `names` are places in the lists. */
export class Rows {
  count = 0
  readonly files: string[] = []
  readonly names: Names[] = []
  file = new Uint32Array(64)
  name = new Uint32Array(64)
  bytes = new Uint32Array(64)
  lines = new Uint32Array(64)
  stderr = new Uint32Array(64)
  position = new Float64Array(64)
  tmin = new Float64Array(64)
  tmax = new Float64Array(64)
  #fileOf = new Map<string, number>()
  #nameOf = new Map<string, number>()
  #lastNames: [names: Names, place: number] | undefined

  get size(): number {
    return this.file.length * ROW_BYTES
  }

  add(row: Row, names: Names): void {
    const { file, position, bytes, lines, stderr, tmin, tmax } = stretchOf(row, names)
    const i = this.count++
    if (i === this.file.length) this.#grow()
    this.file[i] = this.#placeOfFile(file)
    this.name[i] = this.#placeOfNames(names)
    this.bytes[i] = bytes
    this.lines[i] = lines
    this.stderr[i] = stderr
    this.position[i] = position
    this.tmin[i] = tmin
    this.tmax[i] = tmax
  }

  at(i: number): Stretch {
    return {
      file: this.files[this.file[i]!]!,
      position: this.position[i]!,
      bytes: this.bytes[i]!,
      lines: this.lines[i]!,
      stderr: this.stderr[i]!,
      tmin: this.tmin[i]!,
      tmax: this.tmax[i]!,
      names: this.names[this.name[i]!]!,
    }
  }

  /**
   * The same lines in fewer rows: those of one file and the same names that stand together, and were printed together, are one. Not
   * in `raw`, where a line has the time of its row.
   */
  joined(): Rows {
    const rows = new Rows()
    /** Of each file the last row. */
    const lasts: number[] = []
    for (let i = 0; i < this.count; i++) {
      const file = this.file[i]!
      const last = lasts[file]
      if (last !== undefined && this.#joins(i, rows, last)) {
        rows.bytes[last]! += this.bytes[i]!
        rows.lines[last]! += this.lines[i]!
        rows.stderr[last]! += this.stderr[i]!
        rows.tmin[last] = Math.min(rows.tmin[last]!, this.tmin[i]!)
        rows.tmax[last] = Math.max(rows.tmax[last]!, this.tmax[i]!)
      } else {
        lasts[file] = rows.count
        rows.#put(this, i)
      }
    }
    rows.files.push(...this.files)
    rows.names.push(...this.names)
    for (const [place, name] of this.files.entries()) rows.#fileOf.set(name, place)
    for (const [key, place] of this.#nameOf) rows.#nameOf.set(key, place)
    return rows
  }

  /** Whether a row goes on where the last one of its file in `into` ends. */
  #joins(i: number, into: Rows, last: number): boolean {
    return (
      into.position[last]! + into.bytes[last]! === this.position[i] &&
      into.name[last] === this.name[i] &&
      into.bytes[last]! + this.bytes[i]! <= JOINED_BYTES &&
      Math.max(into.tmax[last]!, this.tmax[i]!) - Math.min(into.tmin[last]!, this.tmin[i]!) <= JOINED_MS &&
      this.names[this.name[i]!]!.format !== 'raw'
    )
  }

  #put(from: Rows, i: number): void {
    const to = this.count++
    if (to === this.file.length) this.#grow()
    for (const key of COLUMNS) this[key][to] = from[key][i]!
  }

  /** The places of the wanted rows. */
  pick({ since, until, names, stdout, stderr }: Wanted): Uint32Array {
    const meant = this.names.map(names)
    const picked = new Uint32Array(this.count)
    let count = 0
    for (let i = 0; i < this.count; i++) {
      if (this.tmax[i]! < since || this.tmin[i]! >= until || !meant[this.name[i]!]) continue
      if (this.stderr[i] === 0 ? !stdout : this.stderr[i] === this.lines[i] && !stderr) continue
      picked[count++] = i
    }
    return picked.slice(0, count)
  }

  #placeOfFile(file: string): number {
    let place = this.#fileOf.get(file)
    if (place === undefined) {
      place = this.files.push(file) - 1
      this.#fileOf.set(file, place)
    }
    return place
  }

  #placeOfNames(names: Names): number {
    if (this.#lastNames?.[0] === names) return this.#lastNames[1]
    const key = JSON.stringify([names.service, names.module, names.host, names.container, names.format])
    let place = this.#nameOf.get(key)
    if (place === undefined) {
      place = this.names.push(names) - 1
      this.#nameOf.set(key, place)
    }
    this.#lastNames = [names, place]
    return place
  }

  #grow(): void {
    const larger = <T extends Uint32Array | Float64Array>(column: T, empty: T): T => {
      empty.set(column)
      return empty
    }
    const capacity = this.file.length * 2
    for (const key of NARROW) this[key] = larger(this[key], new Uint32Array(capacity))
    for (const key of WIDE) this[key] = larger(this[key], new Float64Array(capacity))
  }
}

/** Rows of a day that a question wants: the places `picked` of `rows`. */
export type Picked = { rows: Rows; picked: Uint32Array }

/** From when to when the lines of a day are, at the widest. */
type Bounds = { tmin: number; tmax: number }

/** A place in a day's log, and which one it is of those that have had its place. */
export type IndexPlace = { length: number; times: number }

/** A day that is kept, and how many rows it had when they were joined last. */
type Day = { rows: Rows; joined: number; used: number }

export type RowCacheOptions = {
  /** The folder of the root's own state. */
  state: string
  index: IndexLog
  /** Files as the checkpoint says. */
  files: ReadonlyMap<string, FileState>
  /** Days whose log is another one than it was. */
  reindexed: ReadonlyMap<string, Reindexed>
  /** Runs that the ledger remembers: rows of old do not say their names. */
  runs: ReadonlyMap<string, RunState>
  /** Format of rows that do not say theirs. */
  format: LineFormat
  /** For rows that are kept. */
  maxBytes: number
}

export class RowCache {
  #options: RowCacheOptions
  #days = new Map<string, Day>()
  /** Of what is in the logs. */
  #bounds = new Map<string, Bounds>()
  /** Days that are too large to be kept. */
  #large = new Set<string>()
  /** From when to when the rows of a stretch of a day's log are, one after the other from its beginning on: what is not wanted is skipped. */
  #parts = new Map<string, (Bounds & { next: number })[]>()
  #loading = new Map<string, Promise<Rows | undefined>>()
  /** Of a day what its log does not tell of. */
  #damage = new Map<string, Map<number, Damage>>()
  #unnamed = new Map<string, Names>()
  #uses = 0

  constructor(options: RowCacheOptions) {
    this.#options = options
    for (const [file, { lines, first, last }] of options.files) {
      const name = readFileName(file)
      if (name && lines > 0) this.#widen(name.day, first, last)
    }
    options.index.watch({
      grown: (day, rows) => this.#grown(day, rows),
      replaced: (day) => this.#forget(day),
      removed: (day) => {
        this.#forget(day)
        this.#bounds.delete(day)
      },
    })
  }

  /** Days that have rows, the oldest first. */
  get days(): string[] {
    const { lengths, pending } = this.#options.index
    return [...new Set([...lengths.keys(), ...pending.keys()])].sort()
  }

  /** From when to when the lines of a day are, at the widest. */
  bounds(day: string): Bounds {
    const bounds = { tmin: Number.POSITIVE_INFINITY, tmax: Number.NEGATIVE_INFINITY, ...this.#bounds.get(day) }
    for (const { tmin, tmax } of this.#options.index.pending.get(day) ?? []) {
      bounds.tmin = Math.min(bounds.tmin, tmin)
      bounds.tmax = Math.max(bounds.tmax, tmax)
    }
    return bounds
  }

  /**
   * The rows of a day that are wanted: those of its log, and the pending ones.
   * @param partial gets what of the log cannot be read
   */
  async day(name: string, wanted: Wanted, partial: Gap[]): Promise<Picked[]> {
    const tell = (message: string) => partial.push({ file: `.tallyman/index/${name}`, message })
    try {
      const picked = await this.#day(name, wanted)
      const damage = this.#damage.get(name)
      if (damage) tell(damageMessage(damage.values().toArray()))
      return picked
    } catch (error) {
      tell((error as Error).message)
      return this.#pending(name, wanted)
    }
  }

  async #day(name: string, wanted: Wanted): Promise<Picked[]> {
    const length = this.#options.index.lengths.get(name)
    const bounds = this.#bounds.get(name)
    if (length === undefined || !bounds || bounds.tmax < wanted.since || bounds.tmin >= wanted.until)
      return this.#pending(name, wanted)
    const kept = this.#days.get(name)
    if (kept) kept.used = ++this.#uses
    const rows = kept?.rows ?? (await this.#load(name))
    if (rows) return [{ rows, picked: rows.pick(wanted) }, ...this.#pending(name, wanted)]
    return this.#read(name, wanted, (read) => [
      { rows: read, picked: read.pick(wanted) },
      ...this.#pending(name, wanted),
    ])
  }

  /** Reads the newest day, so that who asks first need not wait for it. */
  async warm(): Promise<void> {
    const newest = [...this.#options.index.lengths].sort().at(-1)
    if (newest) await this.#load(newest[0])
  }

  /**
   * What was written to the index behind a place in it, in the order in which it landed.
   * @param places how long each day's log was; they move on with what is given
   * @param pending whether rows are given that are not in a log yet
   * @param partial gets what is not given
   */
  async *behind(
    places: Map<string, IndexPlace>,
    wanted: Wanted,
    pending: boolean,
    partial: Gap[],
  ): AsyncGenerator<Stretch[]> {
    const { state, index, reindexed } = this.#options
    const given = (rows: readonly Row[]): Stretch[] => {
      const given = new Rows()
      for (const row of rows) given.add(row, this.namesOf(row))
      return Array.from(given.pick(wanted), (i) => given.at(i))
    }
    // A day can grow while a later one is read: it is over once nothing has, from the first to the last, in one turn.
    for (let grown = true; grown; ) {
      grown = false
      for (const day of [...index.lengths.keys()].sort()) {
        const times = reindexed.get(day)?.times ?? 0
        const place = this.#placeIn(day, places.get(day), partial)
        // A log that is shorter than it was is another one.
        for (let from = place > index.lengths.get(day)! ? 0 : place; from < (index.lengths.get(day) ?? 0); ) {
          grown = true
          const length = index.lengths.get(day)!
          const damage: Damage[] = []
          // A place in front of which something was written over is none any more: all of the day is given again.
          const misplaced = (): boolean => from > 0 && damage[0]?.from === from
          for (const rows of readIndex(state, day, length, from, (each) => damage.push(each))) {
            if (misplaced()) break
            yield given(rows)
          }
          if (misplaced()) {
            from = 0
            continue
          }
          if (damage.length > 0) partial.push({ file: `.tallyman/index/${day}`, message: damageMessage(damage) })
          from = length
          places.set(day, { length, times })
          // What is written to another one that takes its place is looked for from here on.
          if ((reindexed.get(day)?.times ?? 0) !== times) break
        }
      }
    }
    // Not behind an await: what is written from here on is not pending any more.
    if (pending) yield [...index.pending.values()].flatMap(given)
  }

  /** Names of a row, also of one that does not say them. */
  namesOf({ run, file, names }: Row): Names {
    if (names) return names
    const { runs, format } = this.#options
    const [service = '', module = ''] = file.split('/')
    const known = runs.get(run)
    const key = JSON.stringify([run, service, module])
    let unnamed = this.#unnamed.get(key)
    if (!unnamed) {
      unnamed = {
        service: known?.service ?? nameOf(service),
        module: known?.module ?? nameOf(module),
        ...{ host: known?.host ?? '', container: known?.container ?? '', format },
      }
      this.#unnamed.set(key, unnamed)
    }
    return unnamed
  }

  /** Where in a day's log a place of before is now. */
  #placeIn(day: string, place: IndexPlace | undefined, partial: Gap[]): number {
    const now = this.#options.reindexed.get(day)
    // All of a log is new to who knows nothing of it.
    if (!place || place.length === 0) return 0
    if (!now || place.times === now.times) return place.length
    // Who had all of the log before has what this one holds up to here.
    if (place.times !== now.times - 1 || place.length !== now.was) {
      const message =
        'the index of this day was rebuilt meanwhile, and does not tell what landed between; what did is left out here'
      partial.push({ file: `.tallyman/index/${day}`, message })
    }
    return now.now
  }

  #pending(day: string, wanted: Wanted): Picked[] {
    const pending = this.#options.index.pending.get(day)
    if (!pending) return []
    const rows = new Rows()
    for (const row of pending) rows.add(row, this.namesOf(row))
    return [{ rows, picked: rows.pick(wanted) }]
  }

  #forget(name: string): void {
    this.#days.delete(name)
    this.#large.delete(name)
    this.#parts.delete(name)
    this.#damage.delete(name)
  }

  #grown(name: string, rows: readonly Row[]): void {
    const kept = this.#days.get(name)
    for (const row of rows) {
      this.#widen(name, row.tmin, row.tmax)
      kept?.rows.add(row, this.namesOf(row))
    }
    // Not in place: a question that is being answered holds on to the rows as they were.
    if (kept && kept.rows.count > 2 * kept.joined + JOIN_EVERY) {
      kept.rows = kept.rows.joined()
      kept.joined = kept.rows.count
    }
  }

  #widen(day: string, tmin: number, tmax: number): void {
    const bounds = this.#bounds.get(day)
    if (!bounds) this.#bounds.set(day, { tmin, tmax })
    else {
      bounds.tmin = Math.min(bounds.tmin, tmin)
      bounds.tmax = Math.max(bounds.tmax, tmax)
    }
  }

  /** Reads a day to keep it, once for all who ask meanwhile. @returns undefined where it is too large for that */
  #load(name: string): Promise<Rows | undefined> {
    if (this.#large.has(name)) return Promise.resolve(undefined)
    let loading = this.#loading.get(name)
    if (!loading) {
      loading = this.#read(name, undefined, (rows) => this.#keep(name, rows)).finally(() => {
        this.#loading.delete(name)
        this.#trim(name)
      })
      this.#loading.set(name, loading)
    }
    return loading
  }

  /** @returns undefined where they are too many */
  #keep(name: string, read: Rows): Rows | undefined {
    const { index, maxBytes } = this.#options
    const rows = read.joined()
    if (rows.size > maxBytes) {
      this.#large.add(name)
      return undefined
    }
    if (index.lengths.has(name)) this.#days.set(name, { rows, joined: rows.count, used: ++this.#uses })
    return rows
  }

  /**
   * Reads a day's log as far as it is written.
   * @param wanted the only rows that are given back
   * @param done gets them in the turn in which no other is written yet: what is written from then on comes by the watch
   */
  async #read<T>(name: string, wanted: Wanted | undefined, done: (rows: Rows) => T): Promise<T> {
    const { state, index, reindexed, maxBytes } = this.#options
    const log = reindexed.get(name)
    let rows = new Rows()
    let joined = 0
    let sliced = performance.now()
    const take = (row: Row): void => {
      if (wanted && (row.tmax < wanted.since || row.tmin >= wanted.until)) return
      const names = this.namesOf(row)
      if (!wanted || wanted.names(names)) rows.add(row, names)
      if (rows.count <= 2 * joined + JOIN_EVERY) return
      rows = rows.joined()
      joined = rows.count
    }
    const parts = this.#parts.get(name) ?? []
    this.#parts.set(name, parts)
    for (let at = 0, i = 0; at < (index.lengths.get(name) ?? 0); i++) {
      const known = parts[i]
      if (known && wanted && (known.tmax < wanted.since || known.tmin >= wanted.until)) {
        at = known.next
        continue
      }
      const part = { tmin: Number.POSITIVE_INFINITY, tmax: Number.NEGATIVE_INFINITY, next: at }
      const length = known?.next ?? index.lengths.get(name)!
      const damaged = (damage: Damage) => {
        part.next = damage.to
        this.#damaged(name, damage)
      }
      for (const block of readBlocks(state, name, length, at, damaged)) {
        for (const row of block.rows) {
          part.tmin = Math.min(part.tmin, row.tmin)
          part.tmax = Math.max(part.tmax, row.tmax)
          take(row)
        }
        part.next = block.next
        if (performance.now() - sliced > SLICE_MS) {
          await turn()
          // Another log has its place: what was read so far was of the one before.
          if (reindexed.get(name) !== log) return this.#read(name, wanted, done)
          sliced = performance.now()
        }
        if (!known && block.next - at >= PART_BYTES) break
      }
      // One that is shorter grows, and is not remembered.
      if (!known && part.next - at >= PART_BYTES && parts.length === i) parts.push(part)
      at = part.next
      if (!wanted && rows.size > 4 * maxBytes) break
    }
    return done(rows)
  }

  #damaged(day: string, damage: Damage): void {
    const known = this.#damage.get(day) ?? new Map<number, Damage>()
    this.#damage.set(day, known.set(damage.from, damage))
  }

  /** Lets go of the days that were asked for the longest ago, but for `current`, until what is kept is within its bound. */
  #trim(current: string): void {
    const oldest = [...this.#days].sort(([, a], [, b]) => a.used - b.used)
    let size = oldest.reduce((sum, [, { rows }]) => sum + rows.size, 0)
    for (const [name, { rows }] of oldest) {
      if (size <= this.#options.maxBytes || name === current) continue
      size -= rows.size
      this.#days.delete(name)
    }
  }
}

/** What is said of a day whose log is damaged. */
export function damageMessage(damage: readonly Damage[]): string {
  const bytes = damage.reduce((sum, { from, to }) => sum + to - from, 0)
  return `the index of this day is damaged: ${bytes} bytes of it, from byte ${damage[0]!.from} on, tell nothing, and the lines they told of are not found; tallyman reindex mends it`
}
