/**
 * Any consumer answers for all: what is asked of this one is asked of its peers, too, and the answers are made into one.
 *
 * The routes know nothing of it. A route that is in MERGED has its own answer taken on its way out, and the peers' are put in; what is
 * asked of a file or a line of another consumer, by its name in front, is passed on to that one.
 *
 * Invariants
 * - A question that is refused here is refused; peers that are missing, or refuse it, are told in the answer.
 * - With peers every file and cursor in an answer has its consumer's name in front; what comes from a peer's question never has.
 * - Whoever leaves ends what was asked of the peers.
 */
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Access } from './access.ts'
import {
  type DeadLettersQuery,
  daysAnswer,
  deadLettersAnswer,
  type Gap,
  type HistogramQuery,
  histogramAnswer,
  type LedgerQuery,
  type LinesQuery,
  ledgerAnswer,
  linesEvent,
  type RootsAnswer,
  type RunRow,
  rootsAnswer,
  type SearchQuery,
  searchEvent,
  servicesAnswer,
  statusAnswer,
  type TailQuery,
  tailEvent,
  type VerifyQuery,
  verifyAnswer,
} from './api-schema.ts'
import { type Batch, encodeBatch } from './batch.ts'
import { BATCHES } from './event-decoder.ts'
import { type Events, encodeEvents, eventStream, type Wire, wireOf } from './event-stream.ts'
import {
  mergeDays,
  mergeDeadLetters,
  mergeHistograms,
  mergeLedgers,
  mergeRoots,
  mergeServices,
  mergeStatus,
  mergeVerifications,
  type Told,
} from './merge-answers.ts'
import { type Feed, mergeLines, mergeSearches, mergeTails, splitCursors } from './merge-streams.ts'
import { readBatches, readNdjson } from './ndjson.ts'
import { pack } from './packing.ts'
import { passOn } from './pass-on.ts'
import { followPeer, readPeer } from './peer-events.ts'
import { HOP, type Peer, type Peers } from './peers.ts'
import { asksForAll } from './tail.ts'

/** What is known here of the runs that are asked for. */
export type RunsOf = (query: VerifyQuery, access: Access) => RunRow[]

/** An answer in JSON: how those of the peers are read, and put together with this one's. */
type Merged = { schema: z.ZodType; merge(told: Told<never>[], query: never): unknown }

const MERGED: Record<string, Merged> = {
  '/services': { schema: servicesAnswer, merge: mergeServices },
  '/days': { schema: daysAnswer, merge: mergeDays },
  '/histogram': {
    schema: histogramAnswer,
    merge: (told, { buckets }: HistogramQuery) => mergeHistograms(told, buckets),
  },
  '/status': { schema: statusAnswer, merge: mergeStatus },
  '/ledger': { schema: ledgerAnswer, merge: mergeLedgers },
  '/roots': {
    schema: rootsAnswer,
    merge: (told: Told<RootsAnswer>[]): RootsAnswer => ({
      roots: mergeRoots(told.flatMap(({ answer }) => answer.roots)),
      partial: [],
    }),
  },
  '/dead-letters': {
    schema: deadLettersAnswer,
    merge: (told, { limit }: DeadLettersQuery) => mergeDeadLetters(told, limit),
  },
}

type Streamed = {
  schema: z.ZodType
  merge(
    feeds: Feed<never>[],
    request: FastifyRequest,
    names: { own: string; signal: AbortSignal },
  ): AsyncGenerator<object[]>
}

const STREAMED: Record<string, Streamed> = {
  '/lines': { schema: linesEvent, merge: (feeds, { query }) => mergeLines(feeds, query as LinesQuery) },
  '/search': { schema: searchEvent, merge: (feeds, { query }) => mergeSearches(feeds, query as SearchQuery) },
  '/tail': {
    schema: tailEvent,
    merge: (feeds, { query, forAll }, { own, signal }) => {
      const from = forAll?.tailFrom
      const last = from ? undefined : (query as TailQuery).last
      return mergeTails(feeds, { last, own, from }, signal)
    },
  },
}

declare module 'fastify' {
  interface FastifyRequest {
    /** What is asked of the peers for it. */
    forAll?: ForAll
  }
}

type ForAll = {
  /** Is aborted when the caller leaves. */
  gone: AbortController
  asked?: Promise<Asked[]>
  /** How the caller wants a stream. */
  wire?: Wire
  /** Where a tail goes on, by consumer. */
  tailFrom?: Map<string, string> | undefined
}

/** As all consumers are asked for what goes out so. */
const acceptOf = ({ format }: Wire): string =>
  format === 'batches' ? `${BATCHES}, application/x-ndjson` : 'application/x-ndjson'

const isBatch = (event: object): event is Batch => (event as { type?: unknown }).type === 'batch'

/** Events of which some are batches, as they go over the wire. */
function mixed(events: readonly object[], { format, packing }: Wire): Buffer {
  const bytes = Buffer.concat(
    events.map((event) =>
      isBatch(event) ? encodeBatch(event) : Buffer.from(encodeEvents([JSON.stringify(event)], format)),
    ),
  )
  return packing ? pack(bytes, packing) : bytes
}

type Asked = { peer: Peer; answer?: unknown; runs?: RunRow[]; error?: Error }

/**
 * Has every route of `api` that is registered from here on answer for the peers, too.
 * @param prefix where the routes stand
 */
export function fanOut(api: FastifyInstance, prefix: string, peers: Peers, runsOf: RunsOf): void {
  const { name: own } = peers.self
  if (peers.others.length === 0) return
  api.decorateRequest('forAll', undefined)

  /** @returns what others are asked with; undefined where they are not asked */
  const begin = (request: FastifyRequest, reply: FastifyReply): ForAll | undefined => {
    if (request.headers[HOP] !== undefined || request.method !== 'GET') return undefined
    request.forAll = { gone: leave(reply) }
    return request.forAll
  }
  const leave = (reply: FastifyReply): AbortController => {
    const gone = new AbortController()
    if (reply.raw.destroyed) gone.abort()
    reply.raw.once('close', () => gone.abort())
    return gone
  }
  /** Asks all peers at once. */
  const askAll = (ask: (peer: Peer) => Promise<Omit<Asked, 'peer'>>): Promise<Asked[]> =>
    Promise.all(
      peers.others.map((peer) =>
        ask(peer).then(
          (told): Asked => ({ peer, ...told }),
          (error): Asked => ({ peer, error }),
        ),
      ),
    )
  /** All that was told, this one's first, and who told nothing. */
  const gather = async (asking: Promise<Asked[]>, answer: unknown) => {
    const asked = (await asking).filter(({ peer }) => !peer.isSelf)
    const others = asked.filter(({ error }) => !error)
    return {
      others,
      told: [
        { name: own, answer },
        ...others.map(({ peer, answer }) => ({ name: peer.label, answer })),
      ] as Told<never>[],
      missing: asked.flatMap(({ peer, error }): Gap[] => (error ? [peer.gap(error)] : [])),
    }
  }
  const withMissing = (answer: unknown, missing: Gap[]): unknown => {
    const { partial, ...rest } = answer as { partial: Gap[] }
    return { ...rest, partial: [...partial, ...missing] }
  }

  const mergeAnswers = ({ schema, merge }: Merged) => ({
    preHandler: async (request: FastifyRequest, reply: FastifyReply) => {
      const forAll = begin(request, reply)
      if (!forAll) return
      const { signal } = forAll.gone
      const { access, url: path } = request
      forAll.asked = askAll(async (peer) => ({
        answer: await peer.json(schema, { path, access, signal }),
      }))
    },
    preSerialization: async (request: FastifyRequest, reply: FastifyReply, payload: unknown) => {
      const asked = request.forAll?.asked
      if (!asked || reply.statusCode !== 200) return payload
      const { told, missing } = await gather(asked, payload)
      return withMissing(merge(told, request.query as never), missing)
    },
  })

  const mergeVerify = {
    preHandler: async (request: FastifyRequest, reply: FastifyReply) => {
      const forAll = begin(request, reply)
      if (!forAll) return
      const { signal } = forAll.gone
      const { access, url: path } = request
      const { service, module } = request.query as VerifyQuery
      const by: LedgerQuery = {
        by: 'run',
        ...(service !== undefined && { service }),
        ...(module !== undefined && { module }),
      }
      const runs = `${prefix}/ledger?${new URLSearchParams(by as Record<string, string>)}`
      forAll.asked = askAll(async (peer) => {
        const answer = await peer.json(verifyAnswer, { path, access, signal })
        const { rows } = await peer.json(ledgerAnswer, { path: runs, access, signal })
        return { answer, runs: rows as RunRow[] }
      })
    },
    preSerialization: async (request: FastifyRequest, reply: FastifyReply, payload: unknown) => {
      const asked = request.forAll?.asked
      if (!asked || reply.statusCode !== 200) return payload
      const { told, others, missing } = await gather(asked, payload)
      const runs = [
        ...runsOf(request.query as VerifyQuery, request.access),
        ...others.flatMap(({ runs }) => runs ?? []),
      ]
      return withMissing(mergeVerifications(told, runs), missing)
    },
  }

  const mergeStreams = ({ schema, merge }: Streamed, isTail: boolean) => ({
    preHandler: async (request: FastifyRequest, reply: FastifyReply) => {
      const forAll = begin(request, reply)
      if (!forAll) return
      await peers.introduced(request.access, forAll.gone.signal)
      const { format, packing } = wireOf(request, isTail && asksForAll(request.query as TailQuery))
      forAll.wire = { format, packing: isTail ? packing : undefined }
      // What the route says goes into ours.
      request.raw.headers.accept = acceptOf(forAll.wire)
      delete request.raw.headers['accept-encoding']
      if (!isTail) return
      const query = request.query as TailQuery
      const id = request.headers['last-event-id']
      // A browser that comes back asks as it did at first.
      const said = typeof id === 'string' ? id : query.cursor
      if (said === undefined) return
      // One that no peer stands in was made before there were any.
      forAll.tailFrom = said.includes(':') ? splitCursors(said) : new Map([[own, said]])
      delete request.raw.headers['last-event-id']
      const from = forAll.tailFrom.get(own)
      if (from === undefined) delete query.cursor
      else query.cursor = from
    },
    onSend: async (request: FastifyRequest, reply: FastifyReply, payload: unknown) => {
      const { forAll } = request
      const { wire, gone } = forAll ?? {}
      if (!wire || !gone || reply.statusCode !== 200 || !(payload instanceof Readable)) return payload
      const { signal } = gone
      const feeds: Feed<never>[] = [
        { name: own, events: (isTail ? readBatches : readNdjson)(payload) as AsyncGenerator<never[]> },
        ...peers.others.map((peer) => ({
          get name() {
            return peer.label
          },
          events: (isTail
            ? followPeer(peer, request, forAll?.tailFrom, signal, acceptOf(wire))
            : readPeer(peer, schema, { path: request.url, access: request.access, signal })) as AsyncGenerator<never[]>,
        })),
      ]
      const merged = async function* (): Events {
        try {
          for await (const events of merge(feeds, request, { own, signal }))
            yield events.some(isBatch) ? mixed(events, wire) : events.map((event) => JSON.stringify(event))
        } finally {
          gone.abort()
          payload.destroy()
        }
      }
      const stream = eventStream(request, reply, merged(), { wire })
      // A generator that nobody began to read has no `finally` that would run.
      stream.once('close', () => void payload.destroy())
      return stream
    },
  })

  const passedOn = passOn(peers, prefix)
  const hooksOf = (path: string): object => {
    if (path === '/verify') return mergeVerify
    if (MERGED[path]) return mergeAnswers(MERGED[path])
    if (STREAMED[path]) return mergeStreams(STREAMED[path], path === '/tail')
    return passedOn[path] ?? {}
  }
  api.addHook('onRoute', (route) => {
    for (const [hook, act] of Object.entries(hooksOf(route.url.slice(prefix.length)))) {
      const before = route[hook as 'preHandler'] ?? []
      Object.assign(route, { [hook]: [...(Array.isArray(before) ? before : [before]), act] })
    }
  })
}
