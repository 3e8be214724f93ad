/** Routes of the page's session: who one is, and logging in and out. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import type { Logger } from 'pino'
import { type Access, NOBODY } from './access.ts'
import { type SessionAnswer, sessionAnswer, sessionBody } from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import { audit, SESSION_COOKIE } from './guard.ts'
import type { Sessions } from './sessions.ts'

const COOKIE = { path: '/', httpOnly: true, sameSite: 'strict' } as const

/** A proxy in front says that it is spoken to over TLS; nobody gains by saying so without being one. */
const isSecure = ({ protocol, headers }: FastifyRequest): boolean =>
  protocol === 'https' || headers['x-forwarded-proto'] === 'https'

/** @param sessions undefined where no token is needed */
export const sessionRoutes =
  (sessions: Sessions | undefined, log: Pick<Logger, 'info'>): FastifyPluginAsyncZod =>
  async (api) => {
    const answer = (access: Access): SessionAnswer => ({
      required: sessions !== undefined,
      ...(access !== NOBODY && { name: access.name }),
      services: [...access.services],
    })
    const end = (request: FastifyRequest, reply: FastifyReply): void => {
      const id = request.cookies[SESSION_COOKIE]
      if (id === undefined) return
      sessions?.end(id)
      reply.clearCookie(SESSION_COOKIE, { ...COOKIE, secure: isSecure(request) })
    }
    const open = { open: true }
    const response = { 200: sessionAnswer }

    api.get('/session', { config: open, schema: { summary: 'Who one is.', response } }, async ({ access }) =>
      answer(access),
    )

    const schema = { summary: 'Log in: a token becomes a cookie.', body: sessionBody, response }
    api.post('/session', { config: open, schema }, async (request, reply) => {
      if (!sessions) return answer(request.access)
      const session = sessions.begin(request.body.token)
      if (!session) {
        audit(log, request, { audit: 'refused' })
        throw new ConsumerError('TOKEN_REFUSED', 'TOKENS_FILE does not list this token')
      }
      end(request, reply)
      request.access = session.bearer.access
      audit(log, request, { audit: 'login' })
      reply.setCookie(SESSION_COOKIE, session.id, { ...COOKIE, secure: isSecure(request), maxAge: session.seconds })
      return answer(request.access)
    })

    api.delete('/session', { config: open, schema: { summary: 'Log out.', response } }, async (request, reply) => {
      end(request, reply)
      return answer(sessions ? NOBODY : request.access)
    })
  }
