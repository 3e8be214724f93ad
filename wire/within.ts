/** A limit of time for what may never settle. */

/**
 * Settles as `attempt` does, or rejects after `ms`. The attempt itself goes on, and nobody hears of it any more. A timer and a
 * listener, and no AbortController: this is done for every send, and an abort costs as much as the send itself.
 * @param signal an abort rejects at once
 */
export async function within<T>(ms: number, attempt: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>()
  const timer = setTimeout(() => reject(new Error(`Kafka did not answer within ${ms} ms`)), ms)
  const aborted = () => reject(signal.reason)
  signal.addEventListener('abort', aborted)
  if (signal.aborted) aborted()
  attempt.then(resolve, reject)
  try {
    return await promise
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', aborted)
  }
}
