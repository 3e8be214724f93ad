/**
 * Events from the network, one by one, without ever holding the page up.
 *
 * Invariants
 * - After SLICE_MS of work the browser gets its turn: chunks that wait in the stream resolve at once, so reading them in a row
 *   would be one long task however small each is.
 * - The stream is read no faster than its events are taken: a server that is faster is held back by the connection, and tells
 *   what it left out.
 * - A line that is no JSON is a broken stream, and thrown.
 */
import { EventDecoder } from '../consumer/event-decoder.ts'

/** How long events are decoded in a row, ms. */
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
  const decoder = new EventDecoder<Event>()
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
      if (done) break
      for (const some of decoder.decode(value)) {
        for (const event of some) events.push(event)
        if (now() - begun > SLICE_MS) await takeTurn()
      }
      hand()
      if (now() - begun > SLICE_MS) await takeTurn()
    }
    if (decoder.rest.trim() !== '') events.push(JSON.parse(decoder.rest) as Event)
    hand()
  } finally {
    await reader.cancel().catch(() => {})
  }
}
