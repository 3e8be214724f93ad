/**
 * Holding FIFOs open: the first thing that a driver does when it starts, before anybody can reach it.
 *
 * Sequence that makes it needed: a container ends while no driver is there; dockerd retries its StopLogging until somebody
 * listens, and closes and removes the FIFO after the answer. A FIFO that nobody holds open by then loses what is in it.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
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
 * Opens the FIFO of every run that an earlier driver left.
 * @returns descriptors by run. A run that is not understood, or whose FIFO is gone, has none: that is looked into later.
 */
export function holdFifos(journal: string): Map<string, number> {
  const held = new Map<string, number>()
  for (const run of listRuns(journal)) {
    try {
      const { file } = JSON.parse(readFileSync(join(runFolder(journal, run), 'run.json'), 'utf8')) as { file: unknown }
      if (typeof file === 'string') held.set(run, openFifo(file))
    } catch (error) {
      if (!(error instanceof FifoError || error instanceof SyntaxError || isMissing(error))) throw error
    }
  }
  return held
}

const isMissing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT'
