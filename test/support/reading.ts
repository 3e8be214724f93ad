/** A root without Kafka, and the HTTP API that reads it. */
import { realpathSync } from 'node:fs'
import { join } from 'node:path'
import type { z } from 'zod'
import type { line } from '../../consumer/api-schema.ts'
import { BATCHES, EventDecoder } from '../../consumer/event-decoder.ts'
import { FileReader } from '../../consumer/file-reader.ts'
import { Hub } from '../../consumer/hub.ts'
import type { LineFormat } from '../../consumer/layout.ts'
import type { History } from '../../consumer/lines.ts'
import { Manifests } from '../../consumer/manifests.ts'
import { readingRoutes } from '../../consumer/reading-routes.ts'
import { RowCache } from '../../consumer/row-cache.ts'
import { Slots } from '../../consumer/slots.ts'
import { tailCursor } from '../../consumer/tail.ts'
import { temporaryFolder } from './folder.ts'
import { Api, type TokenNames } from './http-api.ts'
import { Life, type Said, topicOf } from './landing.ts'

export type LineEvent = z.infer<typeof line>
export type Event = { type: string; [key: string]: unknown }

export type ReadingOptions = {
  format?: LineFormat
  /** Memory for the index. */
  indexCache?: number
  /** What a reader may be behind. */
  readerBytes?: number
  /** What all readers may take up. */
  tailMemory?: number
  searches?: number
  /** For how long a client may take nothing of a search, ms; 0: for ever. */
  idleMs?: number
  tokens?: TokenNames
  /** A root that is there already. */
  root?: string
}

export class Reading implements AsyncDisposable {
  readonly root: string
  readonly life: Life
  readonly history: History
  readonly hub: Hub
  readonly api: Api
  #stack: AsyncDisposableStack

  static async create(options: ReadingOptions = {}): Promise<Reading> {
    const {
      format = 'text',
      indexCache = 2 ** 24,
      readerBytes = 2 ** 20,
      tailMemory = 2 ** 27,
      searches = 2,
      idleMs = 0,
      tokens,
    } = options
    await using stack = new AsyncDisposableStack()
    const root = options.root ?? stack.use(temporaryFolder()).path
    const hub: Hub = new Hub({
      readerBytes,
      memory: tailMemory,
      lengths: () => life.writer.lengths,
      cursor: () => tailCursor(life.checkpoint.state),
    })
    const life = new Life(root, 4, format, hub)
    stack.defer(() => life.end())
    const { checkpoint, index, ledger } = life
    checkpoint.watch(() => hub.durable())
    const { files, reindexed } = checkpoint.state
    const rows = new RowCache({
      ...{ state: join(root, '.tallyman'), index, files, reindexed, runs: ledger.state.runs },
      ...{ format, maxBytes: indexCache },
    })
    const text = stack.use(new FileReader({ root, files }))
    const manifests = new Manifests(checkpoint)
    const status = () => {
      throw new Error('there is no consumer')
    }
    const history = { rows, text }
    const routes = readingRoutes({
      ...{ history, overview: { rows, manifests, ledger: ledger.state }, hub },
      ...{ root: realpathSync(root), format, files, searches: new Slots(searches), status },
    })
    const api = stack.use(await Api.create(tokens, { routes: [routes], idleMs }))
    return new Reading(root, life, history, hub, api, stack.move())
  }

  private constructor(root: string, life: Life, history: History, hub: Hub, api: Api, stack: AsyncDisposableStack) {
    this.root = root
    this.life = life
    this.history = history
    this.hub = hub
    this.api = api
    this.#stack = stack
  }

  /** Lands records, and saves the checkpoint. */
  async land(said: Said[]): Promise<void> {
    for (const stored of topicOf(said)) await this.life.land(stored)
    this.life.save()
  }

  /** What a route below /api/v1 answers. */
  async get(route: string, query: Query = {}, token?: string) {
    const url = `/api/v1/${route}?${queryOf(query)}`
    return this.api.server.inject({ url, ...(token !== undefined && { headers: this.api.as(token) }) })
  }

  /** The events of a stream that ends. */
  async events(route: string, query: Query = {}, token?: string): Promise<Event[]> {
    const { statusCode, body } = await this.get(route, query, token)
    if (statusCode !== 200) throw new Error(`${statusCode}: ${body}`)
    return body
      .split('\n')
      .filter(Boolean)
      .map((event) => JSON.parse(event))
  }

  /** Reads a stream that goes on, over a real connection. */
  async follow(route: string, query: Query = {}, headers: Record<string, string> = {}): Promise<Following> {
    return new Following(`${await this.api.listen()}/api/v1/${route}?${queryOf(query)}`, headers)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}

const RAW_PIECES = 100

/** A stream of events that goes on, as a client reads it; read from the moment it is made. */
export class Following implements AsyncDisposable {
  readonly events: Event[] = []
  /** It is sent batches, of which `events` has the lines. */
  inBatches = false
  #raw: string[] = []
  #gone = new AbortController()
  #reading: Promise<void>

  /** @param url of the route, with its question */
  constructor(url: string, headers: Record<string, string> = {}) {
    this.#reading = this.#read(url, headers).catch((error) => {
      if (!this.#gone.signal.aborted) this.events.push({ type: 'broken', error: String(error) })
    })
  }

  get lines(): LineEvent[] {
    return linesOf(this.events)
  }

  /** What was sent, the last of it. */
  get raw(): string {
    return this.#raw.join('')
  }

  /** The last cursor that was sent. */
  get cursor(): string | undefined {
    return this.events.findLast(({ type }) => type === 'cursor')?.['cursor'] as string | undefined
  }

  async #read(url: string, headers: Record<string, string>): Promise<void> {
    const { status, body, headers: said } = await fetch(url, { headers, signal: this.#gone.signal })
    if (said.get('content-type') === BATCHES) {
      this.inBatches = true
      const decoder = new EventDecoder<Event>()
      for await (const piece of body!) for (const events of decoder.decode(piece)) this.events.push(...events)
    }
    let rest = ''
    for await (const piece of body!.pipeThrough(new TextDecoderStream())) {
      this.#raw.push(piece)
      if (this.#raw.length > RAW_PIECES) this.#raw.shift()
      const lines = (rest + piece).split('\n')
      rest = lines.pop()!
      const events = lines.map((line) => line.replace(/^data: /, '')).filter((line) => line.startsWith('{'))
      this.events.push(...events.map((event) => JSON.parse(event)))
    }
    if (status !== 200) throw new Error(`${status}: ${rest}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#gone.abort()
    await this.#reading
  }
}

export type Query = Record<string, string | number | boolean | readonly string[] | undefined>

export function queryOf(query: Query): URLSearchParams {
  return new URLSearchParams(
    Object.entries(query).flatMap(([key, value]) =>
      value === undefined ? [] : [value].flat().map((each): [string, string] => [key, String(each)]),
    ),
  )
}

export const linesOf = (events: readonly Event[]): LineEvent[] =>
  events.filter(({ type }) => type === 'line') as unknown as LineEvent[]
