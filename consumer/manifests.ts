/**
 * Manifests: what there is of a module's day, from what the checkpoint knows. No file is opened to list them.
 *
 * Invariants
 * - They tell of what is durable, no more: a line that has just landed is in them once the checkpoint is.
 * - Names are those that containers have, not those of folders: the ledger remembers them.
 * - Days that are removed, or about to be, are not in them.
 */
import type { LineCount } from './api-schema.ts'
import { type Checkpoint, type State, storedBytes } from './checkpoint.ts'
import { OLDER, type Totals } from './ledger.ts'
import { countOf } from './ledger-api.ts'
import { folderOf, nameOf, readFileName } from './names.ts'

/** A file of a module's day. */
export type ManifestFile = {
  /** Path of its text below the root: that of the plain file, also where it is compressed. */
  file: string
  /** 0 for the first one; what came late for a file that was closed stands in a later one. */
  segment: number
  /** Which partition writes it. */
  partition: number
  lines: number
  /** Bytes of its text. */
  bytes: number
  /** Bytes that it takes up. */
  stored: number
  compressed: 'zst' | 'gz' | undefined
  /** Times of its earliest and its latest line, ms since 1970. */
  first: number
  last: number
}

/** A module's day: its files in the order of their names, and their sums. */
export type Manifest = {
  service: string
  module: string
  day: string
  files: ManifestFile[]
  lines: number
  bytes: number
  stored: number
  first: number
  last: number
  /** What came of the lines of that day. */
  ledger: LineCount
}

export type ManifestQuery = {
  /** Which modules. */
  wanted?: (names: { service: string; module: string }) => boolean
  /** First and last day. */
  since?: string
  until?: string
}

/** What is known of a module: its names, and of each day its files and its ledger's keys. */
type Module = {
  service: string
  module: string
  days: Map<string, Day>
}
type Day = { folder: string; name: string; files: Set<string>; totals: Set<string> }

export class Manifests {
  #state: State
  /** By `service/module` as folders are named. */
  #modules = new Map<string, Module>()
  #files = new Map<string, Set<string>>()
  /** Where files and keys of totals stand: nearly always one has only grown. */
  #known = new Map<string, Day>()

  constructor(checkpoint: Pick<Checkpoint, 'state' | 'watch'>) {
    this.#state = checkpoint.state
    for (const file of this.#state.files.keys()) this.#file(file, true)
    for (const [key, totals] of this.#state.totals) this.#total(key, totals)
    checkpoint.watch(({ files, totals }) => {
      for (const [file, state] of files) this.#file(file, state !== undefined)
      for (const [key, of] of totals) this.#total(key, of)
    })
  }

  /** Files by their day, those of removed days too while they are there. */
  get files(): ReadonlyMap<string, ReadonlySet<string>> {
    return this.#files
  }

  /** Bytes that all files take up. */
  get stored(): number {
    return this.#state.files.values().reduce((sum, file) => sum + storedBytes(file), 0)
  }

  /** Modules that have files. */
  *modules(): Generator<{ service: string; module: string }> {
    for (const { service, module, days } of this.#modules.values()) {
      if (days.values().some(({ files }) => files.size > 0)) yield { service, module }
    }
  }

  /** Module by module, each from its oldest day on. */
  *list({ wanted = () => true, since = '', until = '9999-12-31' }: ManifestQuery = {}): Generator<Manifest> {
    const from = since > this.#state.floor ? since : this.#state.floor
    for (const module of this.#modules.values()) {
      if (!wanted(module)) continue
      for (const day of [...module.days.keys()].sort()) {
        if (day < from || day > until) continue
        const manifest = this.#manifest(module, day)
        if (manifest.files.length > 0) yield manifest
      }
    }
  }

  #manifest({ service, module, days }: Module, day: string): Manifest {
    const { files, totals } = days.get(day)!
    const manifest: Manifest = {
      ...{ service, module, day, files: [...files].sort().map((file) => this.#manifestFile(file)) },
      ...{ lines: 0, bytes: 0, stored: 0, first: 0, last: 0 },
      ledger: countOf(Array.from(totals, (key) => this.#state.totals.get(key)!)),
    }
    for (const { lines, bytes, stored, first, last } of manifest.files) {
      if (lines === 0) continue
      manifest.first = manifest.lines === 0 ? first : Math.min(manifest.first, first)
      manifest.last = Math.max(manifest.last, last)
      manifest.lines += lines
      manifest.bytes += bytes
      manifest.stored += stored
    }
    return manifest
  }

  #manifestFile(file: string): ManifestFile {
    const state = this.#state.files.get(file)!
    const { partition, lines, length: bytes, first, last, packed } = state
    return {
      ...{ file, segment: readFileName(file)!.segment, partition, lines, bytes, stored: storedBytes(state) },
      ...{ compressed: packed?.as, first, last },
    }
  }

  #file(file: string, there: boolean): void {
    const known = this.#known.get(file)
    if (known && !there) this.#forget(file, known)
    if (known || !there) return
    const name = readFileName(file)
    if (!name) return
    const names = () => ({ service: nameOf(name.service), module: nameOf(name.module) })
    const day = this.#day(`${name.service}/${name.module}`, name.day, names)
    day.files.add(file)
    this.#known.set(file, day)
    const sameDay = this.#files.get(name.day)
    if (sameDay) sameDay.add(file)
    else this.#files.set(name.day, new Set([file]))
  }

  #total(key: string, totals: Totals | undefined): void {
    const known = this.#known.get(key)
    if (known && !totals) this.#forget(key, known)
    if (known || !totals || totals.day === OLDER) return
    const { service, module } = totals
    const folder = folderOf(service, module)
    const day = this.#day(folder, totals.day, () => ({ service, module }))
    day.totals.add(key)
    this.#known.set(key, day)
    // What the folder's name says may be cut.
    Object.assign(this.#modules.get(folder)!, { service, module })
  }

  /** Takes out a file, or a key of totals, and what is empty without it. */
  #forget(name: string, day: Day): void {
    this.#known.delete(name)
    day.files.delete(name)
    day.totals.delete(name)
    const sameDay = this.#files.get(day.name)
    if (sameDay?.delete(name) && sameDay.size === 0) this.#files.delete(day.name)
    if (day.files.size > 0 || day.totals.size > 0) return
    const { days } = this.#modules.get(day.folder)!
    days.delete(day.name)
    if (days.size === 0) this.#modules.delete(day.folder)
  }

  #day(folder: string, name: string, names: () => { service: string; module: string }): Day {
    let module = this.#modules.get(folder)
    if (!module) {
      module = { ...names(), days: new Map() }
      this.#modules.set(folder, module)
    }
    let day = module.days.get(name)
    if (!day) {
      day = { folder, name, files: new Set(), totals: new Set() }
      module.days.set(name, day)
    }
    return day
  }
}
