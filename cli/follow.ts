/**
 * A live tail of one server that outlives its connections.
 *
 * Invariants
 * - No line is lost or doubled over a reconnect: it goes on with the last cursor that came, and what is repeated behind that is left
 *   out by its file and position. Before the first cursor it goes on from the time of the last line, in the same manner.
 * - A connection that says nothing, not even a heartbeat, is broken. Nothing but being told to ends the tail once it has begun.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Line, TailEvent } from '../consumer/api-schema.ts'
import { type Query, stream } from './api.ts'
import { CliError } from './errors.ts'
import { PAGE } from './history.ts'
import { Seen } from './seen.ts'
import type { Server } from './servers.ts'
import { say } from './terminal.ts'

/** MERGE_WINDOW_MS of the API: what is later than the last line may have come before it. */
const WINDOW_MS = 2_000
const FIRST_WAIT_MS = 200
const LONGEST_WAIT_MS = 5_000

export type FollowOptions = {
  server: Server
  /** `selection` and `filters` of the API, `last` and `since`. */
  query: Query
  /** As many lines are remembered to leave them out. */
  remembered?: number
  firstWait?: number
  silence?: number
}

export class Follow {
  #options: FollowOptions
  #seen: Seen
  #cursor: string | undefined
  #lastTime: string | undefined
  #started: string | undefined
  /** It has been connected at least once. */
  #begun = false
  /** All that was there before has been handed on: what comes is new. */
  caughtUp = false

  constructor(options: FollowOptions) {
    this.#options = options
    this.#seen = new Seen(options.remembered)
  }

  /**
   * Lines as they come, in batches that may be empty, until `signal`; called again, it goes on where it was.
   * @throws CliError where the first connection does not come about; called after that, it begins with the time of the first try
   */
  async *lines(signal: AbortSignal): AsyncGenerator<Line[], void, void> {
    const { server, firstWait = FIRST_WAIT_MS } = this.#options
    let wait = firstWait
    let told = false
    while (!signal.aborted) {
      try {
        for await (const lines of this.#connection(signal)) {
          if (told) say(`${server.name} answers again; it goes on behind the last line`)
          told = false
          wait = firstWait
          yield lines
        }
        throw new CliError('BROKEN_OFF', `${server.name} ended the connection`)
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof CliError)) throw error
        if (error.code === 'QUERY_REFUSED' && this.#cursor !== undefined) {
          // Its files are gone, or it is another one by now.
          say(`${error.message}. It goes on from the time of the last line`)
          this.#cursor = undefined
          continue
        }
        if (!this.#begun || error.code === 'TOKEN_REFUSED' || error.code === 'QUERY_REFUSED') throw error
        if (!told) say(`${error.message}. Trying again until it answers`)
        told = true
      }
      await sleep(wait, undefined, { signal }).catch(() => {})
      wait = Math.min(2 * wait, LONGEST_WAIT_MS)
    }
  }

  /** A batch, maybe an empty one, for whatever comes; history and what follows it are never in the same. */
  async *#connection(signal: AbortSignal): AsyncGenerator<Line[], void, void> {
    const { server, query, silence } = this.#options
    const asked = { query: { ...query, ...this.#from() }, signal, ...(silence !== undefined && { silence }) }
    this.#started ??= new Date().toISOString()
    for await (const events of stream<TailEvent>(server, 'api/v1/tail', asked)) {
      this.#begun = true
      let lines: Line[] = []
      for (const event of events) {
        if (event.type === 'line') {
          if (this.#seen.add(event)) lines.push(event)
          this.#lastTime = event.time
        } else if (event.type === 'cursor') {
          this.#cursor = event.cursor
          if (this.caughtUp) continue
          yield lines
          lines = []
          this.caughtUp = true
        } else if (event.type === 'missed') {
          say(
            `${server.name}: ${event.lines.toLocaleString('en')} lines are left out here, because they are read too slowly`,
          )
        } else if (event.type === 'gap') {
          say(`${server.name}: ${[event.consumer, event.file].filter(Boolean).join(', ')}: ${event.message}`)
        }
      }
      yield lines
    }
  }

  #from(): Query {
    if (this.#cursor !== undefined) return { cursor: this.#cursor, last: undefined, since: undefined }
    if (this.#started === undefined) return {}
    const time = Date.parse(this.#lastTime ?? this.#started)
    return { last: PAGE, since: new Date(time - WINDOW_MS).toISOString() }
  }
}
