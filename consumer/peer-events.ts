/** The events of another consumer's streams. */
import { pipeline, type Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { createGunzip } from 'node:zlib'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { type Line, type TailEvent, tailEvent } from './api-schema.ts'
import type { Batch } from './batch.ts'
import { BATCHES } from './event-decoder.ts'
import { readBatches, readNdjson } from './ndjson.ts'
import { type Peer, PeerError, type Question } from './peers.ts'

/** A tail that broke off is asked for again after so long, the longer the more often that fails. */
const TAIL_BACK_MS = [500, 1_000, 2_000, 5_000]

const tailOrBatch = z.union([tailEvent, z.object({ type: z.literal('batch') })])

/** So many lines at most are remembered, so as not to send them again when a peer's tail goes on. */
const MAX_REMEMBERED = 100_000

/**
 * A peer's events, those that we know.
 * @throws PeerError, PeerRefusal
 */
export async function* readPeer(
  peer: Peer,
  schema: z.ZodType,
  { headers, ...question }: Question,
): AsyncGenerator<unknown[]> {
  const message = await peer.ask({ ...question, headers: { ...headers, 'accept-encoding': 'gzip' } })
  const packed = message.headers['content-encoding'] === 'gzip'
  const plain: Readable = packed ? pipeline(message, createGunzip(), () => {}) : message
  const read = message.headers['content-type'] === BATCHES ? readBatches : readNdjson
  try {
    for await (const values of read(plain)) yield values.filter((value) => schema.safeParse(value).success)
  } catch (error) {
    throw error instanceof PeerError ? error : new PeerError(`it broke off: ${(error as Error).message}`)
  }
}

/**
 * A peer's tail for as long as the caller stays: where it breaks off, that is told, and it goes on behind its last cursor.
 * @param from where each consumer goes on, by its name; undefined where the tail begins
 * @param accept as the peer is asked: whether it may send batches
 */
export async function* followPeer(
  peer: Peer,
  { access, url }: Pick<FastifyRequest, 'access' | 'url'>,
  from: ReadonlyMap<string, string> | undefined,
  signal: AbortSignal,
  accept = 'application/x-ndjson',
): AsyncGenerator<(TailEvent | Batch)[]> {
  const asked = new URL(url, 'http://peer')
  // What was sent since the last cursor and the one before: a peer repeats some of it, line by line.
  let sent: [recent: Sent, before: Sent] = [new Sent(), new Sent()]
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
      const question = { path: asked.pathname + asked.search, access, signal, headers: { accept } }
      for await (const events of readPeer(peer, tailOrBatch, question)) {
        failures = 0
        told = false
        const news = (events as (TailEvent | Batch)[]).filter(
          (event) => event.type !== 'line' || !sent.some((one) => one.has(event)),
        )
        for (const event of news) {
          sent[0].add(event)
          if (event.type !== 'cursor') continue
          cursor = event.cursor
          sent = [new Sent(), sent[0]]
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

/** What was sent of a tail, single lines and stretches. */
class Sent {
  #ats = new Set<string>()
  #stretches = new Map<string, [begin: number, end: number][]>()

  add(event: TailEvent | Batch): void {
    if (event.type === 'line' && this.#ats.size < MAX_REMEMBERED) this.#ats.add(event.at)
    if (event.type !== 'batch') return
    for (const { head } of event.stretches) {
      const ofFile = this.#stretches.get(head.file) ?? []
      this.#stretches.set(head.file, ofFile)
      const last = ofFile.at(-1)
      // What lands in a file while somebody follows all of it joins up.
      if (last?.[1] === head.position) last[1] += head.bytes
      else ofFile.push([head.position, head.position + head.bytes])
    }
  }

  has({ at, file, position }: Line): boolean {
    return (
      this.#ats.has(at) ||
      (this.#stretches.get(file)?.some(([begin, end]) => begin <= position && position < end) ?? false)
    )
  }
}
