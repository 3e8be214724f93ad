/**
 * Compares a module's files with what its containers printed: every line of every container and source, byte for byte, in
 * order, each once, and nothing else. Reads the text layout:
 *
 *   2026-11-23T08:24:41.123Z web-1 a line of stdout
 *   2026-11-23T08:24:41.123Z web-1! a line of stderr
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expectedLines, type Printed, SOURCES, type SourceName } from './printed.ts'

const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const STAMP_BYTES = 24
const BLANK = 32
const NEWLINE = 10
/** So much of a line is shown. */
const SHOWN = 80

export type Expected = { container: string; printed: Printed }

type Side = { bytes: Buffer; count: number; at: number; number: number }

/** The day files of a module, oldest first. */
export function dayFiles(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder)
    .filter((name) => name.endsWith('.log'))
    .sort()
    .map((name) => join(folder, name))
}

/** Bytes in a module's files. */
export const sizeOf = (folder: string): number => dayFiles(folder).reduce((sum, file) => sum + statSync(file).size, 0)

/** Bytes that a module's files have once every line is there. */
export function expectedSize(expected: Expected[]): number {
  let size = 0
  for (const { container, printed } of expected) {
    for (const source of SOURCES) {
      const { bytes, count } = expectedLines(printed[source])
      size += bytes.length + count * prefixOf(container, source).length
    }
  }
  return size
}

const prefixOf = (container: string, source: SourceName): string =>
  `${' '.repeat(STAMP_BYTES)} ${container}${source === 'stderr' ? '!' : ''} `

const shown = (bytes: Buffer): string =>
  JSON.stringify(bytes.subarray(0, SHOWN).toString('latin1')) + (bytes.length > SHOWN ? ` (${bytes.length} bytes)` : '')

/** @throws Error saying where the first difference is */
export function compare(content: Buffer, expected: Expected[]): void {
  const sides = new Map<string, Side>()
  for (const { container, printed } of expected) {
    for (const source of SOURCES) {
      sides.set(prefixOf(container, source).trim(), { ...expectedLines(printed[source]), at: 0, number: 0 })
    }
  }
  for (let at = 0; at < content.length; ) {
    const end = content.indexOf(NEWLINE, at)
    if (end === -1) throw new Error(`the file ends in the middle of a line: ${shown(content.subarray(at))}`)
    const line = () => shown(content.subarray(at, end))
    const nameEnd = content.indexOf(BLANK, at + STAMP_BYTES + 1)
    if (content[at + STAMP_BYTES] !== BLANK || nameEnd === -1 || nameEnd > end)
      throw new Error(`a line is not stamp, name, line: ${line()}`)
    if (!STAMP.test(content.toString('latin1', at, at + STAMP_BYTES))) throw new Error(`a stamp is no time: ${line()}`)
    const name = content.toString('latin1', at + STAMP_BYTES + 1, nameEnd)
    const side = sides.get(name)
    if (!side) throw new Error(`a line of a container that is not expected here: ${line()}`)
    const length = end - nameEnd
    if (
      content.compare(side.bytes, side.at, Math.min(side.at + length, side.bytes.length), nameEnd + 1, end + 1) !== 0
    ) {
      throw new Error(wrongLine(name, side, content.subarray(nameEnd + 1, end)))
    }
    side.at += length
    side.number++
    at = end + 1
  }
  for (const [name, { number, count }] of sides) {
    if (number !== count) throw new Error(`${name}: the last ${count - number} of ${count} lines are missing`)
  }
}

function wrongLine(name: string, side: Side, got: Buffer): string {
  const rest = side.bytes.subarray(side.at)
  const wanted = rest.subarray(0, Math.max(0, rest.indexOf(NEWLINE)))
  const line = Buffer.concat([got, Buffer.from('\n')])
  const where = side.bytes.indexOf(line)
  const what =
    where === -1 ? 'nobody printed that' : where < side.at ? 'it stood before already' : 'lines are missing before it'
  const should = side.at < side.bytes.length ? `in place of ${shown(wanted)}` : 'behind the last line'
  return `${name}: line ${side.number + 1} of ${side.count} is ${shown(got)} ${should}: ${what}`
}

/** Compares all of a module's files. @throws Error saying where the first difference is */
export function compareModule(folder: string, expected: Expected[]): void {
  compare(Buffer.concat(dayFiles(folder).map((file) => readFileSync(file))), expected)
}

/** Where the first difference is. */
export function difference(folder: string, expected: Expected[]): string {
  try {
    compareModule(folder, expected)
  } catch (error) {
    return (error as Error).message
  }
  return 'nothing differs'
}
