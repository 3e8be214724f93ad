/**
 * Holding FIFOs open: the first thing that a driver does when it starts, before anybody can reach it.
 *
 * Sequence that makes it needed: a container ends while no driver is there; dockerd retries its StopLogging until somebody
 * listens, and closes and removes the FIFO after the answer. A FIFO that nobody holds open by then loses what is in it.
 */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { listRuns, runFolder } from './journal.ts'

/** A FIFO that can't be taken: it is missing, or is no FIFO. */
export class FifoError extends Error {
  override name = 'FifoError'
}

/** @throws FifoError when `file` is missing or is no FIFO */
export function openFifo(file: string): number {
  let fd: number
  try {
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)
  } catch (error) {
    throw new FifoError(`${file} can't be opened: ${(error as Error).message}`)
  }
  if (fstatSync(fd).isFIFO()) return fd
  closeSync(fd)
  throw new FifoError(`${file} is no FIFO`)
}

/**
 * Opens the FIFO of every run that an earlier driver left, and those that lie in the journal's folder, where dockerd makes them: a
 * run.json that can't be read names none, and a container whose pipe nobody reads hangs.
 * @returns descriptors by file. What can't be opened or understood is left out, whatever it is: it is looked into later.
 */
export function holdFifos(journal: string): Map<string, number> {
  const held = new Map<string, number>()
  const named = listRuns(journal).flatMap((run) => fileOf(join(runFolder(journal, run), 'run.json')))
  for (const file of new Set([...named, ...fifosIn(journal)])) {
    try {
      held.set(file, openFifo(file))
    } catch {
      // Gone, with its container.
    }
  }
  return held
}

/** The FIFO that a run.json names, whatever else it says. */
export function fifoNamed(runJson: string): string | undefined {
  try {
    const { file } = JSON.parse(runJson) as { file: unknown }
    return typeof file === 'string' ? file : undefined
  } catch {
    return undefined
  }
}

function fileOf(path: string): string[] {
  try {
    return [fifoNamed(readFileSync(path, 'utf8')) ?? []].flat()
  } catch {
    return []
  }
}

function fifosIn(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true })
    return entries.filter((entry) => entry.isFIFO()).map(({ name }) => join(folder, name))
  } catch {
    return []
  }
}
