/**
 * What a search looks at: files that hold wanted rows, and where in them those are.
 */
import type { Gap } from './api-schema.ts'
import type { Names } from './index-log.ts'
import type { Picked, RowCache, Rows, Wanted } from './row-cache.ts'
import type { Stretch } from './stored-line.ts'

const BATCH_FILES = 128
const BATCH_BYTES = 256 * 1024 * 1024
/** A file of which less than this share is wanted is not searched as a whole. */
const LEAST_SHARE = 1 / 4

/** A file that holds wanted rows. `whole`: it is searched as it lies on the disk; `bytes`: what there is to be looked at. */
export type Target = { file: string; day: string; parts: Picked[]; bytes: number; whole: boolean }

/**
 * Files with wanted rows, day by day.
 * @param last the newest day first, and not the oldest
 * @param canSearch whether files of a format can be searched as they lie on the disk
 * @param partial gets what of the index cannot be read
 */
export async function targetsOf(
  rows: RowCache,
  wanted: Wanted,
  last: boolean,
  canSearch: (format: string) => boolean,
  partial: Gap[],
): Promise<Target[]> {
  const targets: Target[] = []
  const days = last ? rows.days.toReversed() : rows.days
  for (const day of days) {
    const picked = await rows.day(day, wanted, partial)
    const files = new Map<string, Target>()
    for (const { rows, picked: all } of picked) {
      for (const [place, places] of byFile(rows, all)) {
        const file = rows.files[place]!
        let target = files.get(file)
        if (!target) {
          target = { file, day, parts: [], bytes: 0, whole: false }
          files.set(file, target)
        }
        target.parts.push({ rows, picked: places })
      }
    }
    for (const target of files.values()) {
      const { bytes, end, formats } = measure(target.parts)
      target.whole = formats.size === 1 && canSearch([...formats][0]!) && bytes >= end * LEAST_SHARE
      target.bytes = target.whole ? end : bytes
    }
    targets.push(...[...files.values()].sort((a, b) => (a.file < b.file ? -1 : 1)))
  }
  return targets
}

/** The wanted rows of a file, reached by a position. */
export class Places {
  #stretches: Stretch[]

  constructor(parts: readonly Picked[]) {
    this.#stretches = stretchesOf(parts)
  }

  /** @returns undefined where no wanted row is */
  at(position: number): Stretch | undefined {
    let low = 0
    let high = this.#stretches.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#stretches[middle]!.position <= position) low = middle + 1
      else high = middle
    }
    const found = this.#stretches[low - 1]
    return found && position < found.position + found.bytes ? found : undefined
  }
}

export const stretchesOf = (parts: readonly Picked[]): Stretch[] =>
  parts.flatMap(({ rows, picked }) => Array.from(picked, (i) => rows.at(i))).sort((a, b) => a.position - b.position)

/** Picked rows file by file. */
function byFile(rows: Rows, picked: Uint32Array): [file: number, picked: Uint32Array][] {
  const counts = new Uint32Array(rows.files.length)
  for (const i of picked) counts[rows.file[i]!]!++
  const places = Array.from(counts, (count) => new Uint32Array(count))
  counts.fill(0)
  for (const i of picked) {
    const file = rows.file[i]!
    places[file]![counts[file]!++] = i
  }
  return places.flatMap((of, file): [number, Uint32Array][] => (of.length > 0 ? [[file, of]] : []))
}

/** How many bytes are wanted, where the last of them end, and in which formats they are. */
function measure(parts: readonly Picked[]): { bytes: number; end: number; formats: Set<string> } {
  const measured = { bytes: 0, end: 0, formats: new Set<string>() }
  for (const { rows, picked } of parts) {
    for (const i of picked) {
      measured.bytes += rows.bytes[i]!
      measured.end = Math.max(measured.end, rows.position[i]! + rows.bytes[i]!)
      measured.formats.add(rows.names[rows.name[i]!]!.format)
    }
  }
  return measured
}

export const namesOf = ([first]: readonly Picked[]): Names => first!.rows.names[first!.rows.name[first!.picked[0]!]!]!

export const formatOf = ({ parts }: Target): string => namesOf(parts).format

/** Files that one ripgrep searches: in order, in the same way, and of no more than a bounded number of bytes. */
export function batchesOf(targets: readonly Target[]): Target[][] {
  const batches: Target[][] = []
  let bytes = 0
  for (const target of targets) {
    const batch = batches.at(-1)
    const like = batch && batch[0]!.whole === target.whole && formatOf(batch[0]!) === formatOf(target)
    if (batch && like && batch.length < BATCH_FILES && bytes + target.bytes <= BATCH_BYTES) {
      batch.push(target)
      bytes += target.bytes
    } else {
      batches.push([target])
      bytes = target.bytes
    }
  }
  return batches
}
