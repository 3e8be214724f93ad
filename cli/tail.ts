/**
 * `tallyman tail`: the last lines, and those that come.
 *
 * Invariants
 * - Each line is printed once, in the order of time as far as servers answer within HOLD_MS of each other.
 * - While it is paused, lines wait here up to HELD_LINES, the rest in the consumer's files: the connections are closed, and what was
 *   not taken is asked for by the last cursor afterwards.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Line } from '../consumer/api-schema.ts'
import type { Query } from './api.ts'
import { inColour, STYLES } from './colours.ts'
import { CliError, EXIT } from './errors.ts'
import { Follow } from './follow.ts'
import { history, PAGE, page } from './history.ts'
import { takeKeys } from './keys.ts'
import { type Layout, type LayoutOptions, layout } from './layout.ts'
import { mergeByTime, once } from './merge.ts'
import { layoutOf, queryOf, type SelectionOptions, serversFor, targetsOf } from './selection.ts'
import type { Server } from './servers.ts'
import { incomplete, print, say } from './terminal.ts'

export type TailOptions = SelectionOptions & {
  follow?: boolean
  lines?: number
  include?: string[]
  exclude?: string[]
  ignoreCase?: boolean
}

/** As tail has it. */
const DEFAULT_LINES = 10
/** Lines of several servers wait for each other, ms. */
const HOLD_MS = 300
/** A server that has not told by then what was before is not waited for. */
const HISTORY_MS = 2_000
const HELD_LINES = 20_000
/** A server that did not answer is asked again after so long, while others do. */
const RETRY_MS = 3_000
/** Lines that `/` looks through. */
const REMEMBERED = 5_000

export async function tail(given: string[], options: TailOptions): Promise<void> {
  const servers = await serversFor(options)
  const follow = options.follow ?? (process.stdout.isTTY === true && options.until === undefined)
  if (follow && options.until !== undefined)
    throw new CliError('USAGE', '--follow never comes to --until: leave one of them out')
  const targets = await targetsOf(given, servers)
  const shown = layoutOf(targets, options)
  const { include, exclude, ignoreCase } = options
  const query = { ...queryOf(targets, options, Date.now()), include, exclude, ignoreCase }
  const ranged = options.since !== undefined || options.until !== undefined
  const lines = options.lines ?? (ranged ? undefined : DEFAULT_LINES)
  if (follow) await live(servers, query, lines, shown)
  else await past(servers, query, lines, layout(shown))
}

/** What is written already: the last `count` lines, or all of them. */
async function past(servers: Server[], query: Query, count: number | undefined, show: Layout): Promise<void> {
  const first = once(servers)
  const last: Line[] = []
  if (count === 0) return
  const sources = servers.map((server) =>
    count === undefined ? history(server, query) : page(server, { ...query, limit: count, last: true }, () => {}),
  )
  for await (const lines of mergeByTime(sources, ({ time }) => time)) {
    const batch = first(lines)
    if (count === undefined || servers.length === 1) await print(batch.map(show).join(''))
    else {
      last.push(...batch)
      last.splice(0, last.length - count)
    }
  }
  await print(last.map(show).join(''))
}

/** The last `count` lines, or all of the range, then those that come, until somebody ends it. */
async function live(servers: Server[], query: Query, count: number | undefined, shown: LayoutOptions): Promise<void> {
  const screen = new Screen(servers, count ?? PAGE, shown)
  if (screen.interactive) withKeys(screen, shown)
  /** Servers that have not answered yet. */
  const missing = new Set<Server>()
  const run = async (server: Server): Promise<void> => {
    const follow = new Follow({ server, query: { ...query, last: count ?? PAGE } })
    let before = 0
    const take = async (lines: Line[]): Promise<void> => {
      if (missing.delete(server)) say(`${server.name} answers now`)
      if (!follow.caughtUp) before += lines.length
      else if (before === PAGE && count === undefined) {
        incomplete(`${server.name}: only the last ${PAGE.toLocaleString('en')} lines of before; cat prints all`)
        before = 0
      }
      await screen.take(server, lines, follow.caughtUp)
    }
    for (;;) {
      try {
        for await (const lines of follow.lines(screen.open())) await take(lines)
        await screen.resumed
      } catch (error) {
        if (!(error instanceof CliError) || error.code === 'QUERY_REFUSED') throw error
        const told = missing.has(server)
        missing.add(server)
        if (missing.size === servers.length) throw error
        if (!told) incomplete(`${error.message}. Its lines are missing`)
        await screen.leave(server)
        if (error.acts === 'user') return
        await sleep(RETRY_MS)
      }
    }
  }
  await Promise.all(servers.map(run))
}

/** What is on its way to the terminal: put in order, held back, paused, remembered. */
class Screen {
  /** What was printed last, for `/`. */
  readonly remembered: Line[] = []
  /** Somebody sits at it and may press keys. */
  readonly interactive = process.stdin.isTTY === true && process.stdout.isTTY === true
  #show: Layout
  #once: (lines: Line[]) => Line[]
  #several: boolean
  #count: number
  /** Of several servers, until each has told what was before, or HISTORY_MS are over. */
  #history: { lines: Line[]; waiting: Set<Server> } | undefined
  #held: { line: Line; due: number }[] = []
  #timer: NodeJS.Timeout | undefined
  #closing = new AbortController()
  #pause: { over: Promise<void>; end(): void } | undefined

  /** @param count of lines of before, of all servers together */
  constructor(servers: readonly Server[], count: number, shown: LayoutOptions) {
    this.#show = layout(shown)
    this.#once = once(servers)
    this.#several = servers.length > 1
    this.#count = count
    if (this.#several) {
      this.#history = { lines: [], waiting: new Set(servers) }
      setTimeout(() => this.#endHistory(), HISTORY_MS)
    }
  }

  /** For a connection that is opened: aborted where it has to be closed. */
  open(): AbortSignal {
    return this.#closing.signal
  }

  /** Resolves once lines are wanted. */
  get resumed(): Promise<void> {
    return this.#pause?.over ?? Promise.resolve()
  }

  get paused(): boolean {
    return this.#pause !== undefined
  }

  get waiting(): number {
    return this.#held.length
  }

  /** @param isNew whether they came after it was asked for */
  async take(server: Server, lines: Line[], isNew: boolean): Promise<void> {
    const news = this.#once(lines)
    if (this.#history && !isNew) this.#history.lines.push(...news)
    else {
      if (this.#history) await this.leave(server)
      if (!this.#several && !this.#pause && this.#held.length === 0) return this.#print(news)
      const due = performance.now() + (this.#several ? HOLD_MS : 0)
      for (const line of news) this.#held.push({ line, due })
      if (!this.#pause) this.#schedule()
      else if (this.#held.length > HELD_LINES) this.#closing.abort()
    }
  }

  /** A server tells nothing more of before. */
  async leave(server: Server): Promise<void> {
    this.#history?.waiting.delete(server)
    if (this.#history?.waiting.size === 0) await this.#endHistory()
  }

  async #endHistory(): Promise<void> {
    const history = this.#history
    if (!history) return
    this.#history = undefined
    history.lines.sort((a, b) => Date.parse(a.time) - Date.parse(b.time))
    const last = history.lines.slice(-this.#count)
    if (this.#pause) this.#held.unshift(...last.map((line) => ({ line, due: 0 })))
    else await this.#print(last)
  }

  pause(): void {
    if (this.#pause) return
    let end = (): void => {}
    const over = new Promise<void>((resolve) => {
      end = resolve
    })
    this.#pause = { over, end }
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  async resume(): Promise<void> {
    const pause = this.#pause
    if (!pause) return
    // More may come while it is printed.
    while (this.#held.length > 0) await this.#print(this.#held.splice(0).map(({ line }) => line))
    this.#pause = undefined
    if (this.#closing.signal.aborted) this.#closing = new AbortController()
    pause.end()
  }

  #schedule(): void {
    this.#timer ??= setTimeout(() => this.#release(), HOLD_MS / 3)
  }

  /** Prints what has waited for the others long enough, and what is earlier than that. */
  async #release(): Promise<void> {
    this.#timer = undefined
    const now = performance.now()
    const due = this.#held.filter((held) => held.due <= now)
    if (due.length > 0) {
      const latest = Math.max(...due.map(({ line }) => Date.parse(line.time)))
      const goes = (held: { line: Line; due: number }): boolean =>
        held.due <= now || Date.parse(held.line.time) <= latest
      const out = this.#held.filter(goes)
      this.#held = this.#held.filter((held) => !goes(held))
      out.sort((a, b) => Date.parse(a.line.time) - Date.parse(b.line.time))
      await this.#print(out.map(({ line }) => line))
    }
    if (this.#held.length > 0 && !this.#pause) this.#schedule()
  }

  async #print(lines: Line[]): Promise<void> {
    if (this.interactive) {
      this.remembered.push(...lines)
      this.remembered.splice(0, this.remembered.length - REMEMBERED)
    }
    await print(lines.map(this.#show).join(''))
  }

  /** Prints lines once more. */
  async again(lines: readonly Line[]): Promise<void> {
    await print(lines.map(this.#show).join(''))
  }
}

/** q ends, space pauses, / looks for something, enter leaves a blank line. */
function withKeys(screen: Screen, shown: LayoutOptions): void {
  const keys = takeKeys()
  const rule = (text: string): void => say(shown.colours ? inColour(STYLES.key, text) : text)
  const resume = async (): Promise<void> => {
    await screen.resume()
  }
  keys.on('q', () => process.exit(process.exitCode ?? EXIT.GOOD))
  keys.on('enter', () => void print('\n'))
  keys.on(' ', () => {
    if (screen.paused) {
      rule(`going on, with ${screen.waiting.toLocaleString('en')} lines that came meanwhile`)
      void resume()
    } else {
      screen.pause()
      rule('paused; space goes on, / searches, q ends')
    }
  })
  keys.on('/', async () => {
    const wasPaused = screen.paused
    screen.pause()
    const text = await keys.ask('/')
    await look(text, screen, shown, rule)
    if (!wasPaused) await resume()
  })
}

/** Shows the lines of before that match, and marks what matches from now on. */
async function look(
  text: string | undefined,
  screen: Screen,
  shown: LayoutOptions,
  rule: (text: string) => void,
): Promise<void> {
  if (text === undefined) return
  if (text === '') {
    shown.highlight = []
    return
  }
  let pattern: RegExp
  try {
    pattern = new RegExp(text, /\p{Lu}/u.test(text) ? 'gu' : 'giu')
  } catch (error) {
    rule((error as Error).message)
    return
  }
  shown.highlight = [pattern]
  const found = screen.remembered.filter(({ line }) => line.search(pattern) >= 0)
  rule(
    `${found.length.toLocaleString('en')} of the last ${screen.remembered.length.toLocaleString('en')} lines match /${text}/`,
  )
  await screen.again(found)
  rule('and from now on')
}
