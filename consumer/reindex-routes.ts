/** The route that mends the index: this consumer's own, then that of each of its peers. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import type { Access } from './access.ts'
import {
  type Gap,
  type ReindexBody,
  type ReindexEvent,
  type ReindexedDay,
  reindexBody,
  reindexEvent,
} from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import { type Events, sendEvents, streamOf } from './event-stream.ts'
import { readPeer } from './peer-events.ts'
import { HOP, type Peer, PeerError, type Peers } from './peers.ts'
import type { Reindex } from './reindex.ts'

const PROGRESS_MS = 250

export type ReindexSources = {
  reindex: Pick<Reindex, 'run'>
  peers: Pick<Peers, 'self' | 'introduced'>
}

type Question = { body: ReindexBody; access: Access; path: string; signal: AbortSignal }

/** What a peer tells of its own. @throws PeerError, PeerRefusal */
async function* peersOwn(peer: Peer, { body, ...question }: Question): AsyncGenerator<ReindexEvent> {
  let ended = false
  for await (const events of readPeer(peer, reindexEvent, {
    ...question,
    method: 'POST',
    body: JSON.stringify(body),
  })) {
    for (const event of events as ReindexEvent[]) {
      ended ||= event.type === 'end'
      yield event
    }
  }
  if (!ended) throw new PeerError('it broke off; what is done by then is done')
}

/** One consumer after the other, told by their names where there are several. */
async function* everywhere(
  { reindex, peers }: ReindexSources,
  question: Question,
  alone: boolean,
): AsyncGenerator<ReindexEvent> {
  const { body, access, signal } = question
  const others = alone ? [] : (await peers.introduced(access, signal)).filter(({ isSelf }) => !isSelf)
  const all = [
    { name: peers.self.name, events: () => reindex.run(body, signal) },
    ...others.map((peer) => ({ name: peer.label, events: () => peersOwn(peer, question) })),
  ]
  const days: ReindexedDay[] = []
  const partial: Gap[] = []
  for (const { name, events } of all) {
    const consumer = others.length > 0 ? { consumer: name } : {}
    try {
      for await (const event of events()) {
        if (event.type === 'progress') yield { ...event, ...consumer }
        else {
          days.push(...event.days.map((day) => ({ ...day, ...consumer })))
          partial.push(...event.partial.map((gap) => ({ ...consumer, ...gap })))
        }
      }
    } catch (error) {
      signal.throwIfAborted()
      partial.push({ ...consumer, message: (error as Error).message })
    }
  }
  yield { type: 'end', days, partial }
}

/** What is told, but not of each step: the last of a moment is enough. */
async function* told(events: AsyncGenerator<ReindexEvent>): Events {
  let at = Number.NEGATIVE_INFINITY
  for await (const event of events) {
    const now = performance.now()
    if (event.type === 'progress' && now - at < PROGRESS_MS) continue
    at = now
    yield [JSON.stringify(event)]
  }
}

export const reindexRoutes =
  (sources: ReindexSources): FastifyPluginAsyncZod =>
  async (api) => {
    api.post(
      '/reindex',
      {
        config: { stream: true, audit: 'reindex' },
        schema: {
          summary: 'Make the index whole again, from Kafka and from the files.',
          body: reindexBody,
          response: streamOf(reindexEvent),
        },
      },
      async (request, reply): Promise<FastifyReply> => {
        const { access, body, url: path, headers } = request
        // It is of all services' days at once.
        if (!access.services.includes('*'))
          throw new ConsumerError(
            'SERVICES_REFUSED',
            'only a token that may read every service may have the index mended',
          )
        const alone = headers[HOP] !== undefined
        return sendEvents(request as FastifyRequest, reply, (signal) =>
          told(everywhere(sources, { body, access, path, signal }, alone)),
        )
      },
    )
  }
