/**
 * Who asks over HTTP, and what they may read.
 *
 * Invariants
 * - An answer holds only lines, names and sums of services that `may` allows; what a caller may not read is answered as what does
 *   not exist.
 */
import { globMatcher } from './glob.ts'

export type Access = {
  /** Who it is, for the log. */
  name: string
  /** Globs of the services that may be read. */
  services: readonly string[]
  /** @param service a service's own name, not its folder's */
  may(service: string): boolean
}

export const accessTo = (name: string, services: readonly string[]): Access => ({
  name,
  services,
  may: globMatcher(services),
})

/** What both `access` and the globs allow. */
export function narrowed(access: Access, services: readonly string[]): Access {
  const may = globMatcher(services)
  return {
    name: access.name,
    // Two who have the same globs may read the same: some share what was read for the other.
    services: access.services.includes('*') ? services : [...access.services, `& ${JSON.stringify(services)}`],
    may: (service) => access.may(service) && may(service),
  }
}

/** Whoever can reach a consumer that asks for no token. */
export const ANYBODY = accessTo('anybody', ['*'])

/** Who sent no token where one is needed. */
export const NOBODY = accessTo('nobody', [])
