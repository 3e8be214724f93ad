/**
 * What is asked of one consumer and is another's to answer: about a file, a line or a dead letter, by the name in front; and what has
 * to be done at every one of them.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import {
  apiError,
  type ContextAnswer,
  type ContextQuery,
  contextAnswer,
  type DeadLetterAnswer,
  deadLetterAnswer,
  type Gap,
  type ReplayAnswer,
  type ReplayBody,
  type RootClaims,
  replayAnswer,
  rootClaims,
} from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import { mergeReplays, mergeRoots, qualified, qualifyContext, type Told, unqualified } from './merge-answers.ts'
import { HOP, type Peer, PeerRefusal, type Peers } from './peers.ts'

/** What of a download's headers matters to either side. */
const PASSED_ON = {
  request: ['range', 'if-range', 'if-none-match', 'if-modified-since'],
  answer: [
    ...['content-type', 'content-length', 'content-range', 'content-disposition', 'content-encoding'],
    ...['accept-ranges', 'etag', 'last-modified', 'cache-control'],
  ],
} as const

/** Who asks, for a question that this consumer puts to itself. */
const CALLER = ['authorization', 'cookie', 'host'] as const

/** A question about something that has its consumer's name in front. */
type Place<A> = {
  /** What is named. */
  said: string
  /** It is this consumer's own, and called so here. */
  become(rest: string): void
  /** What the consumer that has it is asked. */
  path(rest: string): string
  /** The answer with names in front again; an answer that is not in JSON is passed on as it is. */
  answer?: { schema: z.ZodType<A>; qualify(consumer: string, answer: A): A }
}

type Hooks = Record<string, (request: FastifyRequest, reply: FastifyReply, payload: unknown) => Promise<unknown>>

/** @returns the hooks of each route, by its path below the prefix */
export function passOn(peers: Peers, prefix: string): Record<string, Hooks> {
  const { name: own } = peers.self
  const leaving = (reply: FastifyReply): AbortSignal => {
    const gone = new AbortController()
    reply.raw.once('close', () => gone.abort())
    return gone.signal
  }

  const toItsOwner = <A>(placeOf: (request: FastifyRequest) => Place<A>): Hooks => ({
    preHandler: async (request, reply) => {
      const { headers, method, access } = request
      if (headers[HOP] !== undefined) return undefined
      const { said, become, path, answer } = placeOf(request)
      const { consumer, rest } = unqualified(said)
      if (consumer === undefined) return undefined
      if (consumer === own) {
        become(rest)
        return undefined
      }
      const signal = leaving(reply)
      const peer = (await peers.introduced(access, signal)).find(({ name }) => name === consumer)
      if (!peer) throw new ConsumerError('NOT_FOUND', `${said}: no consumer that is there is called ${consumer}`)
      const question = { path: path(rest), access, signal }
      if (answer) return reply.send(answer.qualify(consumer, await peer.json(answer.schema, question)))
      const asked = PASSED_ON.request.filter((name) => headers[name] !== undefined).map((name) => [name, headers[name]])
      const message = await peer.ask({ ...question, method, headers: Object.fromEntries(asked) })
      reply.code(message.statusCode!)
      for (const name of PASSED_ON.answer) {
        if (message.headers[name] !== undefined) reply.header(name, message.headers[name])
      }
      return reply.send(message)
    },
    preSerialization: async (request, reply, payload) => {
      if (request.headers[HOP] !== undefined || reply.statusCode !== 200) return payload
      const { said, answer } = placeOf(request)
      // What was passed on has its names already; what is this one's has lost its own on the way in.
      return answer && unqualified(said).consumer === undefined ? answer.qualify(own, payload as A) : payload
    },
  })

  /**
   * Has all consumers do something at once; it is done where one of them could.
   * @param bodyFor what one of them is told; undefined where it has nothing to do
   */
  const everywhere = <A>(
    schema: z.ZodType<A>,
    bodyFor: (request: FastifyRequest, consumer: string) => object | undefined,
    merge: (told: Told<A>[], missing: Gap[], request: FastifyRequest) => A,
  ): Hooks => ({
    preHandler: async (request, reply) => {
      const { headers, method, access, url: path, server } = request
      if (headers[HOP] !== undefined) return undefined
      const signal = leaving(reply)
      const askSelf = async (payload: object): Promise<A> => {
        const caller = CALLER.filter((name) => headers[name] !== undefined).map((name) => [name, headers[name]])
        const asked = { ...Object.fromEntries(caller), [HOP]: own }
        const { statusCode, body } = await server.inject({
          method: method as 'POST',
          url: path,
          headers: asked,
          payload,
        })
        if (statusCode !== 200) throw new PeerRefusal(statusCode, apiError.parse(JSON.parse(body)))
        return schema.parse(JSON.parse(body))
      }
      const askPeer = (peer: Peer, body: object): Promise<A> =>
        peer.json(schema, { path, method, access, signal, body: JSON.stringify(body) })
      const others = await peers.introduced(access, signal)
      const asked = [
        { name: own, ask: askSelf },
        ...others.map((peer) => ({ peer, name: peer.label, ask: (body: object) => askPeer(peer, body) })),
      ]
      const told: Told<A>[] = []
      const missing: Gap[] = []
      let refusal: unknown
      await Promise.all(
        asked.map(async ({ name, ask }) => {
          const body = bodyFor(request, name)
          if (body === undefined) return
          try {
            told.push({ name, answer: await ask(body) })
          } catch (error) {
            if (name === own) refusal = error
            // One that has nothing of what is meant is no gap.
            if (!(error instanceof PeerRefusal && error.status === 404))
              missing.push({ consumer: name, message: (error as Error).message })
          }
        }),
      )
      if (told.length === 0 && refusal) throw refusal
      return reply.send(merge(told, missing, request))
    },
  })

  return {
    '/context': toItsOwner<ContextAnswer>((request) => {
      const query = request.query as ContextQuery
      return {
        said: query.at,
        become: (at) => {
          query.at = at
        },
        path: (at) =>
          `${prefix}/context?${new URLSearchParams({ at, before: String(query.before), after: String(query.after) })}`,
        answer: { schema: contextAnswer, qualify: qualifyContext },
      }
    }),
    '/files/*': toItsOwner((request) => {
      const params = request.params as { '*': string }
      return {
        said: params['*'],
        become: (file) => {
          params['*'] = file
        },
        // Names of files are percent-encoded themselves: they are once more on their way.
        path: (file) => `${prefix}/files/${file.split('/').map(encodeURIComponent).join('/')}`,
      }
    }),
    '/dead-letters/:name': toItsOwner<DeadLetterAnswer>((request) => {
      const params = request.params as { name: string }
      return {
        said: params.name,
        become: (name) => {
          params.name = name
        },
        path: (name) => `${prefix}/dead-letters/${encodeURIComponent(name)}`,
        answer: {
          schema: deadLetterAnswer,
          qualify: (consumer, letter) => ({ ...letter, name: qualified(consumer, letter.name) }),
        },
      }
    }),
    '/dead-letters/replay': everywhere<ReplayAnswer>(
      replayAnswer,
      ({ body }, consumer) => {
        const { names } = body as ReplayBody
        if (!names) return {}
        const its = names.map(unqualified).filter((name) => (name.consumer ?? own) === consumer)
        return its.length === 0 ? undefined : { names: its.map(({ rest }) => rest) }
      },
      (told, missing, { body }) => {
        const { names = [] } = body as ReplayBody
        const known = new Set([own, ...peers.others.map(({ label }) => label)])
        const strangers = names.filter((name) => !known.has(unqualified(name).consumer ?? own))
        return mergeReplays(told, missing, strangers)
      },
    ),
    '/roots/:root/disown': everywhere<RootClaims>(
      rootClaims,
      () => ({}),
      (told) => mergeRoots(told.map(({ answer }) => answer))[0]!,
    ),
  }
}
