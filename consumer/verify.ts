/**
 * Verification: whether the files hold what the ledger says was written to them, byte by byte, and what was lost.
 *
 * Invariants
 * - It reads files up to what the checkpoint says, so it runs while lines are landed.
 * - Memory does not grow with the index: it is read block by block, and of each file only how far it was read is kept.
 * - A problem names file, bytes, run and numbers: the first stretch of a file that is not as it was written, and how much of the file
 *   behind it differs.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { LRUCache } from 'lru-cache'
import type { Access } from './access.ts'
import type { Loss, Problem, VerifyAnswer, VerifyQuery } from './api-schema.ts'
import type { State } from './checkpoint.ts'
import { type Row, readIndex } from './index-log.ts'
import { countOf } from './ledger-api.ts'
import { nameOf, pathComponent } from './names.ts'

/** Files that are held open at most. */
const OPEN_FILES = 64

/**
 * @param state what the checkpoint says, which does not change while this runs but by growing
 * @param may which services are looked at
 */
export async function verify(
  root: string,
  state: State,
  query: VerifyQuery,
  may: Access['may'],
): Promise<VerifyAnswer> {
  const { since = '' } = query
  const named = (of: { service: string; module: string }): boolean =>
    may(of.service) &&
    (query.service === undefined || of.service === query.service) &&
    (query.module === undefined || of.module === query.module)
  const totals = [...state.totals.values()].filter((of) => named(of) && of.day >= since)
  const found: VerifyAnswer = {
    files: 0,
    bytes: 0,
    total: countOf(totals),
    problems: [],
    losses: losses(state, named),
    partial: [],
  }
  const readable = foldersOf([...state.totals.values(), ...state.runs.values()], may)
  // All of one moment, before anything is read: what is landed meanwhile belongs to another.
  const files = new Map(state.files)
  for (const [name, length] of [...state.index].sort()) {
    if (name >= since) await verifyDay(root, name, length, query, readable, files, found)
  }
  return found
}

/** @returns whether a service's folder may be looked into. A folder may be shorter than its service's name: the ledger knows the name. */
function foldersOf(known: readonly { service: string }[], may: Access['may']): (folder: string) => boolean {
  const folders = new Map(known.map(({ service }) => [pathComponent(service), may(service)]))
  return (folder) => {
    const is = folders.get(folder) ?? may(nameOf(folder))
    folders.set(folder, is)
    return is
  }
}

/** What was read of a file so far. */
type Read = { at: number; unbroken: boolean; problem: Problem | undefined }

async function verifyDay(
  root: string,
  name: string,
  length: number,
  { service, module }: VerifyQuery,
  readable: (folder: string) => boolean,
  lengths: State['files'],
  found: VerifyAnswer,
): Promise<void> {
  const [ofService, ofModule] = [service, module].map((name) => (name === undefined ? undefined : pathComponent(name)))
  const files = new Map<string, Read>()
  using reader = new StretchReader(root)
  try {
    for (const block of readIndex(join(root, '.tallyman'), name, length)) {
      for (const row of block) {
        const [folder, below] = row.file.split('/') as [string, string]
        if (!readable(folder)) continue
        if ((ofService ?? folder) !== folder || (ofModule ?? below) !== below) continue
        const read: Read = files.get(row.file) ?? { at: 0, unbroken: true, problem: undefined }
        files.set(row.file, read)
        read.unbroken &&= row.position === read.at
        read.at = row.position + row.bytes
        found.bytes += row.bytes
        const problem = await reader.check(row)
        if (!problem) continue
        read.problem ??= problem
        read.problem.lines += row.lines
      }
    }
  } catch (error) {
    const { message } = error as Error
    found.problems.push({ file: `.tallyman/index/${name}`, what: 'index', lines: 0, message })
  }
  for (const [file, { at, unbroken, problem }] of files) {
    found.files++
    if (problem) found.problems.push(problem)
    const expected = lengths.get(file)?.length ?? 0
    if (unbroken && at >= expected) continue
    const message = `the index tells of ${at} bytes, with or without gaps, the checkpoint of ${expected}`
    found.problems.push({ file, what: 'uncounted', lines: 0, message })
  }
}

/** Reads stretches of files, with a few of the files held open. */
class StretchReader implements Disposable {
  #root: string
  #buffer = Buffer.alloc(0)
  #open = new LRUCache<string, FileHandle>({ max: OPEN_FILES, dispose: (handle) => void handle.close() })

  constructor(root: string) {
    this.#root = root
  }

  /** @returns what is wrong with the stretch, with no lines counted yet */
  async check(row: Row): Promise<Problem | undefined> {
    const { file, position, bytes, run, numbers } = row
    const where = { file, lines: 0, position, bytes, run, numbers }
    let read: number
    try {
      let handle = this.#open.get(file)
      if (!handle) {
        handle = await open(join(this.#root, file))
        this.#open.set(file, handle)
      }
      if (this.#buffer.length < bytes) this.#buffer = Buffer.alloc(bytes)
      read = (await handle.read(this.#buffer, 0, bytes, position)).bytesRead
    } catch (error) {
      return { ...where, what: 'missing', message: (error as Error).message }
    }
    if (read < bytes)
      return { ...where, what: 'short', message: `it ends within the ${bytes} bytes from ${position} on` }
    if (crc32(this.#buffer.subarray(0, bytes)) === row.crc) return undefined
    const message = `the ${bytes} bytes from ${position} on are not those that were written`
    return { ...where, what: 'changed', message }
  }

  [Symbol.dispose](): void {
    this.#open.clear()
  }
}

function losses({ runs }: State, named: (of: { service: string; module: string }) => boolean): Loss[] {
  return [...runs].flatMap(([run, of]) => {
    if (!named(of)) return []
    const names = { service: of.service, module: of.module, host: of.host, container: of.container, run }
    return (['stdout', 'stderr'] as const).flatMap((source, i) =>
      of.sources[i]!.holes.map(({ from, to, reason }) => ({ ...names, source, from, to, reason })),
    )
  })
}
