/**
 * Retention: which days are kept, and how the others go.
 *
 * A day goes as a whole: its files, then its index. In these steps, each durable before the next:
 *   1. the checkpoint says the floor, the first day that is kept, in one entry with all that has landed
 *   2. the files of earlier days are unlinked, their folders synced, and removed where nothing is left in them
 *   3. the checkpoint forgets those files
 *   4. the index of a day without files is unlinked, and forgotten as well
 *
 * Invariants
 * - From step 1 on nobody looks at those days: lines for them follow the rule of misdated lines, `verify` and the manifests leave
 *   them out. The floor only rises.
 * - Killed at any moment, the next start finds in the checkpoint what is left to unlink, and goes on. Forgotten first, a file
 *   that a kill left there would be nobody's and stay for ever; unlinked first, without the floor, it would be reported missing and its
 *   late lines would begin it anew.
 * - What a second pass from the checkpoint writes is the same: the floor changes between two records, and the checkpoint knows which.
 * - The ledger sums up what it knows of those days. It may do so later than the checkpoint says the floor, and does it again at a start.
 *   Runs that never ended it forgets together with the floor: what a second pass drops as a copy depends on them.
 * - Only files that the checkpoint names are removed, by the day in their name, never what stands in their place: a link, a folder, a
 *   file below a folder that is a link.
 * - A file that is just being compressed, because the disk refused a step of that, stands under two names: it goes once compression has
 *   brought that to an end. Forgotten in between, the name that is not removed would be nobody's.
 * - The live day, and what comes after it, is never removed.
 */
import { join } from 'node:path'
import type { Logger } from 'pino'
import type { Calendar } from './calendar.ts'
import { type Checkpoint, storedAt, storedBytes } from './checkpoint.ts'
import { dayAfter } from './days.ts'
import { codeOf, type Disk } from './disk.ts'
import type { IndexLog } from './index-log.ts'
import type { Layout } from './layout.ts'
import type { Ledger } from './ledger.ts'
import type { Manifests } from './manifests.ts'
import { readFileName } from './names.ts'
import type { Writer } from './writer.ts'

const DAY_MS = 86_400_000
/** A line may stand in the day after that of its arrival, today is not over, and of a run it is known to a day when it was heard of. */
const MORE_DAYS = 3

/** Files are forgotten so many at a time. */
const BATCH = 100

export type RetentionOptions = {
  root: string
  disk: Disk
  checkpoint: Pick<Checkpoint, 'state' | 'append'>
  manifests: Manifests
  calendar: Calendar
  writer: Pick<Writer, 'forget'>
  index: Pick<IndexLog, 'forget' | 'pathOf'>
  layout: Pick<Layout, 'floor'>
  ledger: Pick<Ledger, 'fold' | 'forgetSilent'>
  /** Days in front of the live one that are kept, and bytes that all files may take up. */
  keepDays: number
  keepBytes: number | undefined
  /** Runs work between two records, with all that has landed in the checkpoint. */
  checkpointed(work: () => void): Promise<void>
  /** Runs work while nothing lands. */
  meanwhile(work: () => void): Promise<void>
  log: Logger
}

export class Retention {
  /** What was removed since the daemon started. */
  readonly removed = { files: 0, bytes: 0 }
  #options: RetentionOptions

  constructor(options: RetentionOptions) {
    this.#options = options
    this.#raise(options.checkpoint.state.floor)
  }

  /**
   * Removes what is not kept any more.
   * @param stop ends it soon: what is left goes with the next pass
   * @throws Error of the file system
   */
  async run(stop?: AbortSignal): Promise<void> {
    const { checkpoint, checkpointed, calendar, ledger, keepDays, log } = this.#options
    const floor = this.#floor()
    if (floor > checkpoint.state.floor && this.#daysBefore(floor).length > 0) {
      await checkpointed(() => {
        const silent = ledger.forgetSilent(calendar.now - (keepDays + MORE_DAYS) * DAY_MS)
        checkpoint.append({ floor, runs: silent.map((run) => [run, undefined]) })
        this.#raise(floor)
      })
      log.info({ floor }, 'days before this one are removed')
    }
    for (const day of this.#daysBefore(checkpoint.state.floor)) await this.#remove(day, stop)
  }

  /** Has nobody look at the days before it any more. */
  #raise(floor: string): void {
    const { index, layout, ledger } = this.#options
    layout.floor = floor
    ledger.fold(floor)
    for (const day of this.#daysBefore(floor)) index.forget(day)
  }

  /** The first day that is to be kept. */
  #floor(): string {
    const { calendar, manifests, checkpoint, keepDays, keepBytes } = this.#options
    const { today } = calendar
    const { files, floor: before } = checkpoint.state
    const byDays = dayAfter(today, -keepDays)
    let floor = byDays > before ? byDays : before
    if (keepBytes === undefined) return floor
    const kept = [...manifests.files].filter(([day]) => day >= floor).sort(([a], [b]) => (a < b ? -1 : 1))
    const sizes = kept.map(([day, names]): [string, number] => [
      day,
      [...names].reduce((sum, file) => sum + storedBytes(files.get(file)!), 0),
    ])
    let all = sizes.reduce((sum, [, bytes]) => sum + bytes, 0)
    for (const [day, bytes] of sizes) {
      if (all <= keepBytes || day >= today) break
      all -= bytes
      floor = dayAfter(day, 1)
    }
    return floor
  }

  #daysBefore(floor: string): string[] {
    const { manifests, checkpoint } = this.#options
    return [...new Set([...manifests.files.keys(), ...checkpoint.state.index.keys()])]
      .filter((day) => day < floor)
      .sort()
  }

  async #remove(day: string, stop?: AbortSignal): Promise<void> {
    const { disk, checkpoint, manifests, index, log } = this.#options
    const all = [...(manifests.files.get(day) ?? [])]
    const files = all.filter((file) => checkpoint.state.files.get(file)!.packed?.aside === undefined)
    const before = { ...this.removed }
    for (let i = 0; i < files.length; i += BATCH) {
      if (stop?.aborted) return
      await this.#removeFiles(files.slice(i, i + BATCH))
    }
    if (stop?.aborted || files.length < all.length) return
    await disk.remove(index.pathOf(day)).catch(unlessGone)
    checkpoint.append({ index: [[day, undefined]] })
    log.info(
      { day, files: this.removed.files - before.files, bytes: this.removed.bytes - before.bytes },
      'removed a day',
    )
  }

  async #removeFiles(files: string[]): Promise<void> {
    const { root, disk, checkpoint, writer, meanwhile } = this.#options
    writer.forget(files)
    const folders = new Set<string>()
    for (const file of files) {
      const state = checkpoint.state.files.get(file)!
      const stored = storedAt(file, state)
      const { service, module } = readFileName(file)!
      const folder = join(service, module)
      if (!this.#isFolder(service) || !this.#isFolder(folder)) continue
      folders.add(folder)
      if (!this.#isFile(stored)) continue
      await disk.remove(join(root, stored)).catch(unlessGone)
      this.removed.files++
      this.removed.bytes += storedBytes(state)
    }
    for (const folder of folders) await disk.syncFolder(join(root, folder))
    await meanwhile(() => {
      for (const folder of folders) this.#removeEmpty(folder)
      checkpoint.append({ files: files.map((file) => [file, undefined]) })
    })
  }

  #isFolder(path: string): boolean {
    return this.#options.disk.look(join(this.#options.root, path))?.isDirectory() ?? false
  }

  #isFile(path: string): boolean {
    const { root, disk, log } = this.#options
    const found = disk.look(join(root, path))
    if (found && !found.isFile()) {
      log.warn({ code: 'FILE_TAMPERED', file: path }, 'what stands in the place of a file is none, and is left there')
    }
    return found?.isFile() ?? false
  }

  /** A module that has no file any more leaves no folder behind. */
  #removeEmpty(folder: string): void {
    const { root, disk } = this.#options
    try {
      disk.removeFolder(join(root, folder))
      disk.removeFolder(join(root, folder, '..'))
    } catch (error) {
      if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(codeOf(error) ?? '')) throw error
    }
  }
}

function unlessGone(error: unknown): void {
  if (codeOf(error) !== 'ENOENT') throw error
}
