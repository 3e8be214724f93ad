/**
 * Verification: whether the files hold what the ledger says was written to them, byte by byte, and what was lost.
 *
 * Invariants
 * - It reads files up to what the checkpoint says, so it runs while lines are landed.
 * - A problem names file, bytes, run and numbers: the first stretch of a file that is not as it was written, and how much of the file
 *   behind it differs.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import type { State } from './checkpoint.ts'
import { type Row, readIndex } from './index-log.ts'
import { type Count, countOf, day } from './ledger-api.ts'
import { pathComponent } from './names.ts'

export const verifyQuery = z.strictObject({
  service: z.string().optional(),
  module: z.string().optional(),
  since: day.optional(),
})
export type VerifyQuery = z.infer<typeof verifyQuery>

/** A file that is not as it was written. */
export type Problem = {
  file: string
  /** `missing`; `short`: it ends too early; `changed`: bytes differ; `uncounted`: index and ledger disagree about it; `index`: the index is damaged. */
  what: 'missing' | 'short' | 'changed' | 'uncounted' | 'index'
  /** The first stretch that differs: from this byte on, the run that printed it and the numbers of its lines. */
  position?: number
  bytes?: number
  run?: string
  numbers?: Row['numbers']
  /** Lines in all stretches that differ. */
  lines: number
  message: string
}

/** Lines that never came, of a run. */
export type Loss = {
  service: string
  module: string
  host: string
  container: string
  run: string
  source: 'stdout' | 'stderr'
  from: number
  to: number
  reason: string
}

export type Verification = { files: number; bytes: number; total: Count; problems: Problem[]; losses: Loss[] }

/** @param state what the checkpoint says, which does not change while this runs but by growing */
export async function verify(root: string, state: State, query: VerifyQuery): Promise<Verification> {
  const service = query.service === undefined ? undefined : pathComponent(query.service)
  const module = query.module === undefined ? undefined : pathComponent(query.module)
  const wanted = (file: string): boolean => {
    const [ofService, ofModule] = file.split('/')
    return (service === undefined || ofService === service) && (module === undefined || ofModule === module)
  }
  const totals = [...state.totals.values()].filter(
    (of) =>
      (query.service === undefined || of.service === query.service) &&
      (query.module === undefined || of.module === query.module) &&
      of.day >= (query.since ?? ''),
  )
  const found: Verification = { files: 0, bytes: 0, total: countOf(totals), problems: [], losses: losses(state, query) }
  for (const [name, length] of [...state.index].sort()) {
    if (name < (query.since ?? '')) continue
    await verifyDay(root, name, length, wanted, state, found)
  }
  return found
}

async function verifyDay(
  root: string,
  name: string,
  length: number,
  wanted: (file: string) => boolean,
  state: State,
  found: Verification,
): Promise<void> {
  // As of now, before anything is read: what is landed meanwhile belongs to another time.
  const lengths = new Map(state.files)
  const rows = new Map<string, Row[]>()
  try {
    for (const block of readIndex(join(root, '.tallyman'), name, length)) {
      for (const row of block) {
        if (!wanted(row.file)) continue
        const known = rows.get(row.file)
        if (known) known.push(row)
        else rows.set(row.file, [row])
      }
    }
  } catch (error) {
    const { message } = error as Error
    found.problems.push({ file: `.tallyman/index/${name}`, what: 'index', lines: 0, message })
  }
  for (const [file, of] of rows) {
    found.files++
    found.bytes += of.reduce((sum, { bytes }) => sum + bytes, 0)
    const end = of.at(-1)!.position + of.at(-1)!.bytes
    const expected = lengths.get(file)?.length ?? 0
    let at = 0
    const unbroken = of.every(({ position, bytes }) => {
      const follows = position === at
      at = position + bytes
      return follows
    })
    if (!unbroken || end < expected) {
      const message = `the index tells of ${end} bytes, with or without gaps, the checkpoint of ${expected}`
      found.problems.push({ file, what: 'uncounted', lines: 0, message })
    }
    const problem = await verifyFile(join(root, file), file, of)
    if (problem) found.problems.push(problem)
  }
}

async function verifyFile(path: string, file: string, rows: Row[]): Promise<Problem | undefined> {
  let handle: FileHandle
  try {
    handle = await open(path)
  } catch (error) {
    const lines = rows.reduce((sum, row) => sum + row.lines, 0)
    return { file, what: 'missing', lines, message: (error as Error).message }
  }
  try {
    let problem: Problem | undefined
    let buffer = Buffer.alloc(0)
    for (const row of rows) {
      if (buffer.length < row.bytes) buffer = Buffer.alloc(row.bytes)
      const { bytesRead } = await handle.read(buffer, 0, row.bytes, row.position)
      if (bytesRead === row.bytes && crc32(buffer.subarray(0, row.bytes)) === row.crc) continue
      const short = bytesRead < row.bytes
      problem ??= {
        ...{ file, what: short ? 'short' : 'changed', lines: 0 },
        ...{ position: row.position, bytes: row.bytes, run: row.run, numbers: row.numbers },
        message: short
          ? `it ends within the ${row.bytes} bytes from ${row.position} on`
          : `the ${row.bytes} bytes from ${row.position} on are not those that were written`,
      }
      problem.lines += row.lines
    }
    return problem
  } finally {
    await handle.close()
  }
}

function losses({ runs }: State, { service, module }: VerifyQuery): Loss[] {
  return [...runs].flatMap(([run, of]) => {
    if ((service !== undefined && of.service !== service) || (module !== undefined && of.module !== module)) return []
    const names = { service: of.service, module: of.module, host: of.host, container: of.container, run }
    return (['stdout', 'stderr'] as const).flatMap((source, i) =>
      of.sources[i]!.holes.map(({ from, to, reason }) => ({ ...names, source, from, to, reason })),
    )
  })
}
