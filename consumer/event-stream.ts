/**
 * An answer that is a stream of events: NDJSON, or server-sent events or batches where the client asks for them.
 *
 * Invariants
 * - What is wrong with the question is answered with its status: the first events are waited for before anything is sent, for
 *   HEARTBEAT_MS at most.
 * - A slow client is waited for; one that leaves ends the work, whatever it waits for, by the signal.
 * - A stream that has nothing to say says so: a client that hears nothing knows that nobody is there.
 */
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { BATCHES } from './event-decoder.ts'
import { HEADS, type Packing, pack, packingOf } from './packing.ts'

/** Events in JSON, several at a time, or as they go over the wire already. */
export type Events = AsyncGenerator<readonly string[] | Buffer>

export type EventFormat = 'ndjson' | 'sse'

/** How events go over the wire. */
export type Wire = {
  /** `batches` is NDJSON in which lines may come as the bytes that stand in their file. */
  format: EventFormat | 'batches'
  packing: Packing | undefined
}

const TYPES = {
  ndjson: 'application/x-ndjson; charset=utf-8',
  sse: 'text/event-stream; charset=utf-8',
  batches: BATCHES,
} as const

const HEARTBEAT_MS = 10_000

const eventFormat = ({ headers }: FastifyRequest): EventFormat =>
  headers.accept?.includes('text/event-stream') ? 'sse' : 'ndjson'

/** As the client takes it. @param batches whether there may be some */
export const wireOf = (request: FastifyRequest, batches: boolean): Wire => ({
  format: batches && request.headers.accept?.includes(BATCHES) ? 'batches' : eventFormat(request),
  packing: packingOf(request.headers['accept-encoding']),
})

/** Events as they go over the wire. A cursor is the id of its server-sent event: a browser asks with it when it comes back. */
export function encodeEvents(events: readonly string[], format: Wire['format']): string {
  if (format !== 'sse') return events.map((event) => `${event}\n`).join('')
  return events.map((event) => `${idOf(event)}data: ${event}\n\n`).join('')
}

/** The same as bytes, packed where they are to be. */
export function wireBytes(events: readonly string[], { format, packing }: Wire): Buffer {
  const bytes = Buffer.from(encodeEvents(events, format))
  return packing && bytes.length > 0 ? pack(bytes, packing) : bytes
}

const idOf = (event: string): string =>
  event.startsWith('{"type":"cursor"') ? `id: ${(JSON.parse(event) as { cursor: string }).cursor}\n` : ''

const isLine = (event: string): boolean => event.startsWith('{"type":"line"')

/**
 * A stream of events, as the OpenAPI document says it; what is sent is not held against it, event by event.
 * @param more other types that it may be of
 */
export const streamOf = (event: z.ZodType, more: Record<string, { schema: z.ZodType }> = {}) => ({
  200: {
    description: 'Events, one a line.',
    content: { 'application/x-ndjson': { schema: event }, 'text/event-stream': { schema: event }, ...more },
  },
})

const heartbeat = (): string => JSON.stringify({ type: 'heartbeat', time: new Date().toISOString() })

export type SendOptions = {
  /** What comes as bytes is of this wire, and all else is made so. Where nothing is said: as the client asks, unpacked. */
  wire?: Wire
  heartbeatMs?: number
}

/**
 * Sends a stream.
 * @param start begins the work; the signal is aborted when the client leaves
 * @throws what `start`, or the first of its events, throws
 */
export async function sendEvents(
  request: FastifyRequest,
  reply: FastifyReply,
  start: (signal: AbortSignal) => Events,
  { wire = { format: eventFormat(request), packing: undefined }, heartbeatMs = HEARTBEAT_MS }: SendOptions = {},
): Promise<FastifyReply> {
  const gone = new AbortController()
  if (reply.raw.destroyed) gone.abort()
  reply.raw.once('close', () => gone.abort())
  const events = start(gone.signal)
  const first = events.next()
  const timer = new AbortController()
  const late = sleep(heartbeatMs, undefined, { signal: timer.signal }).catch(() => {})
  await Promise.race([first, late]).finally(() => timer.abort())
  return reply.send(eventStream(request, reply, events, { wire, heartbeatMs, first }))
}

/**
 * The stream of events as the body of an answer, whose headers it sets.
 * @param first of the events, where it was asked for already
 */
export function eventStream(
  request: FastifyRequest,
  reply: FastifyReply,
  events: Events,
  {
    wire,
    heartbeatMs = HEARTBEAT_MS,
    first,
  }: { wire: Wire; heartbeatMs?: number; first?: Promise<IteratorResult<readonly string[] | Buffer>> },
): Readable {
  reply.header('content-type', TYPES[wire.format])
  // A proxy that gathers what it passes on would hold back a tail.
  reply.header('cache-control', 'no-store').header('x-accel-buffering', 'no')
  if (wire.packing) reply.header('content-encoding', wire.packing).header('vary', 'accept-encoding')
  let next = first
  let asked = false
  let quiet = true
  const send = (bytes: Buffer): void => {
    quiet = false
    stream.push(bytes)
  }
  const take = ({ done, value }: IteratorResult<readonly string[] | Buffer>): void => {
    asked = false
    if (stream.destroyed) return
    if (done) stream.push(null)
    else if (Buffer.isBuffer(value)) {
      // Nobody counts what is encoded already: a tail's bytes have to do.
      delete request.linesSent
      send(value)
    } else {
      request.linesSent = (request.linesSent ?? 0) + value.filter(isLine).length
      if (value.length > 0) send(wireBytes(value, wire))
      else ask()
    }
  }
  const ask = (): void => {
    if (asked) return
    asked = true
    const coming = next ?? events.next()
    next = undefined
    coming.then(take, (error) => stream.destroy(error))
  }
  const stream = new Readable({
    read: ask,
    destroy: (error, callback) => {
      clearInterval(beat)
      events.return(undefined).catch(() => {})
      callback(error)
    },
  })
  const beat = setInterval(() => {
    // A client that is slow has not taken what is there.
    if (quiet && asked) stream.push(wireBytes([heartbeat()], wire))
    quiet = true
  }, heartbeatMs)
  const head = wire.packing && HEADS[wire.packing]
  if (head) stream.push(head)
  return stream
}
