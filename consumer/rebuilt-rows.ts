/**
 * Rows of a blank, made of what stands in the file and of the rows around it.
 *
 *   jsonl   a line says all of itself but service and module
 *   text    a line says its time, container and source; the host is that of the container's rows around, or of the only host on
 *           which the ledger knows such a container. Run and numbers are known where rows of one run stand on both sides, and as many
 *           lines between them as numbers are missing
 *   raw     a line says nothing: it has the time of the row before, and the names of both sides where those are the same
 *
 * Invariant: every byte of the blank is in a row, so that every line of it is found, whatever is known of it.
 */
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import type { Around, Blank } from './blanks.ts'
import type { FileState } from './checkpoint.ts'
import type { FileReader } from './file-reader.ts'
import { extend, type Names, type Row } from './index-log.ts'
import { type LineFormat, stampName } from './layout.ts'
import type { RunState } from './ledger.ts'
import { nameOf, pathComponent, readFileName } from './names.ts'
import { stampTime } from './stored-line.ts'
import { isStderr, STAMP_BYTES, textBegin } from './text-line.ts'

/** Whoever else wants to has a turn after so much. */
const READ_BYTES = 256 * 1024
const BATCH_ROWS = 1000
const NEWLINE = 10

export type RebuildSources = {
  text: Pick<FileReader, 'readRange'>
  runs: ReadonlyMap<string, RunState>
  /** Format of a file that does not tell. */
  format: LineFormat
}

/** What is around a blank: rows of whichever container, and those of one, as lines of `text` name it. */
export type Neighbours = Around & { of(container: string): Around; whole: boolean }

/** What a line says of itself. */
type Said = {
  run: string
  names: Names
  stderr: boolean
  ms: number
  /** 0 where it is not known. */
  number: number
}
type Read = (bytes: Buffer) => Said | undefined

/**
 * @param state of the file
 * @param around what is known on both sides of the blank; `whole`: nothing of what was blank there is known by now
 */
export async function* rebuiltRows(
  blank: Blank,
  state: FileState,
  around: Neighbours,
  sources: RebuildSources,
): AsyncGenerator<Row[]> {
  const format = await formatOf(blank, around, sources)
  const read = await readerOf(format, blank, state, around, sources)
  const rows: Row[] = []
  const counts = new Map<string, [number, number]>()
  let last: Said | undefined
  for await (const [position, bytes] of linesOf(blank, sources.text)) {
    // What is no line of this format is shown as one of the line before, with its time.
    const said: Said = read(bytes) ?? { ...(last ?? strange(blank, state, around, format)), number: 0 }
    last = said
    let { number } = said
    if (number === 0) {
      const key = JSON.stringify([said.names.host, said.names.container])
      const count = counts.get(key) ?? [0, 0]
      counts.set(key, count)
      number = ++count[said.stderr ? 1 : 0]
    }
    const none: [number, number] = [0, 0]
    const numbers: Row['numbers'] = said.stderr ? [none, [number, number]] : [[number, number], none]
    const { file } = blank
    const row: Omit<Row, 'bytes' | 'crc'> = {
      ...{
        file,
        position,
        lines: 1,
        run: said.run,
        names: said.names,
        numbers,
        tmin: said.ms,
        tmax: said.ms,
        rebuilt: true,
      },
    }
    const open = rows.at(-1)
    if (open && extend(open, row, bytes)) continue
    if (rows.length >= BATCH_ROWS) yield rows.splice(0)
    rows.push({ ...row, bytes: bytes.length, crc: crc32(bytes) })
  }
  yield rows
}

/** Lines of a blank with their newlines, and where they begin. What ends without one is a line, too; a file may end before its blank does. */
async function* linesOf({ file, from, to }: Blank, text: RebuildSources['text']): AsyncGenerator<[number, Buffer]> {
  let rest: Buffer = Buffer.alloc(0)
  let at = from
  while (at < to) {
    const more = await text.readRange(file, at, Math.min(READ_BYTES, to - at))
    if (more.length === 0) break
    const bytes = rest.length === 0 ? more : Buffer.concat([rest, more])
    const begin = at - rest.length
    at += more.length
    let line = 0
    for (let end = bytes.indexOf(NEWLINE, rest.length); end !== -1; end = bytes.indexOf(NEWLINE, line)) {
      yield [begin + line, bytes.subarray(line, end + 1)]
      line = end + 1
    }
    rest = bytes.subarray(line)
  }
  if (rest.length > 0) yield [at - rest.length, rest]
}

async function formatOf(
  blank: Blank,
  { before, after }: Around,
  { text, format }: RebuildSources,
): Promise<LineFormat> {
  const known = before?.names?.format ?? after?.names?.format
  if (known) return known
  const bytes = await text.readRange(blank.file, blank.from, Math.min(READ_BYTES, blank.to - blank.from))
  const first = bytes.subarray(0, bytes.indexOf(NEWLINE) + 1 || bytes.length)
  if (readText(first)) return 'text'
  return readJson(first) ? 'jsonl' : format === 'raw' ? 'raw' : format
}

/** Service and module of a file, as rows of it or the ledger know them. */
function moduleOf(
  { file }: Blank,
  { before, after }: Around,
  { runs }: RebuildSources,
): Pick<Names, 'service' | 'module'> {
  const known = before?.names ?? after?.names
  if (known) return { service: known.service, module: known.module }
  const { service, module } = readFileName(file)!
  for (const run of runs.values()) {
    if (pathComponent(run.service) === service && pathComponent(run.module) === module)
      return { service: run.service, module: run.module }
  }
  return { service: nameOf(service), module: nameOf(module) }
}

/** What is said of a line that says nothing, behind none that does. */
function strange(blank: Blank, state: FileState, around: Neighbours, format: LineFormat): Omit<Said, 'number'> {
  const { before, after } = around
  const { service, module } = before?.names ?? after?.names ?? { service: '', module: '' }
  const name = readFileName(blank.file)!
  return {
    names: {
      ...{ service: service || nameOf(name.service), module: module || nameOf(name.module) },
      ...{ host: '', container: '', format },
    },
    ...{ run: '', stderr: false, ms: before?.tmax ?? state.first },
  }
}

async function readerOf(
  format: LineFormat,
  blank: Blank,
  state: FileState,
  around: Neighbours,
  sources: RebuildSources,
): Promise<Read> {
  const module = moduleOf(blank, around, sources)
  if (format === 'jsonl') return jsonReader(module)
  if (format === 'text') return textReader(await countText(blank, around, sources), module, around, sources)
  const { before, after } = around
  const same =
    before?.names &&
    after?.names &&
    before.names.host === after.names.host &&
    before.names.container === after.names.container
  const names: Names = same ? before.names! : { ...module, host: '', container: '', format: 'raw' }
  return () => ({ run: '', names, stderr: false, ms: before?.tmax ?? state.first, number: 0 })
}

const jsonLine = z.object({
  time: z.string(),
  host: z.string(),
  container: z.string(),
  source: z.enum(['stdout', 'stderr']),
  run: z.string(),
  n: z.int().min(1),
})

function readJson(bytes: Buffer): (z.infer<typeof jsonLine> & { ms: number }) | undefined {
  try {
    const said = jsonLine.parse(JSON.parse(bytes.toString()))
    const ms = Date.parse(said.time)
    return Number.isNaN(ms) ? undefined : { ...said, ms }
  } catch {
    return undefined
  }
}

function jsonReader(module: Pick<Names, 'service' | 'module'>): Read {
  let names: Names | undefined
  return (bytes) => {
    const said = readJson(bytes)
    if (!said) return undefined
    const { host, container, run, n, ms, source } = said
    if (names?.host !== host || names.container !== container) names = { ...module, host, container, format: 'jsonl' }
    return { run, names, stderr: source === 'stderr', ms, number: n }
  }
}

/** Time, container and source of a line of `text`. */
function readText(bytes: Buffer): { ms: number; container: string; stderr: boolean } | undefined {
  const begin = textBegin(bytes, 0, bytes.length)
  const ms = begin === -1 ? Number.NaN : stampTime(bytes, 0)
  if (Number.isNaN(ms)) return undefined
  const stderr = isStderr(bytes, begin)
  return { ms, container: bytes.toString('latin1', STAMP_BYTES, begin - (stderr ? 2 : 1)), stderr }
}

/** How many lines of each source a blank has of each container. */
async function countText(
  blank: Blank,
  { whole }: Neighbours,
  { text }: RebuildSources,
): Promise<Map<string, [number, number]>> {
  const counts = new Map<string, [number, number]>()
  if (!whole) return counts
  for await (const [, bytes] of linesOf(blank, text)) {
    const said = readText(bytes)
    if (!said) continue
    const count = counts.get(said.container) ?? [0, 0]
    counts.set(said.container, count)
    count[said.stderr ? 1 : 0]++
  }
  return counts
}

function textReader(
  counts: ReadonlyMap<string, [number, number]>,
  module: Pick<Names, 'service' | 'module'>,
  around: Neighbours,
  { runs }: RebuildSources,
): Read {
  /** Of each container what is known, and the number of its next line of each source. */
  const known = new Map<string, { run: string; names: Names; next: [number, number] }>()
  const of = (container: string) => {
    const sides = around.of(container)
    const first = firstNumbers(sides, counts.get(container))
    const names = sides.before?.names ?? sides.after?.names ?? namesFrom(runs, module, container)
    return { run: first ? sides.before!.run : '', names, next: first ?? ([0, 0] as [number, number]) }
  }
  return (bytes) => {
    const said = readText(bytes)
    if (!said) return undefined
    const { ms, container, stderr } = said
    const its = known.getOrInsertComputed?.(container, of) ?? known.get(container) ?? of(container)
    known.set(container, its)
    const source = stderr ? 1 : 0
    const number = its.next[source] === 0 ? 0 : its.next[source]++
    return { run: its.run, names: its.names, stderr, ms, number }
  }
}

/** The numbers that follow those of the row before, where as many lines are there as numbers up to the row behind. */
function firstNumbers({ before, after }: Around, count: [number, number] | undefined): [number, number] | undefined {
  if (!count || !before || !after || before.run !== after.run || before.run === '') return undefined
  const first = ([0, 1] as const).map((source) => {
    const [, last] = before.numbers[source]
    const [next] = after.numbers[source]
    if (count[source] === 0) return 0
    return last > 0 && next > 0 && next - last - 1 === count[source] ? last + 1 : undefined
  })
  return first.includes(undefined) ? undefined : (first as [number, number])
}

function namesFrom(runs: RebuildSources['runs'], module: Pick<Names, 'service' | 'module'>, container: string): Names {
  const hosts = new Set<string>()
  let name = nameOf(container)
  for (const run of runs.values()) {
    if (run.service !== module.service || run.module !== module.module || stampName(run.container) !== container)
      continue
    hosts.add(run.host)
    name = run.container
  }
  const [host = ''] = hosts.size === 1 ? hosts : []
  return { ...module, host, container: name, format: 'text' }
}
