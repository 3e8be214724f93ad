/**
 * Blanks: bytes of a day's files of which no row of the index tells, and what the rows around them say.
 *
 * Invariants
 * - A row counts where it lies in what was written to its file, and no row before it tells of the same bytes.
 * - What a rebuilt row tells of is blank: nobody vouches for it.
 * - Memory is bounded by files, blanks, and the containers around them, not by rows: the index is read twice for it.
 */
import type { FileState } from './checkpoint.ts'
import type { Names, Row } from './index-log.ts'
import { Intervals } from './intervals.ts'
import { stampName } from './layout.ts'

export type Blank = { file: string; from: number; to: number }

/** The last row of a container before a blank, and the first behind it. */
export type Around = { before: Row | undefined; after: Row | undefined }

/** Between two blanks of a file: the first row of each container, and the last. */
type Between = Map<string, { first: Row; last: Row }>

type Known = { blanks: Blank[]; between: Between[] }

export class Coverage {
  #files: ReadonlyMap<string, Pick<FileState, 'length'>>
  #covered = new Map<string, Intervals>()

  /** @param files what was written, by path */
  constructor(files: ReadonlyMap<string, Pick<FileState, 'length'>>) {
    this.#files = files
  }

  /** @returns whether the row counts */
  take({ file, position, bytes }: Pick<Row, 'file' | 'position' | 'bytes'>): boolean {
    const length = this.#files.get(file)?.length ?? 0
    if (bytes === 0 || position + bytes > length) return false
    let covered = this.#covered.get(file)
    if (!covered) {
      covered = new Intervals()
      this.#covered.set(file, covered)
    }
    if (covered.touches(position, position + bytes)) return false
    covered.add(position, position + bytes)
    return true
  }

  /** Of all files, in the order of their names. */
  get blanks(): Blank[] {
    return [...this.#files]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([file, { length }]) => this.within({ file, from: 0, to: length }))
  }

  /** What of a blank is one still. */
  within({ file, from, to }: Blank): Blank[] {
    const rest = this.#covered.get(file)?.without(from, to) ?? (from < to ? [[from, to] as const] : [])
    return rest.map(([from, to]) => ({ file, from, to }))
  }
}

/** What is known around blanks, from all rows that count. */
export class Surroundings {
  #files = new Map<string, Known>()
  /** Numbers of each run's two sources of which it is certain that rows tell. */
  #numbers = new Map<string, [Intervals, Intervals]>()
  #namesOf: (row: Row) => Names

  constructor(blanks: readonly Blank[], namesOf: (row: Row) => Names) {
    this.#namesOf = namesOf
    for (const [file, of] of Map.groupBy(blanks, ({ file }) => file)) {
      this.#files.set(file, { blanks: of, between: Array.from({ length: of.length + 1 }, () => new Map()) })
    }
  }

  take(row: Row): void {
    this.#takeNumbers(row)
    const known = this.#files.get(row.file)
    if (!known) return
    const names = this.#namesOf(row)
    const between = known.between[behind(known.blanks, row.position)]!
    const key = stampName(names.container)
    const of = between.get(key)
    const named = row.names ? row : { ...row, names }
    if (!of) between.set(key, { first: named, last: named })
    else if (row.position < of.first.position) of.first = named
    else if (row.position > of.last.position) of.last = named
  }

  /** Whether lines with these numbers are in rows for certain, wherever. */
  holds(run: string, numbers: Row['numbers']): boolean {
    const known = this.#numbers.get(run)
    return numbers.every(([from, to], source) => from === 0 || (known?.[source]?.holds(from, to + 1) ?? false))
  }

  /** Of a container, as lines of `text` name it. */
  around(blank: Blank, container: string): Around {
    const { between, at } = this.#at(blank)
    const last = between.slice(0, at + 1).findLast((each) => each.has(container))
    const first = between.slice(at + 1).find((each) => each.has(container))
    return { before: last?.get(container)?.last, after: first?.get(container)?.first }
  }

  /** Of whichever container. */
  adjoining(blank: Blank): Around {
    const { between, at } = this.#at(blank)
    const before = [...(between[at]?.values() ?? [])].map(({ last }) => last)
    const after = [...(between[at + 1]?.values() ?? [])].map(({ first }) => first)
    return {
      before: before.sort((a, b) => a.position - b.position).at(-1),
      after: after.sort((a, b) => a.position - b.position)[0],
    }
  }

  /** @param blank one of those that were given, or a part of it */
  #at(blank: Blank): { between: Between[]; at: number } {
    const known = this.#files.get(blank.file)
    if (!known) return { between: [], at: 0 }
    return { between: known.between, at: behind(known.blanks, blank.from) - 1 }
  }

  #takeNumbers({ run, lines, numbers }: Row): void {
    const said = numbers.reduce((sum, [from, to]) => sum + (from === 0 ? 0 : to - from + 1), 0)
    // Else some between its first and its last are not in it.
    if (said !== lines) return
    let known = this.#numbers.get(run)
    if (!known) {
      known = [new Intervals(), new Intervals()]
      this.#numbers.set(run, known)
    }
    for (const [source, [from, to]] of numbers.entries()) if (from > 0) known[source]!.add(from, to + 1)
  }
}

/** How many of a file's blanks begin at a position, or before it. */
function behind(blanks: readonly Blank[], position: number): number {
  let [low, high] = [0, blanks.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (blanks[middle]!.from <= position) low = middle + 1
    else high = middle
  }
  return low
}
