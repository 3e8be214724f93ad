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
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Access } from './access.ts'
import {
  type ContextAnswer,
  type ContextQuery,
  contextAnswer,
  daysAnswer,
  type Gap,
  type HistogramQuery,
  histogramAnswer,
  type LedgerQuery,
  type LinesQuery,
  ledgerAnswer,
  linesEvent,
  type RunRow,
  type SearchQuery,
  searchEvent,
  servicesAnswer,
  statusAnswer,
  type TailEvent,
  type TailQuery,
  tailEvent,
  type VerifyQuery,
  verifyAnswer,
} from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import { contentType, type EventFormat, encodeEvents, eventFormat } from './event-stream.ts'
import {
  mergeDays,
  mergeHistograms,
  mergeLedgers,
  mergeServices,
  mergeStatus,
  mergeVerifications,
  qualifyContext,
  type Told,
  unqualified,
} from './merge-answers.ts'
import { type Feed, mergeLines, mergeSearches, mergeTails, splitCursors } from './merge-streams.ts'
import { readNdjson } from './ndjson.ts'
import { HOP, type Peer, PeerError, type Peers, type Question } from './peers.ts'

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
      const last = forAll?.tailFrom ? undefined : (query as TailQuery).last
      return mergeTails(feeds, { last, own }, signal)
    },
  },
}

const TAIL_BACK_MS = [500, 1_000, 2_000, 5_000]

/** So many lines at most are remembered, so as not to send them again when a peer's tail goes on. */
const MAX_REMEMBERED = 100_000

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
  format?: EventFormat
  /** Where a tail goes on, by consumer. */
  tailFrom?: Map<string, string> | undefined
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
      forAll.format = eventFormat(request)
      // What the route says goes into ours.
      request.raw.headers.accept = 'application/x-ndjson'
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
      const { format, gone } = request.forAll ?? {}
      if (!format || !gone || reply.statusCode !== 200 || !(payload instanceof Readable)) return payload
      const { signal } = gone
      const feeds: Feed<never>[] = [
        { name: own, events: readNdjson(payload) as AsyncGenerator<never[]> },
        ...peers.others.map((peer) => ({
          get name() {
            return peer.label
          },
          events: (isTail
            ? followPeer(peer, request, signal)
            : readPeer(peer, schema, { path: request.url, access: request.access, signal })) as AsyncGenerator<never[]>,
        })),
      ]
      const encoded = async function* (): AsyncGenerator<string> {
        let lines = 0
        try {
          for await (const events of merge(feeds, request, { own, signal })) {
            lines += events.filter((event) => 'type' in event && event.type === 'line').length
            yield encodeEvents(
              events.map((event) => JSON.stringify(event)),
              format,
            )
          }
        } finally {
          request.linesSent = lines
          gone.abort()
          payload.destroy()
        }
      }
      reply.header('content-type', contentType(format))
      return Readable.from(encoded(), { objectMode: false })
    },
  })

  /** What is asked about a file or line of another consumer is asked of that one. */
  const passOn = (
    place: (request: FastifyRequest) => { said: string; become(rest: string): void; pathFor(rest: string): string },
    qualify: boolean,
  ) => ({
    preHandler: async (request: FastifyRequest, reply: FastifyReply) => {
      const { headers, method, access } = request
      if (headers[HOP] !== undefined) return
      const { said, become, pathFor } = place(request)
      const { consumer, rest } = unqualified(said)
      if (consumer === undefined) return
      if (consumer === own) {
        become(rest)
        return
      }
      const { signal } = leave(reply)
      const peer = (await peers.introduced(access, signal)).find(({ name }) => name === consumer)
      if (!peer) throw new ConsumerError('NOT_FOUND', `${said}: no consumer that is there is called ${consumer}`)
      const asked = Object.fromEntries(
        PASSED_ON.request.flatMap((name) => (headers[name] === undefined ? [] : [[name, headers[name]]])),
      )
      const message = await peer.ask({ path: pathFor(rest), method, headers: asked, access, signal })
      if (qualify) return reply.send(qualifyContext(consumer, contextAnswer.parse(JSON.parse(await text(message)))))
      reply.code(message.statusCode!)
      for (const name of PASSED_ON.answer)
        if (message.headers[name] !== undefined) reply.header(name, message.headers[name])
      return reply.send(message)
    },
    preSerialization: async (request: FastifyRequest, reply: FastifyReply, payload: unknown) => {
      if (!qualify || request.headers[HOP] !== undefined || reply.statusCode !== 200) return payload
      const { lines } = payload as ContextAnswer
      return unqualified(lines[0]?.file ?? ':').consumer === undefined
        ? qualifyContext(own, payload as ContextAnswer)
        : payload
    },
  })

  const ofContext = passOn((request) => {
    const query = request.query as ContextQuery
    return {
      said: query.at,
      become: (at) => {
        query.at = at
      },
      pathFor: (at) =>
        `${prefix}/context?${new URLSearchParams({ at, before: String(query.before), after: String(query.after) })}`,
    }
  }, true)
  const ofFile = passOn((request) => {
    const params = request.params as { '*': string }
    return {
      said: params['*'],
      become: (file) => {
        params['*'] = file
      },
      // Percent-encoded names are those of the files themselves: they are encoded once more on their way.
      pathFor: (file) => `${prefix}/files/${file.split('/').map(encodeURIComponent).join('/')}`,
    }
  }, false)

  api.addHook('onRoute', (route) => {
    const path = route.url.slice(prefix.length)
    const hooks =
      path === '/verify'
        ? mergeVerify
        : path === '/context'
          ? ofContext
          : path === '/files/*'
            ? ofFile
            : MERGED[path]
              ? mergeAnswers(MERGED[path])
              : STREAMED[path]
                ? mergeStreams(STREAMED[path], path === '/tail')
                : {}
    for (const [hook, act] of Object.entries(hooks)) {
      const before = route[hook as 'preHandler'] ?? []
      Object.assign(route, { [hook]: [...(Array.isArray(before) ? before : [before]), act] })
    }
  })
}

/** What of a download's headers matters to either side. */
const PASSED_ON = {
  request: ['range', 'if-range', 'if-none-match', 'if-modified-since'],
  answer: [
    'content-type',
    'content-length',
    'content-range',
    'content-disposition',
    'content-encoding',
    'accept-ranges',
    'etag',
    'last-modified',
  ],
} as const

/**
 * A peer's events, those that we know.
 * @throws PeerError, PeerRefusal
 */
async function* readPeer(peer: Peer, schema: z.ZodType, question: Question): AsyncGenerator<unknown[]> {
  const message = await peer.ask(question)
  try {
    for await (const values of readNdjson(message)) yield values.filter((value) => schema.safeParse(value).success)
  } catch (error) {
    throw error instanceof PeerError ? error : new PeerError(`it broke off: ${(error as Error).message}`)
  }
}

/** A peer's tail for as long as the caller stays: where it breaks off, that is told, and it goes on behind its last cursor. */
async function* followPeer(peer: Peer, request: FastifyRequest, signal: AbortSignal): AsyncGenerator<TailEvent[]> {
  const { access, forAll, url } = request
  const tailFrom = forAll?.tailFrom
  const asked = new URL(url, 'http://peer')
  // What was sent since the last cursor and the one before: a peer repeats some of it.
  let sent: [recent: Set<string>, before: Set<string>] = [new Set(), new Set()]
  let cursor = tailFrom?.get(peer.label)
  let told = false
  for (let failures = 0; !signal.aborted; failures++) {
    asked.searchParams.delete('cursor')
    if (cursor !== undefined) asked.searchParams.set('cursor', cursor)
    if (tailFrom || failures > 0) asked.searchParams.delete('last')
    try {
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
