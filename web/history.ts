/**
 * History: the lines of a view's range, a page at a time from the end of it, or what a search finds in there.
 *
 * Invariants
 * - Pages overlap by a millisecond, and what came before is not taken twice: lines of the same moment are all there.
 * - What an answer leaves out is told: `limited` (there are more), `partial` (what could not be read).
 */
import { signal } from '@preact/signals'
import type { Gap, SearchEvent } from '../consumer/api-schema.ts'
import { type Api, ApiFailure } from './api.ts'
import type { Feed } from './feed.ts'
import { historyQuery, PAGE_LINES } from './queries.ts'
import type { View } from './view.ts'

type Progress = Omit<Extract<SearchEvent, { type: 'progress' }>, 'type'>
type HistoryState = 'reading' | 'done' | 'cancelled' | 'failed'

/** Lines that one question may bring. */
const LIMIT = 100_000

export class History {
  readonly state = signal<HistoryState>('reading')
  readonly failure = signal<string | undefined>(undefined)
  readonly progress = signal<Progress | undefined>(undefined)
  /** There are earlier lines than those that are there. */
  readonly limited = signal(false)
  readonly partial = signal<Gap[]>([])
  #api: Api
  #view: View
  #feed: Feed
  #now: number
  #running: AbortController | undefined
  /** The page before was asked for while one was still coming in. */
  #wanted = false

  /** @param now ms since 1970: what `15m` is counted from, on every page */
  constructor(api: Api, view: View, feed: Feed, now: number) {
    this.#api = api
    this.#view = view
    this.#feed = feed
    this.#now = now
  }

  /** Reads the last page of the range. */
  async run(): Promise<void> {
    await this.#page(undefined, PAGE_LINES)
    await this.#wantedPage()
  }

  /** Reads the page before the first line that is there, once what is being read has come in. */
  async older(): Promise<void> {
    if (this.state.value === 'reading') {
      this.#wanted = true
      return
    }
    await this.#before()
    await this.#wantedPage()
  }

  async #wantedPage(): Promise<void> {
    while (this.#wanted) {
      this.#wanted = false
      if (this.limited.value && this.state.value === 'done') await this.#before()
    }
  }

  async #before(): Promise<void> {
    const first = this.#feed.at(0)
    if (!first) return
    const until = Date.parse(first.line.time) + 1
    for (let limit = PAGE_LINES; ; limit *= 10) {
      const fresh = await this.#page(until, Math.min(limit, LIMIT))
      // More lines of one millisecond than a page holds.
      if (fresh > 0 || !this.limited.value || this.state.value !== 'done' || limit >= LIMIT) return
    }
  }

  cancel(): void {
    if (this.state.value !== 'reading') return
    this.state.value = 'cancelled'
    this.#running?.abort()
  }

  stop(): void {
    this.#running?.abort()
  }

  async #page(until: number | undefined, limit: number): Promise<number> {
    const running = new AbortController()
    this.#running = running
    this.state.value = 'reading'
    this.failure.value = undefined
    this.progress.value = undefined
    let fresh = 0
    let ended = false
    const { path, query } = historyQuery(this.#view, {
      now: this.#now,
      limit,
      ...(until !== undefined && { until }),
    })
    try {
      await this.#api.stream<SearchEvent>(path, query, running.signal, (events) => {
        if (running.signal.aborted) return
        const lines = events.filter((event) => event.type === 'line')
        if (lines.length > 0) fresh += this.#feed.merge(lines)
        for (const event of events) {
          if (event.type === 'progress') this.progress.value = event
          if (event.type === 'end') {
            ended = true
            this.limited.value = event.limited
            this.partial.value = event.partial
          }
        }
      })
      this.#feed.flush()
      this.state.value = ended ? 'done' : 'failed'
      if (!ended) this.failure.value = 'The answer broke off: the consumer ended, or the connection did.'
    } catch (error) {
      if (running.signal.aborted) return fresh
      this.state.value = 'failed'
      this.failure.value = (error as Error).message
      if (!(error instanceof ApiFailure))
        this.failure.value = 'The answer broke off: the consumer ended, or the connection did.'
    }
    return fresh
  }
}
