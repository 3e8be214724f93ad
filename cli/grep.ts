/**
 * `tallyman grep`: history by a regular expression, on the servers.
 *
 * Exit status, as grep has it: 0 a line matched, 1 none did, 2 something went wrong or is missing from the answer; with --quiet a
 * match is 0 whatever is missing.
 */
import prettyBytes from 'pretty-bytes'
import type { Line, SearchEvent } from '../consumer/api-schema.ts'
import { type Query, stream } from './api.ts'
import { inColour } from './colours.ts'
import { CliError, EXIT } from './errors.ts'
import { PAGE, sayGaps } from './history.ts'
import { type Layout, layout } from './layout.ts'
import { apart, mergeByTime, once } from './merge.ts'
import { isOneModule, layoutOf, queryOf, type SelectionOptions, serversFor, targetsOf } from './selection.ts'
import type { Server } from './servers.ts'
import { clearProgress, print, progress, say } from './terminal.ts'

export type GrepOptions = SelectionOptions & {
  regexp?: string[]
  ignoreCase?: boolean
  invertMatch?: boolean
  count?: boolean
  filesWithMatches?: boolean
  maxCount?: number
  last?: boolean
  afterContext?: number
  beforeContext?: number
  context?: number
  wordRegexp?: boolean
  fixedStrings?: boolean
  onlyMatching?: boolean
  quiet?: boolean
  sort: boolean
  exclude?: string[]
}

const SEPARATOR = '36'

/** What the regular expressions of RE2 and of Rust treat as more than itself. */
export const literal = (text: string): string => text.replace(/[\\.+*?()|[\]{}^$#&~-]/g, '\\$&')

/** One pattern of several, of which one has to match. */
export function patternOf(patterns: readonly string[], fixed: boolean): { pattern: string; fixed: boolean } {
  // As grep has it: each line of a pattern is a pattern.
  const all = patterns.flatMap((pattern) => pattern.split('\n'))
  if (all.length === 1) return { pattern: all[0]!, fixed }
  return { pattern: all.map((pattern) => (fixed ? literal(pattern) : `(?:${pattern})`)).join('|'), fixed: false }
}

/** Lines that adjoin, or one that has no context. */
type Group = Line[]
type Count = { file: string; name: string; lines: number }

/** How far each server is. */
type Progress = { bytes: number; bytesTotal: number; matched: number; queued?: number | undefined }

export async function grep(args: string[], options: GrepOptions): Promise<void> {
  const { count, filesWithMatches, quiet, maxCount, onlyMatching } = options
  const patterns = options.regexp ?? args.splice(0, 1)
  if (patterns.length === 0)
    throw new CliError('USAGE', "say what to look for: tallyman grep PATTERN [TARGET…]; '' is every line")
  const counting = count === true || filesWithMatches === true
  const asked = await serversFor(options)
  const servers = counting ? await apart(asked) : asked
  const targets = await targetsOf(args, servers)
  const before = options.beforeContext ?? options.context ?? 0
  const after = options.afterContext ?? options.context ?? 0
  const limit = quiet ? 1 : (maxCount ?? PAGE)
  if (maxCount === 0) {
    process.exitCode = EXIT.BAD
    return
  }
  const query: Query = {
    ...queryOf(targets, options, Date.now()),
    ...patternOf(patterns, options.fixedStrings === true),
    ignoreCase: options.ignoreCase,
    word: options.wordRegexp,
    invert: options.invertMatch,
    exclude: options.exclude,
    ...(counting ? { count: true } : { limit, last: options.last, ...(!onlyMatching && !quiet && { before, after }) }),
  }
  const shown = layoutOf(targets, options)
  let matched = 0
  if (counting) {
    const search = new Search(servers, query, limit, false)
    const counts: Count[] = []
    for await (const batch of mergeByTime(
      servers.map((server) => search.counts(server)),
      () => '',
    ))
      counts.push(...batch)
    matched = counts.length
    clearProgress()
    await print(filesWithMatches ? files(counts) : sums(counts, isOneModule(targets)))
  } else {
    const search = new Search(servers, query, limit, !quiet)
    const first = once(servers)
    const show: Layout = onlyMatching ? parts(layout(shown)) : layout(shown)
    const context = before + after > 0 && !onlyMatching
    const between = shown.output === 'json' ? '' : `${shown.colours ? inColour(SEPARATOR, '--') : '--'}\n`
    const last = options.last === true
    // A module has one file a day nearly always, whose lines are in order already.
    const sorted = last || (options.sort && !isOneModule(targets))
    let begun = false
    let cut = false
    for await (const groups of mergeByTime(
      servers.map((server) =>
        sorted ? inOrder(search.groups(server, context), last) : search.groups(server, context),
      ),
      ([line]) => line!.time,
    )) {
      let text = ''
      for (const group of groups) {
        const lines = first(group)
        const hits = lines.filter((line) => line.context !== true).length
        cut ||= matched + hits > limit
        if (hits === 0 || cut) continue
        matched += hits
        if (quiet) continue
        if (context && begun) text += between
        begun = true
        text += lines.map(show).join('')
      }
      await print(text)
      if (cut) break
    }
    // Each server found no more than it might; all of them together did.
    if (cut && !quiet)
      say(`cut after ${matched.toLocaleString('en')} lines that match, there are more: -m allows so many`)
  }
  clearProgress()
  if (quiet && matched > 0) process.exitCode = EXIT.GOOD
  else process.exitCode ??= matched > 0 ? EXIT.GOOD : EXIT.BAD
}

/** Of text, while it waits to be put in order. */
const HELD_CHARACTERS = 64 * 1024 * 1024

/**
 * Groups by time, a day at a time: a server searches day by day, each file by file.
 * @param last it begins with the newest day: all wait for the oldest
 */
async function* inOrder(
  groups: AsyncGenerator<Group[], void, void>,
  last: boolean,
): AsyncGenerator<Group[], void, void> {
  const held: Group[] = []
  let characters = 0
  let day = ''
  const release = (): Group[] => {
    characters = 0
    return held.splice(0).sort(([a], [b]) => Date.parse(a!.time) - Date.parse(b!.time))
  }
  for await (const batch of groups) {
    for (const group of batch) {
      const dayOf = /\d{4}-\d\d-\d\d(?=[^/]*$)/.exec(group[0]!.file)?.[0] ?? ''
      if (characters > HELD_CHARACTERS || (dayOf !== day && !last)) yield release()
      day = dayOf
      held.push(group)
      for (const { line } of group) characters += line.length
    }
  }
  yield release()
}

/** Each of a line's matches as a line of its own. */
const parts =
  (show: Layout): Layout =>
  (line) =>
    (line.matches ?? [])
      .filter(([from, to]) => to > from)
      .map(([from, to]) => show({ ...line, line: line.line.slice(from, to), matches: [[0, to - from]] }))
      .join('')

const files = (counts: Count[]): string =>
  counts
    .map(({ file }) => `${file}\n`)
    .sort()
    .join('')

/** As grep has it: the number alone where one thing is searched, which here is a module. */
function sums(counts: Count[], oneModule: boolean): string {
  if (oneModule) return `${counts.reduce((sum, { lines }) => sum + lines, 0)}\n`
  const byName = new Map<string, number>()
  for (const { name, lines } of counts) byName.set(name, (byName.get(name) ?? 0) + lines)
  return [...byName]
    .map(([name, lines]) => `${name}:${lines}\n`)
    .sort()
    .join('')
}

class Search {
  #query: Query
  #limit: number
  #tells: boolean
  #progress = new Map<Server, Progress>()

  /** @param tells whether it is said that there are more than `limit` */
  constructor(servers: readonly Server[], query: Query, limit: number, tells: boolean) {
    this.#query = query
    this.#limit = limit
    this.#tells = tells
    for (const server of servers) this.#progress.set(server, { bytes: 0, bytesTotal: 0, matched: 0 })
  }

  async *counts(server: Server): AsyncGenerator<Count[], void, void> {
    for await (const events of this.#events(server)) {
      yield events
        .filter((event) => event.type === 'count')
        .map(({ file, service, module, lines }) => ({ file, name: `${service}/${module}`, lines }))
    }
  }

  /** @param context lines come with others around them: those that adjoin stay together */
  async *groups(server: Server, context: boolean): AsyncGenerator<Group[], void, void> {
    let open: Group = []
    for await (const events of this.#events(server)) {
      if (!context) {
        yield events.filter((event) => event.type === 'line').map((line) => [line])
        continue
      }
      const groups: Group[] = []
      for (const event of events) {
        if (event.type === 'line') open.push(event)
        else if (event.type === 'separator' || event.type === 'end') {
          if (open.length > 0) groups.push(open)
          open = []
        }
      }
      yield groups
    }
  }

  async *#events(server: Server): AsyncGenerator<SearchEvent[], void, void> {
    let ended = false
    for await (const events of stream<SearchEvent>(server, 'api/v1/search', { query: this.#query })) {
      yield events
      for (const event of events) {
        if (event.type === 'progress') this.#show(server, event)
        if (event.type !== 'end') continue
        ended = true
        sayGaps(server, event.partial)
        if (event.limited && this.#tells) this.#sayLimited(server)
      }
    }
    if (!ended) throw new CliError('BROKEN_OFF', `the answer of ${server.name} broke off`)
  }

  #show(server: Server, event: Progress): void {
    this.#progress.set(server, event)
    progress(() => {
      const all = [...this.#progress.values()]
      const sum = (key: keyof Progress): number => all.reduce((sum, one) => sum + (one[key] ?? 0), 0)
      const queued = sum('queued')
      if (queued > 0) return `${queued} other searches are served first; Ctrl-C ends it`
      const percent = Math.floor((100 * sum('bytes')) / Math.max(1, sum('bytesTotal')))
      return `${percent} % of ${prettyBytes(sum('bytesTotal'))} searched, ${sum('matched').toLocaleString('en')} lines match; Ctrl-C ends it`
    })
  }

  #sayLimited({ name }: Server): void {
    const most = this.#limit.toLocaleString('en')
    say(
      this.#limit === PAGE
        ? `${name}: cut after ${most} lines that match, there are more. Narrow it down with --since and --until, or count them with -c`
        : `${name}: cut after ${most} lines that match, there are more: -m allows so many`,
    )
  }
}
