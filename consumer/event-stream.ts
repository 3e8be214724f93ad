/**
 * An answer that is a stream of events: NDJSON, or server-sent events where the client asks for them.
 *
 * Invariants
 * - What is wrong with the question is answered with its status: the first events are waited for before anything is sent.
 * - A slow client is waited for; one that leaves ends the work, whatever it waits for, by the signal.
 */
import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'

/** Events in JSON, in batches, or as they go over the wire already. */
export type Events = AsyncGenerator<readonly string[] | Buffer>

export type EventFormat = 'ndjson' | 'sse'

const TYPES = { ndjson: 'application/x-ndjson', sse: 'text/event-stream' } as const

export const contentType = (format: EventFormat): string => `${TYPES[format]}; charset=utf-8`

export const eventFormat = ({ headers }: FastifyRequest): EventFormat =>
  headers.accept?.includes(TYPES.sse) ? 'sse' : 'ndjson'

/** Events as they go over the wire. A cursor is the id of its server-sent event: a browser asks with it when it comes back. */
export function encodeEvents(events: readonly string[], format: EventFormat): string {
  if (format === 'ndjson') return events.map((event) => `${event}\n`).join('')
  return events.map((event) => `${idOf(event)}data: ${event}\n\n`).join('')
}

const idOf = (event: string): string =>
  event.startsWith('{"type":"cursor"') ? `id: ${(JSON.parse(event) as { cursor: string }).cursor}\n` : ''

const isLine = (event: string): boolean => event.startsWith('{"type":"line"')

/** A stream of events, as the OpenAPI document says it; what is sent is not held against it, event by event. */
export const streamOf = (event: z.ZodType) => ({
  200: {
    description: 'Events, one a line.',
    content: { 'application/x-ndjson': { schema: event }, 'text/event-stream': { schema: event } },
  },
})

/**
 * Sends a stream.
 * @param start begins the work; the signal is aborted when the client leaves
 * @throws what `start`, or the first of its events, throws
 */
export async function sendEvents(
  request: FastifyRequest,
  reply: FastifyReply,
  start: (signal: AbortSignal) => Events,
): Promise<FastifyReply> {
  const format = eventFormat(request)
  const gone = new AbortController()
  if (reply.raw.destroyed) gone.abort()
  reply.raw.once('close', () => gone.abort())
  const events = start(gone.signal)
  const first = await events.next()
  async function* encoded(): AsyncGenerator<string | Buffer> {
    try {
      for (let next = first; !next.done; next = await events.next()) {
        if (Buffer.isBuffer(next.value)) {
          // Nobody counts what is encoded already: a tail's bytes have to do.
          delete request.linesSent
          yield next.value
        } else {
          request.linesSent = (request.linesSent ?? 0) + next.value.filter(isLine).length
          yield encodeEvents(next.value, format)
        }
      }
    } finally {
      await events.return(undefined)
    }
  }
  reply.header('content-type', contentType(format))
  // A proxy that gathers what it passes on would hold back a tail.
  reply.header('cache-control', 'no-store').header('x-accel-buffering', 'no')
  const stream = Readable.from(encoded(), { objectMode: false })
  // A generator that nobody began to read has no `finally` that would run.
  stream.once('close', () => void events.return(undefined).catch(() => {}))
  return reply.send(stream)
}
