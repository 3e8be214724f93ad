/**
 * The consumer's HTTP server: how it is, what it counts, and the API, whose routes other files bring.
 *
 * Invariants
 * - A route's schema says all that is taken and answered; the OpenAPI document follows from the schemas alone.
 * - A question that is not understood is answered with 400 and {error, message}, and changes nothing.
 */
import swagger from '@fastify/swagger'
import Fastify, { type FastifyInstance, type FastifySchemaValidationError } from 'fastify'
import {
  type FastifyPluginAsyncZod,
  hasZodFastifySchemaValidationErrors,
  jsonSchemaTransform,
  serializerCompiler,
  validatorCompiler,
} from 'fastify-type-provider-zod'
import type { Registry } from 'prom-client'
import { unknownKey } from '../wire/settings.ts'
import { ANYBODY, guard } from './access.ts'
import { ConsumerError, type ErrorCode, STATUS } from './errors.ts'

export type HttpSources = {
  /** Why records are not being landed, or undefined while they are. */
  trouble(): string | undefined
  metrics: Registry
  /** What brings the API's routes: they stand below /api/v1. */
  routes: readonly FastifyPluginAsyncZod[]
}

/** The server, not yet listening. */
export async function httpApi({ trouble, metrics, routes }: HttpSources): Promise<FastifyInstance> {
  const api = Fastify({ forceCloseConnections: true })
  api.setValidatorCompiler(validatorCompiler)
  api.setSerializerCompiler(serializerCompiler)
  api.setErrorHandler((error, request, reply) => {
    if (hasZodFastifySchemaValidationErrors(error)) {
      const known = request.routeOptions.schema?.querystring
      const message = error.validation.map((issue) => describe(issue, known)).join('; ')
      return reply.code(400).send({ error: 'QUERY_INVALID' satisfies ErrorCode, message })
    }
    if (error instanceof ConsumerError && STATUS[error.code] !== undefined) {
      return reply.code(STATUS[error.code]!).send({ error: error.code, message: error.message })
    }
    throw error
  })
  await api.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'tallyman', version: '1', description: 'Reading the log files of a tallyman consumer.' },
    },
    transform: jsonSchemaTransform,
  })
  api.get('/healthz', { schema: { hide: true } }, async () => ({ status: 'ok' }))
  api.get('/metrics', { schema: { hide: true } }, async (_request, reply) => {
    reply.type(metrics.contentType)
    return metrics.metrics()
  })
  api.get('/readyz', { schema: { hide: true } }, async (_request, reply) => {
    const reason = trouble()
    return reason === undefined ? { status: 'ready' } : reply.code(503).send({ status: 'not ready', reason })
  })
  await api.register(
    async (v1) => {
      guard(v1, () => ANYBODY)
      v1.get('/openapi.json', { schema: { hide: true } }, async () => api.swagger())
      for (const route of routes) await v1.register(route)
    },
    { prefix: '/api/v1' },
  )
  return api
}

/** What was wrong with a question, with the nearest known key where one is not known. */
function describe(issue: FastifySchemaValidationError, schema: unknown): string {
  const { keys } = issue.params as { keys?: string[] }
  if (issue.keyword === 'unrecognized_keys' && keys) {
    const known = Object.keys((schema as { shape?: object } | undefined)?.shape ?? {})
    return keys.map((key) => unknownKey(key, known)).join('; ')
  }
  return `${issue.instancePath.slice(1) || 'the question'}: ${issue.message}`
}
