/**
 * What every request passes before its handler: whose it is, whether a page of somebody else sent it, and whether its caller asks
 * too much; and the line in the log that says who read what.
 *
 * Invariants
 * - A request has an `access` before its handler runs, or is refused; only routes that are `open` take one without a token.
 * - A page of another site gets nothing done in the name of a reader whose browser it runs in: not by the cookie, and not by standing
 *   inside the network of a consumer that asks for no token. Browsers say who sends a request; where tokens are off, the name that
 *   was asked for has to be a loopback one as well, or a name that somebody points at 127.0.0.1 would make a page of theirs one of ours.
 * - What is counted is given back when the connection closes, however it does.
 * - Nobody holds by not reading what others wait for: of a `scarce` answer some has to be taken every `idleMs`.
 * - No token stands in the log.
 */
import cookie from '@fastify/cookie'
import rateLimit, { type CreateRateLimitOptions } from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Logger } from 'pino'
import { z } from 'zod'
import { type Access, ANYBODY, NOBODY, narrowed } from './access.ts'
import { ConsumerError } from './errors.ts'
import { isLoopback } from './loopback.ts'
import { HOP, HOP_SERVICES } from './peers.ts'
import type { Sessions } from './sessions.ts'
import type { Bearer, Tokens } from './tokens.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Answers without a token, and hides from its answer what only a token shows. */
    open?: boolean
    /** Goes on for long: a caller may have so many at once. */
    stream?: boolean
    /** Takes up while it goes on what others wait for: a caller who takes nothing of the answer for long is cut off. */
    scarce?: boolean
    /** What a reader does here, for the log. */
    audit?: string
  }
  interface FastifyRequest {
    access: Access
    /** How many lines were sent, for the log. */
    linesSent?: number
    /** The caller took nothing for so long that the answer was ended. */
    stalled?: boolean
  }
}

export type GuardSources = {
  log: Pick<Logger, 'info'>
  /** Undefined: whoever reaches the consumer may read everything. */
  tokens: Tokens | undefined
  sessions: Sessions | undefined
  /** Requests a minute of one caller; 0: any number. */
  requests: number
  /** Streams at once of one caller. */
  streams: number
  /** For how long a caller may take nothing of an answer that others wait for, ms; 0: for ever. */
  idleMs: number
}

export const SESSION_COOKIE = 'tallyman-session'

const MINUTE_MS = 60_000

/** Everything that is registered after it is guarded. */
export async function guard(
  api: FastifyInstance,
  { log, tokens, sessions, requests, streams, idleMs }: GuardSources,
): Promise<void> {
  await api.register(cookie)
  await api.register(rateLimit, { global: false })
  const limits: CreateRateLimitOptions = {
    max: requests,
    timeWindow: MINUTE_MS,
    keyGenerator: ({ access, ip }) => (access === NOBODY ? ip : `token ${access.name}`),
  }
  const limit = requests === 0 ? undefined : api.createRateLimit(limits)
  const open = new Map<FastifyRequest, { reply: FastifyReply; caller: string; bearer: Bearer | undefined }>()

  const identify = (request: FastifyRequest): Bearer | undefined => {
    const header = /^Bearer +(\S{1,1024})$/i.exec(request.headers.authorization ?? '')
    if (header) return tokens?.find(header[1]!)
    const cookie = request.cookies[SESSION_COOKIE]
    return cookie === undefined ? undefined : sessions?.find(cookie)
  }
  // A token that was taken away, or reads less than before, reads no further.
  tokens?.onChange(() => {
    const scope = (bearer: Bearer | undefined) => JSON.stringify([bearer?.key, bearer?.access.services])
    for (const [request, { reply, bearer }] of open) {
      if (scope(identify(request)) !== scope(bearer)) reply.raw.destroy()
    }
  })

  // Never read before the hook has set it.
  api.decorateRequest('access', null as unknown as Access)
  api.decorateRequest('linesSent', undefined)
  api.decorateRequest('stalled', undefined)
  api.addHook('onRequest', async (request, reply) => {
    const { config } = request.routeOptions
    if (!request.url.startsWith('/')) {
      throw new ConsumerError('REQUEST_INVALID', 'ask by path and not by a whole URL; this is no proxy')
    }
    refuseForeignPages(request, config.open === true)
    if (!tokens) refuseForeignNames(request)
    const bearer = tokens && identify(request)
    request.access = tokens ? (bearer?.access ?? NOBODY) : ANYBODY
    const hop = request.headers[HOP]
    if (hop !== undefined && request.access !== NOBODY) request.access = narrowed(request.access, hopServices(request))
    // A peer asks on behalf of its callers, each of whom is held to the limits there.
    const isPeer = hop !== undefined && (tokens === undefined || bearer?.peer === true)
    const limited = isPeer ? undefined : await limit?.(request)
    if (limited && !limited.isAllowed && limited.isExceeded) {
      reply.header('retry-after', limited.ttlInSeconds)
      const message = `more than ${limited.max} requests in a minute; ask again in ${limited.ttlInSeconds} s (the consumer's setting RATE_LIMIT says how many may be)`
      throw new ConsumerError('ASKED_TOO_OFTEN', message)
    }
    if (request.access === NOBODY && !config.open) {
      const given = request.headers.authorization !== undefined || request.cookies[SESSION_COOKIE] !== undefined
      if (given) audit(log, request, { audit: 'refused' })
      reply.header('www-authenticate', 'Bearer realm="tallyman"')
      const what = given ? 'the token or session is not, or no longer, let in' : 'a token is needed'
      throw new ConsumerError('TOKEN_REFUSED', `${what}; send one that TOKENS_FILE lists as Authorization: Bearer …`)
    }
    if (config.stream) {
      const caller = isPeer ? `peer ${hop}` : tokens ? `token ${request.access.name}` : request.ip
      const others = open.values().filter((one) => one.caller === caller)
      if (!isPeer && others.toArray().length >= streams) {
        const message = `${streams} streams are open already; close one (the consumer's setting STREAMS_MAX says how many may be)`
        throw new ConsumerError('ASKED_TOO_OFTEN', message)
      }
      open.set(request, { reply, caller, bearer })
      reply.raw.once('close', () => open.delete(request))
    }
    // A peer reads as its own callers do, and holds them to the same; between two of them its answer may rest for longer.
    if (config.scarce && !isPeer && idleMs > 0) {
      reply.raw.setTimeout(idleMs, () => {
        request.stalled = true
        reply.raw.destroy()
      })
    }
  })
  api.addHook('preHandler', async (request, reply) => {
    const what = request.routeOptions.config.audit
    if (what === undefined) return
    const began = performance.now()
    const { socket } = request.raw
    const before = socket.bytesWritten ?? 0
    reply.raw.once('close', () => {
      const { statusCode: status, writableFinished: whole } = reply.raw
      const { linesSent: lines, stalled, query, params } = request
      const sent = { lines, bytes: (socket.bytesWritten ?? 0) - before, ms: Math.round(performance.now() - began) }
      audit(log, request, { audit: what, query, params, status, whole, ...(stalled && { stalled }), ...sent })
    })
  })
}

/**
 * @param open for an address that somebody types, or follows a link to
 * @throws ConsumerError for what a page of another site sends
 */
function refuseForeignPages(request: FastifyRequest, open: boolean): void {
  const { host, origin, 'sec-fetch-site': site } = request.headers
  const reads = open && (request.method === 'GET' || request.method === 'HEAD')
  const own = site === undefined ? origin === undefined || URL.parse(origin)?.host === host : site === 'same-origin'
  if (!reads && !own && site !== 'none') {
    throw new ConsumerError('FOREIGN_PAGE', 'a page of another site may not ask here')
  }
}

/** @throws ConsumerError for what is no list of globs */
function hopServices({ headers: { [HOP_SERVICES]: said } }: FastifyRequest): string[] {
  if (said === undefined) return ['*']
  try {
    return z.array(z.string()).parse(JSON.parse(decodeURIComponent(String(said))))
  } catch {
    throw new ConsumerError('QUERY_INVALID', `${HOP_SERVICES}: must be a JSON array of globs, percent-encoded`)
  }
}

/** @throws ConsumerError where the consumer is called by a name that is not this machine's own */
function refuseForeignNames({ headers: { host = 'localhost' } }: FastifyRequest): void {
  const name = URL.parse(`http://${host}`)?.hostname.replace(/^\[|\]$/g, '') ?? ''
  if (isLoopback(name)) return
  const message =
    'without TOKENS_FILE the consumer answers as localhost or 127.0.0.1 alone; a proxy in front of it has to send such a Host'
  throw new ConsumerError('FOREIGN_PAGE', message)
}

/** Who did what, as a line of the log. */
export function audit(log: Pick<Logger, 'info'>, request: FastifyRequest, what: Record<string, unknown>): void {
  const { access, ip: address, headers, routeOptions } = request
  const by = headers[HOP] === undefined ? {} : { peer: headers[HOP] }
  log.info({ ...what, who: access.name, ...by, address, path: routeOptions.url }, 'audit')
}
