/**
 * Who asks over HTTP, and what they may read.
 *
 * Invariants
 * - Every request below /api/v1 has an `access`, before its handler runs.
 * - An answer holds only lines, names and sums of services that `may` allows; what a caller may not read is answered as what does
 *   not exist.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { globMatcher } from './glob.ts'

export type Access = {
  /** Who it is, for the log. */
  name: string
  /** Globs of the services that may be read. */
  services: readonly string[]
  /** @param service a service's own name, not its folder's */
  may(service: string): boolean
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set below /api/v1. */
    access: Access
  }
}

export const accessTo = (name: string, services: readonly string[]): Access => ({
  name,
  services,
  may: globMatcher(services),
})

/** Whoever can reach a consumer that asks for no token. */
export const ANYBODY = accessTo('anybody', ['*'])

/** Gives each request of `api` its access. @param identify throws for one that has none */
export function guard(api: FastifyInstance, identify: (request: FastifyRequest) => Access): void {
  // Never read before the hook has set it.
  api.decorateRequest('access', null as unknown as Access)
  api.addHook('onRequest', async (request) => {
    request.access = identify(request)
  })
}
