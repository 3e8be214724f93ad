/** What the consumer says of itself over HTTP. */
import Fastify, { type FastifyInstance } from 'fastify'
import type { Registry } from 'prom-client'

/**
 * The server, not yet listening.
 * @param trouble why records are not being landed, or undefined while they are
 */
export function httpApi(trouble: () => string | undefined, metrics: Registry): FastifyInstance {
  const api = Fastify({ forceCloseConnections: true })
  api.get('/healthz', async () => ({ status: 'ok' }))
  api.get('/metrics', async (_request, reply) => {
    reply.type(metrics.contentType)
    return metrics.metrics()
  })
  api.get('/readyz', async (_request, reply) => {
    const reason = trouble()
    return reason === undefined ? { status: 'ready' } : reply.code(503).send({ status: 'not ready', reason })
  })
  return api
}
