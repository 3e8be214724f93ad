/**
 * Reindexing: the index of a day is made whole again, from Kafka as long as it holds the records, and from the files.
 *
 * A day goes through these steps:
 *   1. with the checkpoint up to date: which bytes of its files no row tells of (blanks.ts); a day that is whole is left at that
 *   2. aside, in `<root>/.tallyman/reindexing/`: the rows that are whole; those of Kafka's records (recognition.ts), of which one
 *      pass over a partition finds those of all days; for what is left, those of what stands in the files (rebuilt-rows.ts)
 *   3. while nothing lands: what was written to the log since, then the file aside is synced and named `<day>.whole`
 *   4. the checkpoint says how long the new log is, and that it is another one
 *   5. it takes the old one's place, and the folder is synced
 *
 * Invariants
 * - A start finds by `<day>.whole`, and by the checkpoint, what a kill between 4 and 5 left, and finishes it before anything reads or
 *   writes an index. What lies aside otherwise is discarded, and the old log is as it was.
 * - A day of which nothing new is known is left as it is: a second time changes nothing.
 * - No file of lines is changed, and lines land meanwhile.
 * - Memory is bounded by files, blanks and runs, not by rows or records.
 */
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import type { Logger } from 'pino'
import type { FetchedRecord } from '../wire/deferred-records.ts'
import type { Extent } from '../wire/group.ts'
import type { Gap, ReindexBody, ReindexEvent, ReindexedDay } from './api-schema.ts'
import { type Blank, Coverage, Surroundings } from './blanks.ts'
import type { Checkpoint, FileState } from './checkpoint.ts'
import { Days } from './days.ts'
import type { Disk } from './disk.ts'
import type { FileReader } from './file-reader.ts'
import {
  type Damage,
  type Damaged,
  damageOf,
  type IndexLog,
  type Names,
  NewIndex,
  type Row,
  readIndex,
} from './index-log.ts'
import { Layout, type LineFormat } from './layout.ts'
import type { RunState } from './ledger.ts'
import { tellGap } from './lines.ts'
import { pathComponent, readFileName } from './names.ts'
import { rebuiltRows } from './rebuilt-rows.ts'
import { Recognition } from './recognition.ts'

/** Time that is taken from others at once. */
const SLICE_MS = 4
const PROGRESS_MS = 250
/** Kafka is asked this often for what it did not give, at these distances. */
const TRIES = 5
const RETRY_MS = 1_000
const WHOLE = '.whole'

export type ReindexSources = {
  /** The folder of the root's own state. */
  state: string
  disk: Disk
  checkpoint: Pick<Checkpoint, 'state' | 'append'>
  index: Pick<IndexLog, 'lengths' | 'pathOf' | 'replaced' | 'watch'>
  text: FileReader
  /** As the ledger knows them. */
  runs: ReadonlyMap<string, RunState>
  namesOf(row: Row): Names
  settings: { LINE_FORMAT: LineFormat; TZ_FILES: string; KEEP_DAYS: number }
  kafka: {
    extents(): Promise<ReadonlyMap<number, Extent | undefined>>
    read(partition: number, from: number, to: number): AsyncIterable<FetchedRecord[]>
  }
  /** Runs work between two records, with all that has landed in the checkpoint. */
  checkpointed<T>(work: () => T): Promise<T>
  /** What the checkpoint says and what is on the disk may differ: the process has to end, and a start sets it right. */
  failed(error: Error): void
  log: Logger
  retryMs?: number
}

/** A day in hand. */
type Work = {
  day: string
  files: ReadonlyMap<string, FileState>
  /** How much of the old log is in the new one. */
  length: number
  blanks: Blank[]
  coverage: Coverage
  /** The new log, once there is something to be put into it. */
  aside?: NewIndex
  /** Rows of the old log that do not count. */
  dropped: number
  /** Bytes of files that rebuilt rows of the old log told of. */
  rebuilt: number
  /** A file of it can't be read. */
  unread?: true
  told: ReindexedDay
}

export class Reindex {
  #sources: ReindexSources
  #aside: string
  /** Done when nobody is at it any more. */
  #last: Promise<void> = Promise.resolve()
  /** How many are at it, or wait for those who are. */
  #asked = 0
  /** Days whose log was looked at since the start, and is whole. */
  #checked = new Set<string>()

  /** Finishes what a kill left. @throws Error of the file system */
  constructor(sources: ReindexSources) {
    this.#sources = sources
    this.#aside = join(sources.state, 'reindexing')
    const { disk, index } = sources
    disk.makeFolder(this.#aside)
    this.#recover()
    const again = (day: string) => void this.#checked.delete(day)
    index.watch({ grown: () => {}, removed: again, replaced: () => {}, damaged: again })
  }

  /**
   * Looks at the logs of days that were not looked at yet; one that is damaged is mended from the files. While somebody has the index mended
   * it is left for the next time: what else is done to files does not wait for that.
   */
  async check(stop: AbortSignal): Promise<void> {
    const { state, index, log } = this.#sources
    for (const [day, length] of index.lengths) {
      if (this.#asked > 0) return
      if (this.#checked.has(day) || stop.aborted) continue
      this.#checked.add(day)
      let damage = 0
      for (const piece of damageOf(state, day, length)) {
        if (piece) damage += piece.to - piece.from
        await turn()
        if (stop.aborted) return
      }
      if (damage === 0 || !index.lengths.has(day)) continue
      if (this.#asked > 0) {
        this.#checked.delete(day)
        return
      }
      log.warn(
        { code: 'INDEX_DAMAGED', day, bytes: damage, of: length },
        'the index of a day is damaged: no line is lost, but some are not found. It is mended from the files now; run `tallyman reindex` to have it as it was, as long as Kafka holds the records',
      )
      await this.#mend(day, stop)
    }
  }

  async #mend(day: string, stop: AbortSignal): Promise<void> {
    const { log } = this.#sources
    try {
      for await (const event of this.run({ day, kafka: false }, stop)) {
        if (event.type !== 'end') continue
        const { days, partial } = event
        if (partial.length > 0) {
          log.warn({ code: 'INDEX_DAMAGED', day, partial }, 'not all of it could be mended; it is tried again')
          this.#checked.delete(day)
        } else log.info({ ...days[0] }, 'the index of a day was mended from the files')
      }
    } catch (error) {
      if (!stop.aborted) throw error
    }
  }

  /**
   * Makes the index whole, once whoever asked before has it done.
   * @param signal ends it where it is: days that are done are done
   * @throws the signal's reason
   */
  async *run(query: ReindexBody, signal: AbortSignal): AsyncGenerator<ReindexEvent> {
    const before = this.#last
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#last = promise
    this.#asked++
    await before
    const works: Work[] = []
    try {
      signal.throwIfAborted()
      yield* this.#run(query, signal, works)
    } catch (error) {
      signal.throwIfAborted()
      const message = `it was not done to its end, and the index is what it was: ${(error as Error).message}`
      yield {
        type: 'end',
        days: works.map(({ told }) => told).filter(({ changed }) => changed),
        partial: [{ message }],
      }
    } finally {
      const { disk, log } = this.#sources
      try {
        for (const { aside } of works) aside?.[Symbol.dispose]()
        for (const name of disk.list(this.#aside)) if (!name.endsWith(WHOLE)) disk.discard(join(this.#aside, name))
      } catch (error) {
        log.warn({ code: 'DISK_REFUSED', err: error }, 'what a reindex left aside could not be removed')
      } finally {
        // Whoever is next waits for this.
        this.#asked--
        resolve()
      }
    }
  }

  async *#run(query: ReindexBody, signal: AbortSignal, works: Work[]): AsyncGenerator<ReindexEvent> {
    const partial: Gap[] = []
    const { positions } = await this.#begin(query, works)
    for (const [i, work] of works.entries()) {
      yield { type: 'progress', step: 'index', done: i, total: works.length }
      await this.#look(work, signal)
    }
    const torn = works.filter(({ blanks, dropped, told }) => blanks.length + dropped + told.damaged > 0)
    const surroundings = new Surroundings(
      torn.flatMap(({ blanks }) => blanks),
      this.#sources.namesOf,
    )
    for (const work of torn) await this.#keepWhole(work, surroundings, signal)
    if (query.kafka) yield* this.#fromKafka(query, torn, surroundings, positions, partial, signal)
    yield* this.#fromFiles(torn, surroundings, partial, signal)
    for (const work of torn) if (!signal.aborted) await this.#finish(work)
    if (!signal.aborted) yield { type: 'end', days: works.map(({ told }) => told), partial }
  }

  /** Takes up the days that are meant, as they are at one moment. */
  async #begin({ day: only }: ReindexBody, works: Work[]) {
    const { checkpoint, checkpointed, index } = this.#sources
    return checkpointed(() => {
      const { files, partitions, floor } = checkpoint.state
      const byDay = Map.groupBy(files, ([file]) => readFileName(file)?.day ?? '')
      byDay.delete('')
      for (const day of [...new Set([...byDay.keys(), ...index.lengths.keys()])].sort()) {
        if (day < floor || day !== (only ?? day)) continue
        const of = new Map(byDay.get(day))
        works.push({
          ...{ day, files: of, length: index.lengths.get(day) ?? 0, blanks: [], coverage: new Coverage(of) },
          ...{ dropped: 0, rebuilt: 0 },
          told: { day, damaged: 0, blank: 0, fromKafka: 0, fromFiles: 0, guessed: 0, changed: false },
        })
      }
      return { positions: new Map(Array.from(partitions, ([partition, { next }]) => [partition, next])) }
    })
  }

  /** Finds what rows that are whole leave blank. */
  async #look(work: Work, signal: AbortSignal): Promise<void> {
    const damaged = ({ from, to }: Damage) => {
      work.told.damaged += to - from
    }
    for await (const rows of this.#rowsOf(work, signal, damaged)) {
      const kept = rows.filter((row) => !row.rebuilt && work.coverage.take(row))
      for (const row of rows) if (row.rebuilt) work.rebuilt += row.bytes
      work.dropped += rows.filter(({ rebuilt }) => !rebuilt).length - kept.length
    }
    work.blanks = work.coverage.blanks
    work.told.blank = work.blanks.reduce((sum, { from, to }) => sum + to - from, 0)
  }

  /** Puts these rows into the new log, and remembers what they say of what is around blanks. */
  async #keepWhole(work: Work, surroundings: Surroundings, signal: AbortSignal): Promise<void> {
    work.aside = new NewIndex(join(this.#aside, work.day))
    const coverage = new Coverage(work.files)
    for await (const rows of this.#rowsOf(work, signal)) {
      const kept = rows.filter((row) => !row.rebuilt && coverage.take(row))
      for (const row of kept) surroundings.take(row)
      work.aside.write(kept)
    }
  }

  /** The rows of the old log; others have their turn. */
  async *#rowsOf({ day, length }: Work, signal: AbortSignal, damaged: Damaged = () => {}): AsyncGenerator<Row[]> {
    let sliced = performance.now()
    for (const rows of readIndex(this.#sources.state, day, length, 0, damaged)) {
      yield rows
      if (performance.now() - sliced < SLICE_MS) continue
      await turn()
      signal.throwIfAborted()
      sliced = performance.now()
    }
  }

  async *#fromKafka(
    { service, module }: ReindexBody,
    works: readonly Work[],
    surroundings: Surroundings,
    positions: ReadonlyMap<number, number>,
    partial: Gap[],
    signal: AbortSignal,
  ): AsyncGenerator<ReindexEvent> {
    const { text, settings, checkpoint, kafka } = this.#sources
    const of = new Map(works.map((work) => [work.day, work]))
    const wanted = works
      .flatMap(({ blanks }) => blanks)
      .filter(({ file }) => {
        const name = readFileName(file)!
        return (
          (service === undefined || name.service === pathComponent(service)) &&
          (module === undefined || name.module === pathComponent(module))
        )
      })
    if (wanted.length === 0) return
    const layout = new Layout(settings.LINE_FORMAT, new Days(settings.TZ_FILES), settings.KEEP_DAYS)
    layout.floor = checkpoint.state.floor
    const partitionOf = (file: string) => checkpoint.state.files.get(file)?.partition ?? -1
    const found = (rows: Row[]) => {
      const kept = rows.filter((row) => of.get(readFileName(row.file)!.day)!.coverage.take(row))
      for (const [day, rows] of Map.groupBy(kept, ({ file }) => readFileName(file)!.day)) {
        const { aside, told } = of.get(day)!
        aside!.write(rows)
        for (const { bytes } of rows) told.fromKafka += bytes
      }
    }
    const unreadable = (file: string, error: Error) => tellGap(partial, file, error)
    const recognition = new Recognition(wanted, partitionOf, { text, layout, surroundings, found, unreadable })
    const partitions = [...new Set(wanted.map(({ file }) => partitionOf(file)))].sort((a, b) => a - b)
    let extents: ReadonlyMap<number, Extent | undefined>
    try {
      extents = await kafka.extents()
    } catch (error) {
      partial.push({ message: `Kafka can't be asked: ${(error as Error).message}` })
      return
    }
    const ranges = partitions.flatMap((partition) => {
      const extent = extents.get(partition)
      if (!extent && extents.has(partition))
        partial.push({ message: `partition ${partition} has no leader that can be reached` })
      const to = Math.min(positions.get(partition) ?? 0, extent?.high ?? 0)
      return extent && to > extent.low ? [{ partition, from: extent.low, to }] : []
    })
    const total = ranges.reduce((sum, { from, to }) => sum + to - from, 0)
    let done = 0
    for (const { partition, from, to } of ranges) {
      try {
        for await (const read of this.#read(partition, from, to, signal)) {
          done += read.length
          yield { type: 'progress', step: 'kafka', done, total }
          for (const message of read) {
            await recognition.take(partition, message)
            message.release?.()
          }
          if (recognition.over(partition)) break
        }
      } catch (error) {
        signal.throwIfAborted()
        partial.push({ message: `partition ${partition} was not read to its end: ${(error as Error).message}` })
      }
    }
    recognition.end()
  }

  /** Records of a partition; what Kafka does not give is asked for again. */
  async *#read(partition: number, from: number, to: number, signal: AbortSignal): AsyncGenerator<FetchedRecord[]> {
    const { kafka, retryMs = RETRY_MS } = this.#sources
    let next = from
    for (let tries = 0; next < to; ) {
      try {
        for await (const messages of kafka.read(partition, next, to)) {
          signal.throwIfAborted()
          yield messages
          next = Number(messages.at(-1)!.offset) + 1
          tries = 0
        }
        return
      } catch (error) {
        signal.throwIfAborted()
        if (++tries === TRIES) throw error
        await new Promise((resolve) => setTimeout(resolve, retryMs))
      }
    }
  }

  async *#fromFiles(
    works: readonly Work[],
    surroundings: Surroundings,
    partial: Gap[],
    signal: AbortSignal,
  ): AsyncGenerator<ReindexEvent> {
    const { text, runs, settings } = this.#sources
    const left = works.flatMap((work) =>
      work.blanks.flatMap((whole) => work.coverage.within(whole).map((blank) => ({ work, whole, blank }))),
    )
    const total = left.reduce((sum, { blank: { from, to } }) => sum + to - from, 0)
    let done = 0
    let told = performance.now()
    for (const { work, whole, blank } of left) {
      yield { type: 'progress', step: 'files', done, total }
      const around = {
        ...surroundings.adjoining(blank),
        of: (container: string) => surroundings.around(blank, container),
        whole: blank.from === whole.from && blank.to === whole.to,
      }
      const state = work.files.get(blank.file)!
      try {
        for await (const rows of rebuiltRows(blank, state, around, { text, runs, format: settings.LINE_FORMAT })) {
          signal.throwIfAborted()
          work.aside!.write(rows)
          for (const { bytes, names } of rows) {
            done += bytes
            work.told[names!.format === 'raw' ? 'guessed' : 'fromFiles'] += bytes
          }
          if (performance.now() - told < PROGRESS_MS) continue
          told = performance.now()
          yield { type: 'progress', step: 'files', done, total }
        }
      } catch (error) {
        signal.throwIfAborted()
        work.unread = true
        tellGap(partial, blank.file, error as Error)
      }
    }
  }

  /** Puts a new log in the place of the old one, where it tells more. */
  async #finish(work: Work): Promise<void> {
    const { told, day } = work
    const aside = work.aside!
    const { checkpointed, index, checkpoint } = this.#sources
    const same = told.fromFiles + told.guessed === work.rebuilt && told.fromKafka === 0
    // What a file that can't be read holds was told by rows that are kept nowhere else.
    if ((same || (work.unread && told.fromKafka === 0)) && told.damaged === 0 && work.dropped === 0) return
    // Most of what came meanwhile, so that less is to be done while nothing lands.
    await this.#catchUp(work)
    // With the checkpoint at what has landed: rows are written ahead of it, and a kill would have those lines land again.
    await checkpointed(() => {
      // It may have been removed.
      if (day < checkpoint.state.floor) return
      for (const rows of readIndex(this.#sources.state, day, index.lengths.get(day) ?? 0, work.length, () => {}))
        aside.write(rows)
      aside.sync()
      this.#replace(day, aside.length)
      told.changed = true
    })
  }

  async #catchUp(work: Work): Promise<void> {
    const length = this.#sources.index.lengths.get(work.day) ?? 0
    for (const rows of readIndex(this.#sources.state, work.day, length, work.length, () => {})) {
      work.aside!.write(rows)
      await turn()
    }
    work.length = length
  }

  /** In one turn: nothing is written to either log meanwhile. */
  #replace(day: string, length: number): void {
    const { disk, checkpoint, index, failed } = this.#sources
    const whole = join(this.#aside, `${day}${WHOLE}`)
    disk.rename(join(this.#aside, day), whole)
    disk.syncFolderNow(this.#aside)
    const times = (checkpoint.state.reindexed.get(day)?.times ?? 0) + 1
    const was = index.lengths.get(day) ?? 0
    checkpoint.append({ index: [[day, length]], reindexed: [[day, { times, was, now: length }]] })
    try {
      this.#putInPlace(day)
    } catch (error) {
      failed(error as Error)
      throw error
    }
    index.replaced(day, length)
    this.#checked.add(day)
  }

  #putInPlace(day: string): void {
    const { disk, index } = this.#sources
    const path = index.pathOf(day)
    disk.makeFolder(join(path, '..'))
    disk.rename(join(this.#aside, `${day}${WHOLE}`), path)
    disk.syncFolderNow(join(path, '..'))
  }

  #recover(): void {
    const { disk, checkpoint } = this.#sources
    for (const name of disk.list(this.#aside)) {
      const path = join(this.#aside, name)
      const day = name.slice(0, -WHOLE.length)
      const length = disk.look(path)?.size
      const { index, reindexed } = checkpoint.state
      if (name.endsWith(WHOLE) && length === index.get(day) && length === reindexed.get(day)?.now) this.#putInPlace(day)
      else disk.discard(path)
    }
  }
}
