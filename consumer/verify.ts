/**
 * Verification: whether the files hold what the ledger says was written to them, byte by byte, and what was lost.
 *
 * Invariants
 * - It reads files up to what the checkpoint says, so it runs while lines are landed.
 * - Memory does not grow with the index: it is read by windows, and of each file only how far it was read is kept.
 * - Days that are removed are left out, also those that are removed while it reads.
 * - The ledger counts as written to a module's day what the index has of it, to the line.
 * - A problem names file, bytes, run and numbers: the first stretch of a file that is not as it was written, and how much of the file
 *   behind it differs.
 */
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { Access } from './access.ts'
import type { Loss, Problem, VerifyAnswer, VerifyQuery } from './api-schema.ts'
import type { State } from './checkpoint.ts'
import { FileReader } from './file-reader.ts'
import { type Damage, type Row, readIndex } from './index-log.ts'
import { Intervals } from './intervals.ts'
import type { Totals } from './ledger.ts'
import { countOf } from './ledger-api.ts'
import { folderOf, nameOf, pathComponent, readFileName } from './names.ts'
import { damageMessage } from './row-cache.ts'

/** Rows of the index that are put in the order of their files, a few MB of memory. */
const WINDOW_ROWS = 20_000

/**
 * @param state what the checkpoint says, which does not change while this runs but by growing
 * @param may which services are looked at
 * @param owed what roots that are away have claimed, as it adds to the totals
 */
export async function verify(
  root: string,
  state: State,
  query: VerifyQuery,
  may: Access['may'],
  owed: readonly Totals[] = [],
): Promise<VerifyAnswer> {
  const { since = '' } = query
  const named = (of: { service: string; module: string }): boolean =>
    may(of.service) &&
    (query.service === undefined || of.service === query.service) &&
    (query.module === undefined || of.module === query.module)
  const totals = [...state.totals.values(), ...owed].filter((of) => named(of) && of.day >= since)
  const [kept, removed] = [false, true].map((gone) => totals.filter(({ day }) => day < state.floor === gone))
  const found: VerifyAnswer = {
    files: 0,
    bytes: 0,
    rebuilt: 0,
    total: countOf(kept!),
    removed: countOf(removed!).written,
    problems: [],
    losses: losses(state, named, since > state.floor ? since : state.floor),
    partial: [],
  }
  const readable = foldersOf([...state.totals.values(), ...state.runs.values()], may)
  // All of one moment, before anything is read: what is landed meanwhile belongs to another.
  const states = new Map(state.files)
  const written = writtenOf(state, named)
  using reader = new FileReader({ root, files: state.files })
  const files = Map.groupBy(states.keys(), (file) => readFileName(file)?.day ?? '')
  for (const name of [...new Set([...state.index.keys(), ...files.keys()])].sort()) {
    const before = found.problems.length
    if (name < since || name < state.floor) continue
    // As it is by now: another log may have taken its place since the others were read.
    const length = state.index.get(name) ?? 0
    const day = { name, length, files: files.get(name) ?? [], written: written.get(name) ?? new Map() }
    await verifyDay(root, day, query, readable, { states, reader, found })
    if (name < state.floor) found.problems.length = before
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

/** Lines that the ledger counts as written, by the day and the folder of the module. */
function writtenOf({ totals }: State, named: (of: Totals) => boolean): Map<string, Map<string, number>> {
  const days = new Map<string, Map<string, number>>()
  for (const of of totals.values()) {
    if (!named(of)) continue
    const day = days.get(of.day) ?? new Map<string, number>()
    days.set(of.day, day)
    const folder = folderOf(of.service, of.module)
    day.set(folder, (day.get(folder) ?? 0) + of.written)
  }
  return days
}

/** What was read of a file so far; `lines`: of those that had been written when we began. */
type Read = { covered: Intervals; lines: number; doubled: boolean; problem: Problem | undefined }

async function verifyDay(
  root: string,
  {
    name,
    length,
    files: known,
    written,
  }: { name: string; length: number; files: readonly string[]; written: ReadonlyMap<string, number> },
  { service, module }: VerifyQuery,
  readable: (folder: string) => boolean,
  { states, reader, found }: { states: State['files']; reader: FileReader; found: VerifyAnswer },
): Promise<void> {
  const [ofService, ofModule] = [service, module].map((name) => (name === undefined ? undefined : pathComponent(name)))
  const wanted = (file: string): boolean => {
    const [folder, below] = file.split('/') as [string, string]
    return readable(folder) && (ofService ?? folder) === folder && (ofModule ?? below) === below
  }
  const begin = (): Read => ({ covered: new Intervals(), lines: 0, doubled: false, problem: undefined })
  const files = new Map(
    known.filter((file) => wanted(file) && states.get(file)!.length > 0).map((file) => [file, begin()]),
  )
  const check = async (row: Row): Promise<void> => {
    const read = files.get(row.file) ?? begin()
    files.set(row.file, read)
    read.doubled ||= read.covered.touches(row.position, row.position + row.bytes)
    read.covered.add(row.position, row.position + row.bytes)
    if (row.position < (states.get(row.file)?.length ?? 0)) read.lines += row.lines
    found.bytes += row.bytes
    if (row.rebuilt) found.rebuilt += row.bytes
    const problem = await checkStretch(reader, row)
    if (!problem) return
    read.problem ??= problem
    read.problem.lines += row.lines
  }
  const damage: Damage[] = []
  const blocks = readIndex(join(root, '.tallyman'), name, length, 0, (each) => damage.push(each))
  const index = { file: `.tallyman/index/${name}`, what: 'index', lines: 0 } as const
  try {
    for (const rows of inWindows(blocks, ({ file }) => wanted(file))) {
      // File by file: the frames of a compressed one are inflated once, and not for each of its rows.
      for (const of of Map.groupBy(rows, ({ file }) => file).values()) for (const row of of) await check(row)
    }
    if (damage.length > 0) found.problems.push({ ...index, message: damageMessage(damage) })
  } catch (error) {
    found.problems.push({ ...index, message: (error as Error).message })
  }
  /** Lines of each module's day; of one of which the index does not tell all, nothing is known. */
  const lines = new Map<string, number>()
  for (const [file, { covered, lines: of, doubled, problem }] of files) {
    found.files++
    if (problem) found.problems.push(problem)
    const expected = states.get(file)?.length ?? 0
    const blank = covered.without(0, expected)
    const folder = file.slice(0, file.lastIndexOf('/'))
    if (blank.length === 0 && !doubled) {
      lines.set(folder, (lines.get(folder) ?? 0) + of)
      continue
    }
    lines.set(folder, Number.NaN)
    const bytes = blank.reduce((sum, [from, to]) => sum + to - from, 0)
    const tells = blank.length > 0 ? `tells nothing of ${bytes}, from ${blank[0]![0]} on` : 'tells of some twice'
    const message = `of ${expected} bytes that were written the index ${tells}; tallyman reindex mends it`
    found.problems.push({ file, what: 'uncounted', lines: 0, message })
  }
  for (const folder of new Set([...lines.keys(), ...written.keys()])) {
    const [counted, there] = [written.get(folder) ?? 0, lines.get(folder) ?? 0]
    if (counted === there || Number.isNaN(there)) continue
    const message = `the ledger counts ${counted} lines of it as written, and the index has ${there}`
    found.problems.push({ file: `${folder}/${name}`, what: 'ledger', lines: Math.abs(counted - there), message })
  }
}

/** The wanted ones of `blocks`' rows, WINDOW_ROWS and some at a time. @throws what `blocks` does, behind what came before */
function* inWindows(blocks: Iterable<Row[]>, wanted: (row: Row) => boolean): Generator<Row[]> {
  let window: Row[] = []
  try {
    for (const block of blocks) {
      window.push(...block.filter(wanted))
      if (window.length < WINDOW_ROWS) continue
      yield window
      window = []
    }
  } catch (error) {
    yield window
    throw error
  }
  yield window
}

/** @returns what is wrong with the stretch, with no lines counted yet */
async function checkStretch(reader: FileReader, row: Row): Promise<Problem | undefined> {
  const { file, position, bytes, run, numbers } = row
  const where = { file, lines: 0, position, bytes, run, numbers }
  let text: Buffer
  try {
    text = await reader.readRange(file, position, bytes)
  } catch (error) {
    const { message, syscall } = error as NodeJS.ErrnoException
    return { ...where, what: syscall === undefined ? 'changed' : 'missing', message }
  }
  if (text.length < bytes) {
    return { ...where, what: 'short', message: `it ends within the ${bytes} bytes from ${position} on` }
  }
  if (crc32(text) === row.crc) return undefined
  const message = `the ${bytes} bytes from ${position} on are not those that were written`
  return { ...where, what: 'changed', message }
}

/** Numbers that are missing, of days from `since` on. */
function losses({ runs }: State, named: (of: { service: string; module: string }) => boolean, since: string): Loss[] {
  return [...runs].flatMap(([run, of]) => {
    if (!named(of)) return []
    const names = { service: of.service, module: of.module, host: of.host, container: of.container, run }
    return (['stdout', 'stderr'] as const).flatMap((source, i) =>
      of.sources[i]!.holes.filter(({ day }) => day >= since).map(({ from, to, reason }) => ({
        ...names,
        source,
        from,
        to,
        reason,
      })),
    )
  })
}
