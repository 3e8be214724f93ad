/**
 * The consumer's HTTP API, as the page asks it.
 *
 * Invariants
 * - Every question goes to where the page came from, with its cookie.
 * - A refusal is an ApiFailure with the server's own words. One for want of a token also tells the session, which shows the login.
 */
import type { ApiError, SessionAnswer } from '../consumer/api-schema.ts'
import { BATCHES } from '../consumer/event-decoder.ts'
import { readEvents } from './events.ts'

export class ApiFailure extends Error {
  /** HTTP status; 0: nobody answered. */
  readonly status: number
  readonly code: string

  constructor(status: number, { error, message }: ApiError) {
    super(message)
    this.status = status
    this.code = error
  }
}

export type Api = {
  get<Answer>(path: string, query?: URLSearchParams, signal?: AbortSignal): Promise<Answer>
  /** Reads a stream to its end. @param take gets what came, several times */
  stream<Event>(
    path: string,
    query: URLSearchParams,
    signal: AbortSignal,
    take: (events: Event[]) => void,
  ): Promise<void>
  login(token: string): Promise<SessionAnswer>
  logout(): Promise<void>
}

/** @param refused is called where a token is asked for */
export function apiAt(base: string, refused: () => void, ask: typeof fetch = (...given) => fetch(...given)): Api {
  async function request(path: string, init: RequestInit): Promise<Response> {
    let response: Response
    try {
      response = await ask(`${base}api/v1${path}`, { credentials: 'same-origin', ...init })
    } catch (error) {
      if (init.signal?.aborted) throw error
      throw new ApiFailure(0, {
        error: 'NO_ANSWER',
        message: 'The consumer does not answer. It is asked again by itself.',
      })
    }
    if (response.ok) return response
    const said = (await response.json().catch(() => undefined)) as Partial<ApiError> | undefined
    const failure = new ApiFailure(response.status, {
      error: said?.error ?? `HTTP_${response.status}`,
      message: said?.message ?? `The consumer answered with ${response.status} ${response.statusText}.`,
    })
    if (response.status === 401 && path !== '/session') refused()
    throw failure
  }
  const where = (path: string, query?: URLSearchParams): string => (query?.size ? `${path}?${query}` : path)
  return {
    async get<Answer>(path: string, query?: URLSearchParams, signal?: AbortSignal) {
      const response = await request(where(path, query), { ...(signal && { signal }), cache: 'no-store' })
      return (await response.json()) as Answer
    },
    async stream<Event>(path: string, query: URLSearchParams, signal: AbortSignal, take: (events: Event[]) => void) {
      const { body } = await request(where(path, query), {
        signal,
        cache: 'no-store',
        headers: { accept: `${BATCHES}, application/x-ndjson` },
      })
      if (body) await readEvents<Event>(body, take)
    },
    async login(token) {
      const response = await request('/session', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ token }),
      })
      return (await response.json()) as SessionAnswer
    },
    async logout() {
      await request('/session', { method: 'DELETE' })
    },
  }
}
