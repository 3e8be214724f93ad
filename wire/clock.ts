/** Time as it passes, so that a test can let it pass otherwise. */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'

export type Clock = {
  /** ms, monotonic. */
  now(): number
  /** Rejects when `signal` is aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Resolves at the beginning of a turn of the event loop, before anything else happens in it. */
  turn(): Promise<void>
}

export const realClock: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) => sleep(ms, undefined, signal && { signal }),
  turn: () => turn(),
}
