/**
 * A live tail: what lands from now on, for as long as the view is looked at.
 *
 * Invariants
 * - A tail that breaks off goes on by itself behind its last cursor, and neither leaves a line out nor brings one twice: lines
 *   since the cursor before the last are remembered, since the server may repeat those.
 * - A connection over which not even a heartbeat comes is given up.
 */
import { signal } from '@preact/signals'
import type { Gap, TailEvent } from '../consumer/api-schema.ts'
import { type Api, ApiFailure } from './api.ts'
import type { Feed } from './feed.ts'
import { tailQuery } from './queries.ts'
import type { View } from './view.ts'

/** How long a tail may be silent, and is waited before it is asked for again, ms. */
const SILENT_MS = 45_000
const RETRY_MS = [500, 1_000, 2_000, 5_000]
/** HTTP status: asked too often; that passes. */
const TOO_MANY = 429
/** Lines that are remembered between two cursors at most. */
const REMEMBERED = 100_000

type TailState = 'connecting' | 'live' | 'broken' | 'refused'

export class Tail {
  readonly state = signal<TailState>('connecting')
  readonly failure = signal<string | undefined>(undefined)
  /** Lines that the server left out because this page was too slow. */
  readonly missed = signal(0)
  /** Consumers that cannot be asked. */
  readonly gaps = signal<Gap[]>([])
  #api: Api
  #view: View
  #feed: Feed
  #ended = new AbortController()
  #cursor: string | undefined
  #since = new Set<string>()
  #before = new Set<string>()

  constructor(api: Api, view: View, feed: Feed) {
    this.#api = api
    this.#view = view
    this.#feed = feed
  }

  stop(): void {
    this.#ended.abort()
  }

  async run(): Promise<void> {
    const { signal: ended } = this.#ended
    for (let tries = 0; !ended.aborted; tries++) {
      const silent = new AbortController()
      const broken = (): void => silent.abort()
      let watch = setTimeout(broken, SILENT_MS)
      try {
        await this.#api.stream<TailEvent>(
          '/tail',
          tailQuery(this.#view, this.#cursor),
          AbortSignal.any([ended, silent.signal]),
          (events) => {
            if (ended.aborted) return
            tries = 0
            clearTimeout(watch)
            watch = setTimeout(broken, SILENT_MS)
            this.state.value = 'live'
            this.failure.value = undefined
            this.#take(events)
          },
        )
      } catch (error) {
        if (ended.aborted) return
        this.failure.value = (error as Error).message
        if (error instanceof ApiFailure && error.status >= 400 && error.status < 500 && error.status !== TOO_MANY) {
          // Another consumer's, or one of before its root was set up anew.
          if (error.status === 400 && this.#cursor !== undefined) this.#cursor = undefined
          else {
            this.state.value = 'refused'
            return
          }
        }
      } finally {
        clearTimeout(watch)
      }
      if (ended.aborted) return
      this.state.value = 'broken'
      await pause(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]!, ended)
    }
  }

  #take(events: TailEvent[]): void {
    const lines = []
    for (const event of events) {
      switch (event.type) {
        case 'line':
          if (this.#since.has(event.at) || this.#before.has(event.at)) break
          if (this.#since.size < REMEMBERED) this.#since.add(event.at)
          lines.push(event)
          break
        case 'cursor':
          this.#cursor = event.cursor
          this.#before = this.#since
          this.#since = new Set()
          break
        case 'missed':
          this.missed.value += event.lines
          break
        case 'gap': {
          const known = this.gaps.value.filter(
            ({ consumer, file }) => consumer !== event.consumer || file !== event.file,
          )
          this.gaps.value = [...known, event].slice(-20)
          break
        }
      }
    }
    if (lines.length > 0) this.#feed.append(lines)
  }
}

/** Waits, or until it is ended. */
const pause = (ms: number, ended: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      ended.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    ended.addEventListener('abort', done)
  })
