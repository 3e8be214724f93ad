/**
 * The reader of a view: its feed, and what fills it: a tail where the view is live, history where it has a range. One view has one
 * reader; another view begins with another.
 */
import { signal } from '@preact/signals'
import type { LinesEvent } from '../consumer/api-schema.ts'
import type { Api } from './api.ts'
import { CAPACITY, Feed, isErrorRow } from './feed.ts'
import { History } from './history.ts'
import { errorQuery } from './queries.ts'
import { Tail } from './tail.ts'
import type { View } from './view.ts'

/** Rows of history that are held: what somebody reads back to stays there. */
export const HISTORY_CAPACITY = 50_000
/** A hidden page draws no frames, and takes its lines in so often, ms. */
const HIDDEN_MS = 500
/** Lines are taken in no more often than every so many ms: nobody reads faster. */
const FRAME_MS = 100

let drawn = 0
function frame(flush: () => void): void {
  if (document.visibilityState !== 'visible') {
    setTimeout(flush, HIDDEN_MS)
    return
  }
  const wait = Math.max(0, drawn + FRAME_MS - performance.now())
  setTimeout(() => {
    requestAnimationFrame(() => {
      flush()
      drawn = performance.now()
    })
  }, wait)
}

export class Reader {
  readonly view: View
  readonly feed: Feed
  readonly tail: Tail | undefined
  readonly history: History | undefined
  /** ms since 1970, when it began: what `15m` is counted from. */
  readonly now = signal(Date.now())
  #api: Api

  constructor(api: Api, view: View) {
    this.#api = api
    this.view = view
    if (view.since === undefined) {
      this.feed = new Feed(frame, CAPACITY)
      this.tail = new Tail(api, view, this.feed)
      void this.tail.run()
    } else {
      this.feed = new Feed(frame, HISTORY_CAPACITY)
      this.history = new History(api, view, this.feed, this.now.value)
      void this.history.run()
    }
  }

  get live(): boolean {
    return this.tail !== undefined
  }

  /** Whether there are earlier lines to read, and room for them. */
  get hasOlder(): boolean {
    return this.history?.limited.value === true && this.feed.length < HISTORY_CAPACITY - 1_000
  }

  stop(): void {
    this.tail?.stop()
    this.history?.stop()
  }

  /** The nearest row with an error among those that are there, or -1. @param from index that is not looked at itself */
  errorAmongRows(from: number, step: 1 | -1): number {
    for (let i = from + step; i >= 0 && i < this.feed.length; i += step) if (isErrorRow(this.feed.at(i)!)) return i
    return -1
  }

  /** The nearest error beyond the rows that are there. @returns its cursor */
  async errorBeyond(step: 1 | -1): Promise<string | undefined> {
    const edge = this.feed.at(step === 1 ? -1 : 0)
    const moment = edge ? Date.parse(edge.line.time) + (step === 1 ? 1 : 0) : this.now.value
    let at: string | undefined
    const found = new AbortController()
    await this.#api.stream<LinesEvent>(
      '/lines',
      errorQuery(this.view, step === 1 ? 'after' : 'before', moment),
      found.signal,
      (events) => {
        at ??= events.find((event) => event.type === 'line')?.at
      },
    )
    return at
  }
}
