/**
 * What the consumer says over HTTP: how it is, what it counts, its ledger, and whether the files agree with that.
 *
 * A question that is not understood is answered with 400 and {error, message}, and changes nothing.
 */
import Fastify, { type FastifyInstance } from 'fastify'
import type { Registry } from 'prom-client'
import { z } from 'zod'
import type { ErrorCode } from './errors.ts'
import type { LedgerState } from './ledger.ts'
import { answerLedger, ledgerQuery } from './ledger-api.ts'
import { type Verification, type VerifyQuery, verifyQuery } from './verify.ts'

export type HttpSources = {
  /** Why records are not being landed, or undefined while they are. */
  trouble(): string | undefined
  metrics: Registry
  ledger: LedgerState
  verify(query: VerifyQuery): Promise<Verification>
}

/** The server, not yet listening. */
export function httpApi({ trouble, metrics, ledger, verify }: HttpSources): FastifyInstance {
  const api = Fastify({ forceCloseConnections: true })
  api.setErrorHandler((error, _request, reply) => {
    if (!(error instanceof z.ZodError)) throw error
    const issue = error.issues[0]!
    const message = `${issue.path.join('.') || 'the query'}: ${issue.message}`
    return reply.code(400).send({ error: 'QUERY_INVALID' satisfies ErrorCode, message })
  })
  api.get('/healthz', async () => ({ status: 'ok' }))
  api.get('/metrics', async (_request, reply) => {
    reply.type(metrics.contentType)
    return metrics.metrics()
  })
  api.get('/readyz', async (_request, reply) => {
    const reason = trouble()
    return reason === undefined ? { status: 'ready' } : reply.code(503).send({ status: 'not ready', reason })
  })
  api.get('/api/v1/ledger', async ({ query }) => answerLedger(ledger, ledgerQuery.parse(query), Date.now()))
  api.get('/api/v1/verify', async ({ query }) => verify(verifyQuery.parse(query)))
  return api
}
