/** The route that mends the index. */
import type { FastifyReply } from 'fastify'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { reindexBody, reindexEvent } from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import { type Events, sendEvents, streamOf } from './event-stream.ts'
import type { Reindex } from './reindex.ts'

const PROGRESS_MS = 250

/** What is told, but not of each step: the last of a moment is enough. */
async function* told(events: ReturnType<Reindex['run']>): Events {
  let at = Number.NEGATIVE_INFINITY
  for await (const event of events) {
    const now = performance.now()
    if (event.type === 'progress' && now - at < PROGRESS_MS) continue
    at = now
    yield [JSON.stringify(event)]
  }
}

export const reindexRoutes =
  (reindex: Pick<Reindex, 'run'>): FastifyPluginAsyncZod =>
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
        // It is of all services' days at once.
        if (!request.access.services.includes('*'))
          throw new ConsumerError(
            'SERVICES_REFUSED',
            'only a token that may read every service may have the index mended',
          )
        return sendEvents(request, reply, (signal) => told(reindex.run(request.body, signal)))
      },
    )
  }
