/** Waiting for what a test observes from outside. Nothing here waits longer than until it is so. */
import { setTimeout as sleep } from 'node:timers/promises'

const EVERY_MS = 20

/**
 * Asks again and again until the answer is neither undefined nor false.
 * @param what what is waited for, for the error
 * @throws Error when the deadline passes, with the last error that `ask` threw as its cause
 */
export async function until<T>(
  what: string | (() => string),
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  seconds = 60,
): Promise<T> {
  const deadline = performance.now() + seconds * 1000
  let cause: unknown
  do {
    try {
      const answer = await ask()
      if (answer !== undefined && answer !== false) return answer
      cause = undefined
    } catch (error) {
      cause = error
    }
    await sleep(EVERY_MS)
  } while (performance.now() < deadline)
  const said = typeof what === 'string' ? what : what()
  throw new Error(`waited ${seconds} s in vain: ${said}${cause instanceof Error ? `: ${cause.message}` : ''}`, {
    cause,
  })
}
