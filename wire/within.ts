/** A limit of time for what may never settle. */
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Settles as `attempt` does, or rejects after `ms`. The attempt itself goes on, and nobody hears of it any more.
 * @param signal an abort rejects at once
 */
export async function within<T>(ms: number, attempt: Promise<T>, signal: AbortSignal): Promise<T> {
  const settled = new AbortController()
  const limit = sleep(ms, undefined, { signal: AbortSignal.any([settled.signal, signal]) })
  try {
    return await Promise.race([
      attempt,
      limit.then(() => {
        throw new Error(`Kafka did not answer within ${ms} ms`)
      }),
    ])
  } finally {
    settled.abort()
    limit.catch(() => {})
    attempt.catch(() => {})
  }
}
