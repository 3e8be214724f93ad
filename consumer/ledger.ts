/**
 * The ledger: which numbers of each run are written, so that every line is written once.
 *
 * Per run and source a high-water mark h and a list of holes below it. Line n:
 *   n > h          it is new; h+1 … n−1 become a hole
 *   n in a hole    it is late; the hole shrinks
 *   else           a copy of what is written: dropped
 *
 * Invariants
 * - It is a pure function of a partition's records, in their order.
 * - At most MAX_HOLES holes a source: older ones are closed for good, and what comes for them later is dropped.
 * - A run that has ended is remembered until MAX_ENDED others have ended after it, because its last records may
 *   come a second time.
 */
import type { Chunk, Source } from '../wire/chunk.ts'

export type Hole = [from: number, to: number]

/** What is known of one source of a run. */
export type SourceState = { high: number; holes: Hole[] }

export type RunState = { sources: [SourceState, SourceState]; ended: boolean }

const MAX_HOLES = 256
const MAX_ENDED = 10_000

export class Ledger {
  #runs: Map<string, RunState>
  #ended = new Set<string>()
  #changed = new Set<string>()

  /** @param runs as a checkpoint kept them, by the run's id in hex */
  constructor(runs: Map<string, RunState> = new Map()) {
    this.#runs = runs
    for (const [run, state] of runs) if (state.ended) this.#ended.add(run)
  }

  /**
   * Enters a chunk.
   * @returns which lines are to be written: all (`undefined`), or those whose byte is 1
   */
  enter(chunk: Chunk): Uint8Array | undefined {
    const id = Buffer.from(chunk.run).toString('hex')
    const run = this.#runs.get(id) ?? this.#begin(id)
    this.#changed.add(id)
    const wanted = this.#enterLines(run, chunk)
    for (const { source, from, count } of chunk.lost) raise(run.sources[source], from + count - 1)
    if (chunk.end) this.#end(id, run, chunk.end)
    return wanted
  }

  /**
   * The runs that were entered since the last call, for the checkpoint; `undefined` for those that are forgotten. Copies:
   * what is entered from now on is not in them.
   */
  takeChanges(): [run: string, state: RunState | undefined][] {
    const changes = Array.from(this.#changed, (run): [string, RunState | undefined] => [
      run,
      structuredClone(this.#runs.get(run)),
    ])
    this.#changed.clear()
    return changes
  }

  #begin(id: string): RunState {
    const run: RunState = {
      sources: [
        { high: 0, holes: [] },
        { high: 0, holes: [] },
      ],
      ended: false,
    }
    this.#runs.set(id, run)
    return run
  }

  #end(id: string, run: RunState, end: readonly [number, number]): void {
    raise(run.sources[0], end[0])
    raise(run.sources[1], end[1])
    run.ended = true
    this.#ended.add(id)
    for (const oldest of this.#ended) {
      if (this.#ended.size <= MAX_ENDED) break
      this.#ended.delete(oldest)
      this.#runs.delete(oldest)
      this.#changed.add(oldest)
    }
  }

  #enterLines(run: RunState, chunk: Chunk): Uint8Array | undefined {
    const [out, err] = run.sources
    // Nearly every chunk brings what follows: no line needs to be looked at. A source without lines in here stands at the
    // number that its next line will have, so comparing it as well is harmless.
    const [stdout, stderr] = counts(chunk)
    if ((stdout === 0 || chunk.first[0] > out.high) && (stderr === 0 || chunk.first[1] > err.high)) {
      if (stdout > 0) advance(out, chunk.first[0], stdout)
      if (stderr > 0) advance(err, chunk.first[1], stderr)
      return undefined
    }
    const wanted = new Uint8Array(chunk.lines)
    const next: [number, number] = [chunk.first[0], chunk.first[1]]
    for (let i = 0; i < chunk.lines; i++) {
      const source = sourceOf(chunk, i)
      wanted[i] = enterLine(run.sources[source], next[source]++) ? 1 : 0
    }
    return wanted
  }
}

/** The source of a chunk's line. */
export const sourceOf = (chunk: Chunk, line: number): Source => ((chunk.src[line >> 3]! >> (line & 7)) & 1) as Source

function counts(chunk: Chunk): [stdout: number, stderr: number] {
  let stderr = 0
  for (let i = 0; i < chunk.src.length; i++) {
    for (let byte = chunk.src[i]!; byte !== 0; byte &= byte - 1) stderr++
  }
  // Bits behind the last line are not lines; a sender should leave them 0, but nothing made it.
  for (let i = chunk.lines; i < chunk.src.length * 8; i++) if ((chunk.src[i >> 3]! >> (i & 7)) & 1) stderr--
  return [chunk.lines - stderr, stderr]
}

/** `count` lines from `first` on, all above the high-water mark. */
function advance(state: SourceState, first: number, count: number): void {
  if (first > state.high + 1) addHole(state, [state.high + 1, first - 1])
  state.high = first + count - 1
}

/** Numbers up to `high` were given, whether their lines come or not. */
function raise(state: SourceState, high: number): void {
  if (high <= state.high) return
  addHole(state, [state.high + 1, high])
  state.high = high
}

function addHole(state: SourceState, hole: Hole): void {
  state.holes.push(hole)
  if (state.holes.length > MAX_HOLES) state.holes.shift()
}

/** @returns whether line n is to be written */
function enterLine(state: SourceState, n: number): boolean {
  if (n > state.high) {
    advance(state, n, 1)
    return true
  }
  const index = state.holes.findIndex(([from, to]) => n >= from && n <= to)
  if (index === -1) return false
  const [from, to] = state.holes[index]!
  const rest: Hole[] = []
  if (n > from) rest.push([from, n - 1])
  if (n < to) rest.push([n + 1, to])
  state.holes.splice(index, 1, ...rest)
  if (state.holes.length > MAX_HOLES) state.holes.shift()
  return true
}
