/** A line and its neighbours in its file. */
import type { Access } from './access.ts'
import type { ContextAnswer, ContextQuery, Gap } from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import type { FileReader } from './file-reader.ts'
import type { History } from './lines.ts'
import { readFileName } from './names.ts'
import type { Rows } from './row-cache.ts'
import { lineEvent, parseLines, readCursor, type StoredLine, type Stretch } from './stored-line.ts'

const notFound = (at: string): ConsumerError =>
  new ConsumerError('NOT_FOUND', `there is no line at=${at}; its day may have been removed`)

/** @throws ConsumerError where there is no such line, or none that may be read */
export async function readContext(
  { rows, text }: History,
  { at, before, after }: ContextQuery,
  may: Access['may'],
): Promise<ContextAnswer> {
  const cursor = readCursor(at)
  const name = cursor && readFileName(cursor.file)
  if (!cursor || !name) throw notFound(at)
  const wanted = { since: Number.NEGATIVE_INFINITY, until: Number.POSITIVE_INFINITY, stdout: true, stderr: true }
  const partial: Gap[] = []
  const picked = await rows.day(name.day, { ...wanted, names: ({ service }) => may(service) }, partial)
  const file = new FileLines(
    text,
    picked.flatMap(({ rows, picked }) => stretchesOf(rows, picked, cursor.file)),
  )
  const found = await file.around(cursor.position, before, after)
  if (!found) throw notFound(at)
  if (found.untold > 0) {
    const message = `the index tells nothing of ${found.untold} bytes among these lines; tallyman reindex mends it`
    partial.push({ file: cursor.file, message })
  }
  return {
    lines: found.lines.map((line) => JSON.parse(lineEvent(line))),
    index: found.lines.findIndex(({ position }) => position === cursor.position),
    partial,
  }
}

function stretchesOf(rows: Rows, picked: Uint32Array, file: string): Stretch[] {
  const place = rows.files.indexOf(file)
  return Array.from(
    picked.filter((i) => rows.file[i] === place),
    (i) => rows.at(i),
  )
}

/** The lines of one file, reached by their positions. */
export class FileLines {
  #text: FileReader
  #stretches: Stretch[]
  /** The stretch that was read last, and its lines. */
  #read: { place: number; lines: StoredLine[] } | undefined

  /** @param stretches of one file: what does not lie in them is not there */
  constructor(text: FileReader, stretches: readonly Stretch[]) {
    this.#text = text
    this.#stretches = stretches.toSorted((a, b) => a.position - b.position)
  }

  /**
   * The line that begins at `position`, and its neighbours.
   * @param passes which neighbours count
   * @returns with how many bytes among them no stretch tells of; undefined where no line begins there
   * @throws Error of the file system
   */
  async around(
    position: number,
    before: number,
    after: number,
    passes: (line: StoredLine) => boolean = () => true,
  ): Promise<{ lines: StoredLine[]; untold: number } | undefined> {
    const place = this.#placeOf(position)
    const own = await this.#linesOf(place)
    const index = own.findIndex((line) => line.position === position)
    if (index === -1) return undefined
    let front = own.slice(0, index).filter(passes)
    let first = place
    while (first > 0 && front.length < before) front = (await this.#linesOf(--first)).filter(passes).concat(front)
    let back = own.slice(index + 1).filter(passes)
    let last = place
    while (last + 1 < this.#stretches.length && back.length < after)
      back = back.concat((await this.#linesOf(++last)).filter(passes))
    return {
      lines: [...front.slice(Math.max(0, front.length - before)), own[index]!, ...back.slice(0, after)],
      untold: this.#untold(first, last, front.length < before),
    }
  }

  /** @param begin whether what is in front of the first stretch counts as well */
  #untold(first: number, last: number, begin: boolean): number {
    let untold = 0
    let end = begin ? 0 : this.#stretches[first]!.position
    for (const { position, bytes } of this.#stretches.slice(first, last + 1)) {
      untold += Math.max(0, position - end)
      end = Math.max(end, position + bytes)
    }
    return untold
  }

  /** The last stretch that does not begin behind `position`. */
  #placeOf(position: number): number {
    let low = 0
    let high = this.#stretches.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#stretches[middle]!.position <= position) low = middle + 1
      else high = middle
    }
    return low - 1
  }

  async #linesOf(place: number): Promise<StoredLine[]> {
    const stretch = this.#stretches[place]
    if (!stretch) return []
    if (this.#read?.place === place) return this.#read.lines
    const lines = parseLines(stretch, await this.#text.readRange(stretch.file, stretch.position, stretch.bytes))
    this.#read = { place, lines }
    return lines
  }
}
