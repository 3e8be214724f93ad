/**
 * Sessions of the page: who logged in with a token has a cookie from then on.
 *
 * Invariants
 * - A session is as good as its token: once that is taken out of TOKENS_FILE, the session ends; what the token may read, it may.
 * - They are bounded in number and in time, and end with the process. The cookie says nothing but a random number, which the page's
 *   scripts cannot read.
 */
import { randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Bearer, Tokens } from './tokens.ts'

/** The one that was not used for the longest goes first. */
const MAX_SESSIONS = 10_000

/** From the login on, ms. */
const LIFETIME_MS = 7 * 24 * 3_600_000

const ID_BYTES = 32

export class Sessions {
  #tokens: Tokens
  #keys: LRUCache<string, string>

  constructor(tokens: Tokens, { max = MAX_SESSIONS, lifetimeMs = LIFETIME_MS } = {}) {
    this.#tokens = tokens
    this.#keys = new LRUCache({ max, ttl: lifetimeMs, ttlResolution: 0 })
  }

  /** @returns the session's id, for the cookie, and for how long it holds, s; undefined where the token is not let in */
  begin(token: string): { id: string; seconds: number; bearer: Bearer } | undefined {
    const bearer = this.#tokens.find(token)
    if (!bearer) return undefined
    const id = randomBytes(ID_BYTES).toString('base64url')
    this.#keys.set(id, bearer.key)
    return { id, seconds: Math.floor(this.#keys.ttl / 1000), bearer }
  }

  find(id: string): Bearer | undefined {
    const key = this.#keys.get(id)
    return key === undefined ? undefined : this.#tokens.byKey(key)
  }

  end(id: string): void {
    this.#keys.delete(id)
  }
}
