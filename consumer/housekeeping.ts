/**
 * Housekeeping: what is done to files that nobody writes any more, one thing after the other, a pass each EVERY_MS.
 *
 * A pass that fails is told and made again; nothing that lands waits for it. None is made before the consumer has written again
 * what was claimed before a kill. Sequence that breaks otherwise: lines are flushed and not in the checkpoint yet, a kill, a start an
 * hour later; their file is sealed as the checkpoint knows it, they land again in a new segment, and stand in both.
 */
import type { Logger } from 'pino'
import { Calendar } from './calendar.ts'
import type { Checkpoint } from './checkpoint.ts'
import { Compression } from './compression.ts'
import { Compressor } from './compressor.ts'
import { Days, dayAfter } from './days.ts'
import type { DeadLetters } from './dead-letters.ts'
import { disk } from './disk.ts'
import type { DiskSpace } from './disk-space.ts'
import type { IndexLog } from './index-log.ts'
import type { Landing } from './landing.ts'
import type { Layout } from './layout.ts'
import type { Ledger } from './ledger.ts'
import type { Manifests } from './manifests.ts'
import type { Metrics } from './metrics.ts'
import type { Reindex } from './reindex.ts'
import { Retention } from './retention.ts'
import type { Root } from './root.ts'
import type { Settings } from './settings.ts'
import type { Subscriber } from './subscriber.ts'
import type { Writer } from './writer.ts'

const EVERY_MS = 60_000
/** It is looked this often whether passes may begin. */
const LOOK_MS = 500

export type HousekeepingSources = {
  root: Root
  settings: Pick<Settings, 'TZ_FILES' | 'KEEP_DAYS' | 'KEEP_BYTES' | 'COMPRESS' | 'COMPRESS_AFTER'>
  checkpoint: Checkpoint
  manifests: Manifests
  landing: Pick<Landing, 'newest'>
  writer: Writer
  index: IndexLog
  layout: Layout
  ledger: Ledger
  letters: DeadLetters
  subscriber: Pick<Subscriber, 'meanwhile' | 'checkpointed' | 'recovered'>
  reindex: Pick<Reindex, 'check'>
  space: Pick<DiskSpace, 'paused'>
  metrics: Pick<Metrics, 'figure'>
  log: Logger
}

/** All of it, in order, not yet begun but for what an earlier daemon left unfinished. @throws Error of the file system */
export function housekeepingOf(sources: HousekeepingSources): Housekeeping {
  const { root, settings, checkpoint, manifests, landing, writer, index, layout, ledger, letters, metrics, log } =
    sources
  const { KEEP_DAYS: keepDays } = settings
  // Apart from landing's, which knows few days and has them at hand.
  const days = new Days(settings.TZ_FILES)
  const calendar = new Calendar(days, () => landing.newest, checkpoint.state.appended)
  const shared = {
    root: root.path,
    ...{ disk, checkpoint, manifests, calendar, writer, log },
    meanwhile: <T>(work: () => T) => sources.subscriber.meanwhile(work),
  }
  const compression = new Compression({
    ...{ ...shared, state: root.state, as: settings.COMPRESS, after: settings.COMPRESS_AFTER },
    compressor: new Compressor(),
  })
  const retention = new Retention({
    ...{ ...shared, index, layout, ledger, keepDays, keepBytes: settings.KEEP_BYTES },
    checkpointed: (work) => sources.subscriber.checkpointed(work),
  })
  const expire = () => letters.expire(days.named(dayAfter(calendar.today, -keepDays)).start)
  const { removed } = retention
  const { compressed } = compression
  metrics.figure('files_removed_total', 'Files of days that are not kept any more.', () => removed.files)
  metrics.figure('bytes_removed_total', 'Bytes that those files took up.', () => removed.bytes)
  metrics.figure('files_compressed_total', 'Files that were compressed.', () => compressed.files)
  metrics.figure('compress_text_bytes_total', 'Bytes of text in those files.', () => compressed.before)
  metrics.figure('compress_stored_bytes_total', 'Bytes that they take up now.', () => compressed.after)
  metrics.figure('compress_failed_total', 'Files that can not be compressed and stay plain.', () => compressed.failed)
  metrics.figure('stored_bytes', 'Bytes that all files take up.', () => manifests.stored)
  metrics.figure('dead_letters', 'Dead letters that are kept.', () => letters.kept.letters)
  metrics.figure('dead_letters_bytes', 'Bytes that they take up.', () => letters.kept.bytes)
  metrics.figure('dead_letters_dropped_total', 'Such records as had no room.', () => letters.counts.dropped)
  metrics.figure('dead_letters_expired_total', 'Dead letters that grew too old.', () => letters.counts.expired)
  metrics.figure('dead_letters_replayed_total', 'Dead letters that were replayed.', () => letters.counts.replayed)
  const { subscriber, space, reindex } = sources
  const compress = async (stop: AbortSignal): Promise<void> => {
    if (subscriber.recovered) await compression.run(stop)
  }
  // On a disk without room nothing is written again before there is some, and removing makes it.
  const ready = () => subscriber.recovered || space.paused
  return new Housekeeping({
    parts: [(stop) => retention.run(stop), (stop) => reindex.check(stop), expire, compress],
    ready,
    log,
  })
}

export type HousekeepingOptions = {
  /** Parts of a pass, in their order. Each ends soon once `stop` is aborted. */
  parts: readonly ((stop: AbortSignal) => Promise<void>)[]
  /** Whether passes may begin. */
  ready(): boolean
  log: Logger
  everyMs?: number
  lookMs?: number
}

export class Housekeeping {
  #options: HousekeepingOptions
  #stop = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #pass: Promise<void> | undefined

  constructor(options: HousekeepingOptions) {
    this.#options = options
  }

  /** Begins the first pass, as soon as it may. */
  start(): void {
    const { ready, everyMs = EVERY_MS, lookMs = LOOK_MS } = this.#options
    const again = (ms: number) => {
      if (!this.#stop.signal.aborted) this.#timer = setTimeout(() => this.start(), ms)
    }
    if (ready()) this.#pass = this.#run().finally(() => again(everyMs))
    else again(lookMs)
  }

  /** Resolves once nothing is in hand any more. */
  async stop(): Promise<void> {
    this.#stop.abort()
    clearTimeout(this.#timer)
    await this.#pass
  }

  async #run(): Promise<void> {
    const { parts, log } = this.#options
    for (const part of parts) {
      if (this.#stop.signal.aborted) return
      try {
        await part(this.#stop.signal)
      } catch (error) {
        log.warn(
          { code: 'HOUSEKEEPING_FAILED', err: error },
          'files could not be removed or compressed as they should; nothing is lost, and it is tried again',
        )
      }
    }
  }
}
