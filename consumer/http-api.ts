/**
 * The consumer's HTTP server: how it is, what it counts, the page, and the API, whose routes other files bring.
 *
 * Invariants
 * - A route's schema says all that is taken and answered; the OpenAPI document follows from the schemas alone.
 * - Whatever is refused is answered as {error, message}, and changes nothing. What went wrong within is in the log alone.
 * - Nobody holds a connection by not asking: a request has to be whole within REQUEST_MS, its head within HEAD_MS.
 */
import { STATUS_CODES } from 'node:http'
import type { Server } from 'node:https'
import type { Socket } from 'node:net'
import helmet from '@fastify/helmet'
import swagger from '@fastify/swagger'
import Fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifySchemaValidationError,
} from 'fastify'
import {
  type FastifyPluginAsyncZod,
  hasZodFastifySchemaValidationErrors,
  serializerCompiler,
  validatorCompiler,
} from 'fastify-type-provider-zod'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { unknownKey } from '../wire/settings.ts'
import { NOBODY } from './access.ts'
import { type ApiError, apiError } from './api-schema.ts'
import { type CertificateFiles, readCertificate, renewCertificate } from './certificate.ts'
import { ConsumerError, type ErrorCode, STATUS } from './errors.ts'
import { fanOut, type RunsOf } from './fan-out.ts'
import { guard } from './guard.ts'
import { openapi } from './openapi.ts'
import { page } from './page.ts'
import { CONSUMER, HOP, PeerError, PeerRefusal, type Peers } from './peers.ts'
import { sessionRoutes } from './session-routes.ts'
import { Sessions } from './sessions.ts'
import type { Tokens } from './tokens.ts'

const PREFIX = '/api/v1'

const HEAD_MS = 10_000
const REQUEST_MS = 30_000
/** How often connections are held against both. */
const CHECKED_EVERY_MS = 2_000
/** A request's line and headers: a tail's cursor stands in there. */
const MAX_HEAD_BYTES = 96 * 1024
const MAX_BODY_BYTES = 64 * 1024
const MAX_CONNECTIONS = 2_000

export type HttpSources = {
  log: Logger
  /** Why records are not being landed, or undefined while they are. */
  trouble(): string | undefined
  metrics: Registry
  /** What brings the API's routes: they stand below /api/v1. */
  routes: readonly FastifyPluginAsyncZod[]
  /** Undefined: whoever reaches the consumer may read everything. */
  tokens?: Tokens | undefined
  /** Who else there is, where there are several consumers, and what is known here of runs that a question is about. */
  several?: { peers: Peers; runsOf: RunsOf } | undefined
  /** Undefined: HTTP without TLS. */
  certificate?: CertificateFiles | undefined
  /** Requests a minute of one caller; 0: any number. */
  requests?: number
  /** Streams at once of one caller. */
  streams?: number
  /** For how long a caller may take nothing of an answer that others wait for, ms; 0: for ever. */
  idleMs?: number
  /** Folder of the built page. */
  pageFolder?: string
  /** How often it is looked whether the certificate has changed, ms. */
  lookMs?: number
  /** How long a request may take to arrive, ms. */
  patience?: { head: number; request: number; checkedEvery: number }
}

/** The server, not yet listening. */
export async function httpApi(sources: HttpSources): Promise<FastifyInstance> {
  const {
    log,
    trouble,
    metrics,
    routes,
    tokens,
    several,
    certificate,
    requests = 0,
    streams = 64,
    idleMs = 0,
    pageFolder,
  } = sources
  const { head, request, checkedEvery } = sources.patience ?? {
    ...{ head: HEAD_MS, request: REQUEST_MS, checkedEvery: CHECKED_EVERY_MS },
  }
  const limits = { maxHeaderSize: MAX_HEAD_BYTES, headersTimeout: head, connectionsCheckingInterval: checkedEvery }
  const api: FastifyInstance = Fastify({
    forceCloseConnections: true,
    bodyLimit: MAX_BODY_BYTES,
    requestTimeout: request,
    // A file's path and a service's name, percent-encoded once more.
    routerOptions: { maxParamLength: 4096 },
    frameworkErrors: (error, request, reply) => refuse(log, error, request, reply),
    clientErrorHandler: refuseUnread,
    // In the types HTTPS is another kind of server, with which no route of ours has to do.
    ...({ http: limits, ...(certificate && { https: { ...limits, ...readCertificate(certificate) } }) } as object),
  })
  api.server.maxConnections = MAX_CONNECTIONS
  if (certificate) {
    const stop = renewCertificate(api.server as Server, certificate, log, sources.lookMs)
    api.addHook('onClose', stop)
  }
  api.setValidatorCompiler(validatorCompiler)
  api.setSerializerCompiler(serializerCompiler)
  api.setErrorHandler((error: FastifyError, request, reply) => refuse(log, error, request, reply))
  api.setNotFoundHandler(() => {
    throw new ConsumerError('NOT_FOUND', 'there is nothing here; /api/v1/openapi.json says what there is')
  })
  await api.register(helmet, HEADERS)
  if (several) {
    const { name, uuid } = several.peers.self
    api.addHook('onRequest', async ({ headers }, reply) => {
      if (headers[HOP] !== undefined) reply.header(CONSUMER, `${name} ${uuid}`)
    })
  }
  const sessions = tokens && new Sessions(tokens)
  await guard(api, { log, tokens, sessions, requests, streams, idleMs })
  await api.register(swagger, openapi(tokens !== undefined))
  const probe = { config: { open: true }, schema: { hide: true } }
  api.get('/healthz', probe, async () => ({ status: 'ok' }))
  api.get('/metrics', { schema: { hide: true } }, async (_request, reply) => {
    reply.type(metrics.contentType)
    return metrics.metrics()
  })
  api.get('/readyz', probe, async ({ access }, reply) => {
    const reason = trouble()
    if (reason === undefined) return { status: 'ready' }
    return reply.code(503).send({ status: 'not ready', ...(access !== NOBODY && { reason }) })
  })
  await api.register(
    async (v1) => {
      v1.addHook('onRoute', (route) => {
        if (route.schema && !route.schema.hide) {
          route.schema.response = { '4xx': apiError, '5xx': apiError, ...(route.schema.response as object) }
        }
      })
      if (several) fanOut(v1, PREFIX, several.peers, several.runsOf)
      v1.get('/openapi.json', { schema: { hide: true } }, async () => api.swagger())
      for (const route of [sessionRoutes(sessions, log), ...routes]) await v1.register(route)
    },
    { prefix: PREFIX },
  )
  await api.register(page(pageFolder))
  return api
}

/** The page loads what the consumer itself serves, and stands in no other page. */
const HEADERS = {
  contentSecurityPolicy: {
    useDefaults: false,
    directives: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'"],
      styleSrc: ["'self'"],
      imgSrc: ["'self'", 'data:'],
      fontSrc: ["'self'"],
      connectSrc: ["'self'"],
      workerSrc: ["'self'"],
      manifestSrc: ["'self'"],
      formAction: ["'self'"],
      frameAncestors: ["'none'"],
      baseUri: ["'none'"],
    },
  },
  xFrameOptions: { action: 'deny' },
  referrerPolicy: { policy: 'no-referrer' },
  // It would bind whatever else this host serves, on any port, to TLS.
  strictTransportSecurity: false,
} as const

/** Answers with what is wrong, so far as it is the caller's to know. */
function refuse(
  log: Pick<Logger, 'error'>,
  error: FastifyError | Error,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const say = (status: number, code: ErrorCode, message: string) =>
    reply.code(status).send({ error: code, message } satisfies ApiError)
  if (hasZodFastifySchemaValidationErrors(error)) {
    const known = request.routeOptions.schema?.querystring
    return say(400, 'QUERY_INVALID', error.validation.map((issue) => describe(issue, known)).join('; '))
  }
  if (error instanceof ConsumerError && STATUS[error.code] !== undefined) {
    return say(STATUS[error.code]!, error.code, error.message)
  }
  if (error instanceof PeerRefusal) return reply.code(error.status).send(error.answer)
  if (error instanceof PeerError) return say(502, 'PEER_AWAY', error.message)
  const { statusCode = 500 } = error as Partial<FastifyError>
  if (statusCode >= 400 && statusCode < 500) return say(statusCode, 'REQUEST_INVALID', error.message)
  log.error({ err: error, method: request.method, path: request.routeOptions?.url }, 'a request was not answered')
  return say(500, 'INTERNAL', 'the consumer failed at this; its log says why')
}

const UNREAD: Record<string, [status: number, message: string]> = {
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'the request did not get whole in time'],
  HPE_HEADER_OVERFLOW: [431, `the request's line and headers are more than ${MAX_HEAD_BYTES} bytes`],
}

/** Answers what could not be read as a request, and ends its connection. */
function refuseUnread(error: Error & { code?: string }, socket: Socket): void {
  if (socket.writable && error.code !== 'ECONNRESET') {
    const [status, message] = UNREAD[error.code ?? ''] ?? [400, 'this is no HTTP request']
    const body = JSON.stringify({ error: 'REQUEST_INVALID', message } satisfies ApiError)
    const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, 'content-type: application/json; charset=utf-8']
    socket.write([...head, `content-length: ${Buffer.byteLength(body)}`, 'connection: close', '', body].join('\r\n'))
  }
  socket.destroySoon()
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
