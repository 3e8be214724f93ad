/**
 * NDJSON from the network, event by event, without ever holding the page up.
 *
 * Invariants
 * - After SLICE_MS of work the browser gets its turn: chunks that wait in the stream resolve at once, so reading them in a row
 *   would be one long task however small each is.
 * - The stream is read no faster than its events are taken: a server that is faster is held back by the connection, and tells
 *   what it left out.
 * - A line that is no JSON is a broken stream, and thrown.
 */

/** How long events are parsed in a row, ms. */
const SLICE_MS = 12

/** Gives the browser its turn. */
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0))

/** @param take gets the events of each slice; it is not called with none */
export async function readEvents<Event>(
  body: ReadableStream<Uint8Array>,
  take: (events: Event[]) => void,
  now: () => number = () => performance.now(),
): Promise<void> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  let begun = now()
  let events: Event[] = []
  const hand = (): void => {
    if (events.length > 0) take(events)
    events = []
  }
  const takeTurn = async (): Promise<void> => {
    hand()
    await turn()
    begun = now()
  }
  try {
    for (;;) {
      const { done, value } = await reader.read()
      const text = rest + (done ? decoder.decode() : decoder.decode(value, { stream: true }))
      let from = 0
      for (let end = text.indexOf('\n', from); end !== -1; end = text.indexOf('\n', from)) {
        if (end > from) events.push(JSON.parse(text.slice(from, end)) as Event)
        from = end + 1
        if (now() - begun > SLICE_MS) await takeTurn()
      }
      rest = text.slice(from)
      if (done) break
      hand()
      if (now() - begun > SLICE_MS) await takeTurn()
    }
    if (rest.trim() !== '') events.push(JSON.parse(rest) as Event)
    hand()
  } finally {
    await reader.cancel().catch(() => {})
  }
}
