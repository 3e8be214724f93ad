/**
 * The other consumers, asked by this one for what their roots hold.
 *
 * Invariants
 * - A question that came from a peer is never passed on: it carries HOP, and whoever sees that answers for itself alone.
 * - A peer tells no more than the caller may read: the question carries the caller's globs, which only ever narrow what the token
 *   that we have there may read.
 * - No state of a peer can make an answer hang. A peer may be busy for long before it says a word, so that it is silent proves
 *   nothing: whether it is there is asked apart, and one that is not is given up, and not asked for a while.
 */
import { readFileSync } from 'node:fs'
import { Agent, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { request as httpsRequest, Agent as TlsAgent } from 'node:https'
import { text } from 'node:stream/consumers'
import { z } from 'zod'
import type { Access } from './access.ts'
import { apiError, type Gap } from './api-schema.ts'

/** Says that a question is for this consumer alone. */
export const HOP = 'tallyman-hop'
/** The services that a peer may tell of: globs, as a JSON array, percent-encoded. */
export const HOP_SERVICES = 'tallyman-services'
/** In an answer: who gave it, as its name, a blank and its root's UUID. */
export const CONSUMER = 'tallyman-consumer'

export type Identity = { name: string; uuid: string }

export type PeersOptions = {
  urls: readonly string[]
  /** File with the token that the peers let in; undefined where they ask for none. */
  tokenFile: string | undefined
  self: Identity
  /** After so many ms of silence it is asked whether the peer is there, and so long an answer to that may take. */
  silenceMs?: number
  probeMs?: number
  /** A peer that was not there is not asked for so many ms. */
  awayMs?: number
}

/** What is asked of a peer. */
export type Question = {
  /** With its query. */
  path: string
  access: Access
  /** Ends the question. */
  signal: AbortSignal
  method?: string
  headers?: IncomingHttpHeaders
  body?: string
}

/** A peer did not answer, in words for whoever asked. */
export class PeerError extends Error {
  override name = 'PeerError'
}

/** A peer answered that the question is wrong, or about nothing: what the caller is to be told. */
export class PeerRefusal extends Error {
  override name = 'PeerRefusal'
  readonly status: number
  readonly answer: z.infer<typeof apiError>
  constructor(status: number, answer: z.infer<typeof apiError>) {
    super(answer.message)
    this.status = status
    this.answer = answer
  }
}

export class Peers {
  readonly self: Identity
  readonly #peers: Peer[]

  constructor(options: PeersOptions) {
    this.self = options.self
    this.#peers = options.urls.map((url) => new Peer(url, options))
  }

  /** All but those that turned out to be this one: one list of PEERS is good for all. */
  get others(): readonly Peer[] {
    return this.#peers.filter(({ isSelf }) => !isSelf)
  }

  /** All but this one, once those whose name is not known yet were asked for it. */
  async introduced(access: Access, signal: AbortSignal): Promise<readonly Peer[]> {
    const unknown = this.others.filter(({ name }) => name === undefined)
    await Promise.allSettled(unknown.map((peer) => peer.introduce(access, signal)))
    return this.others
  }

  close(): void {
    for (const peer of this.#peers) peer.close()
  }
}

const SILENCE_MS = 2_000
const PROBE_MS = 3_000
const AWAY_MS = 5_000

export class Peer {
  readonly url: URL
  /** Once it has answered. */
  name: string | undefined
  isSelf = false
  #options: PeersOptions
  #agent: Agent
  #away: { until: number; message: string } | undefined

  constructor(url: string, options: PeersOptions) {
    this.url = new URL(url)
    this.#options = options
    this.#agent = this.url.protocol === 'https:' ? new TlsAgent({ keepAlive: true }) : new Agent({ keepAlive: true })
  }

  /** What it is called where something is missing. */
  get label(): string {
    return this.name ?? this.url.host
  }

  /** @param error why it did not answer */
  gap(error: Error): Gap {
    return { consumer: this.label, message: error.message }
  }

  /**
   * Its answer, once that begins.
   * @throws PeerError, PeerRefusal
   */
  async ask(question: Question): Promise<IncomingMessage> {
    if (this.#away && performance.now() < this.#away.until) throw new PeerError(this.#away.message)
    const message = await this.#send(question)
    this.#recognize(message)
    if (this.isSelf) {
      message.destroy()
      throw new PeerError('it is this one')
    }
    if (message.statusCode !== undefined && message.statusCode < 400) return message
    const { success, data } = apiError.safeParse(jsonOf(await text(message)))
    const status = message.statusCode ?? 500
    // What is wrong with our token is no business of the caller's.
    if (success && status !== 401 && status !== 403 && status < 500) throw new PeerRefusal(status, data)
    throw new PeerError(`it answered with ${status}${success ? `: ${data.message}` : ''}`)
  }

  /**
   * Its answer in JSON.
   * @throws PeerError where it does not fit the schema, too
   */
  async json<T>(schema: z.ZodType<T>, question: Question): Promise<T> {
    let body: string
    try {
      body = await text(await this.ask(question))
    } catch (error) {
      throw error instanceof PeerError || error instanceof PeerRefusal ? error : new PeerError((error as Error).message)
    }
    const { success, data } = schema.safeParse(jsonOf(body))
    if (!success) throw new PeerError('its answer is not understood: is it of another version?')
    return data
  }

  /** Has it say its name. */
  async introduce(access: Access, signal: AbortSignal): Promise<void> {
    await this.json(z.unknown(), { path: '/api/v1/session', access, signal })
  }

  close(): void {
    this.#agent.destroy()
  }

  /** Never throws at once: an exception in a listener would end the process. */
  async #send(question: Question, retry = true): Promise<IncomingMessage> {
    const { path, access, signal, method = 'GET', headers = {}, body } = question
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const request = this.#request(path, {
      method,
      signal,
      headers: {
        accept: 'application/x-ndjson, application/json',
        ...headers,
        ...this.#authorization(),
        [HOP]: this.#options.self.name,
        [HOP_SERVICES]: encodeURIComponent(JSON.stringify(access.services)),
        ...(body !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
      },
    })
    const { silenceMs = SILENCE_MS } = this.#options
    let heard = performance.now()
    let bytes = 0
    let probing = false
    const listen = async () => {
      const { bytesRead = 0 } = request.socket ?? {}
      if (bytesRead !== bytes) heard = performance.now()
      bytes = bytesRead
      if (probing || performance.now() - heard < silenceMs) return
      probing = true
      try {
        await this.#probe()
        heard = performance.now()
      } catch (error) {
        request.destroy(this.#goneAway(error as Error))
      }
      probing = false
    }
    const timer = setInterval(listen, silenceMs / 2)
    request.once('close', () => clearInterval(timer))
    request.once('error', (error) => {
      if (signal.aborted || error instanceof PeerError) reject(error)
      // A connection that was kept open may have been closed by the peer at this moment: that says nothing about it.
      else if (request.reusedSocket && retry) this.#send(question, false).then(resolve, reject)
      else reject(this.#goneAway(error))
    })
    request.once('response', (message) => {
      this.#away = undefined
      resolve(message)
    })
    request.end(body)
    return await promise
  }

  /** @throws Error where it does not say that it lives */
  async #probe(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const { probeMs = PROBE_MS } = this.#options
    const request = this.#request('/healthz', { signal: AbortSignal.timeout(probeMs) })
    request.once('error', () => reject(new Error(`it says nothing, for ${probeMs} ms not even that it lives`)))
    request.once('response', (message) => {
      message.resume()
      resolve()
    })
    request.end()
    await promise
  }

  #request(path: string, options: Parameters<typeof httpRequest>[1] & object) {
    // Never more than a path: what a caller asked for may be a whole URL, and would take the token to a host of its choice.
    const { pathname, search } = new URL(path, 'http://peer')
    const target = Object.assign(new URL(this.url), { pathname, search })
    const all = { ...options, agent: this.#agent }
    return this.url.protocol === 'https:' ? httpsRequest(target, all) : httpRequest(target, all)
  }

  #authorization(): { authorization?: string } {
    const { tokenFile } = this.#options
    if (tokenFile === undefined) return {}
    try {
      return { authorization: `Bearer ${readFileSync(tokenFile, 'utf8').trim()}` }
    } catch (error) {
      throw new PeerError(`our own PEERS_TOKEN_FILE can't be read: ${(error as Error).message}`)
    }
  }

  #goneAway({ message }: Error): PeerError {
    this.#away = { until: performance.now() + (this.#options.awayMs ?? AWAY_MS), message }
    return new PeerError(message)
  }

  /** @throws PeerError for what is no consumer, or cannot be told from another one */
  #recognize({ headers }: IncomingMessage): void {
    const { self } = this.#options
    const [name, uuid] = String(headers[CONSUMER] ?? '').split(' ')
    if (!name || !uuid) throw new PeerError(`no consumer answers at ${this.url.origin}`)
    this.isSelf = uuid === self.uuid
    if (name === self.name && !this.isSelf)
      throw new PeerError(`it is called ${name} as this one is; give each a CONSUMER_NAME of its own`)
    this.name = name
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
