/** The events of another consumer's streams. */
import { pipeline, type Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { createGunzip } from 'node:zlib'
import type { FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { type TailEvent, tailEvent } from './api-schema.ts'
import { readNdjson } from './ndjson.ts'
import { type Peer, PeerError, type Question } from './peers.ts'

/** A tail that broke off is asked for again after so long, the longer the more often that fails. */
const TAIL_BACK_MS = [500, 1_000, 2_000, 5_000]

/** So many lines at most are remembered, so as not to send them again when a peer's tail goes on. */
const MAX_REMEMBERED = 100_000

/**
 * A peer's events, those that we know.
 * @throws PeerError, PeerRefusal
 */
export async function* readPeer(peer: Peer, schema: z.ZodType, question: Question): AsyncGenerator<unknown[]> {
  const message = await peer.ask({ ...question, headers: { 'accept-encoding': 'gzip' } })
  const packed = message.headers['content-encoding'] === 'gzip'
  const plain: Readable = packed ? pipeline(message, createGunzip(), () => {}) : message
  try {
    for await (const values of readNdjson(plain)) yield values.filter((value) => schema.safeParse(value).success)
  } catch (error) {
    throw error instanceof PeerError ? error : new PeerError(`it broke off: ${(error as Error).message}`)
  }
}

/**
 * A peer's tail for as long as the caller stays: where it breaks off, that is told, and it goes on behind its last cursor.
 * @param from where each consumer goes on, by its name; undefined where the tail begins
 */
export async function* followPeer(
  peer: Peer,
  { access, url }: Pick<FastifyRequest, 'access' | 'url'>,
  from: ReadonlyMap<string, string> | undefined,
  signal: AbortSignal,
): AsyncGenerator<TailEvent[]> {
  const asked = new URL(url, 'http://peer')
  // What was sent since the last cursor and the one before: a peer repeats some of it.
  let sent: [recent: Set<string>, before: Set<string>] = [new Set(), new Set()]
  let cursor: string | undefined
  let told = false
  for (let failures = 0; !signal.aborted; failures++) {
    asked.searchParams.delete('cursor')
    if (from || failures > 0) asked.searchParams.delete('last')
    try {
      // By its name it is known where to go on: without it, what landed since would be left out.
      if (from && peer.name === undefined) await peer.introduce(access, signal)
      cursor ??= from?.get(peer.label)
      if (cursor !== undefined) asked.searchParams.set('cursor', cursor)
      for await (const events of readPeer(peer, tailEvent, { path: asked.pathname + asked.search, access, signal })) {
        failures = 0
        told = false
        const news = (events as TailEvent[]).filter(
          (event) => event.type !== 'line' || !sent.some((ats) => ats.has(event.at)),
        )
        for (const event of news) {
          if (event.type === 'line' && sent[0].size < MAX_REMEMBERED) sent[0].add(event.at)
          if (event.type !== 'cursor') continue
          cursor = event.cursor
          sent = [new Set(), sent[0]]
        }
        yield news
      }
      throw new PeerError('it broke off')
    } catch (error) {
      if (signal.aborted || peer.isSelf) return
      if (!told) yield [{ type: 'gap', ...peer.gap(error as Error) }]
      told = true
    }
    await sleep(TAIL_BACK_MS[Math.min(failures, TAIL_BACK_MS.length - 1)], undefined, { signal }).catch(() => {})
  }
}
