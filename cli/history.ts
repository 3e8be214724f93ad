/** Lines that are written already, of one server, however many: asked for a page at a time, each line once. */
import type { Gap, Line, LinesEvent } from '../consumer/api-schema.ts'
import { type Query, stream } from './api.ts'
import { CliError } from './errors.ts'
import type { Server } from './servers.ts'
import { incomplete } from './terminal.ts'

/** MAX_LINES of the API. */
export const PAGE = 100_000

/** Says what an answer does not hold. */
export function sayGaps({ name }: Server, gaps: readonly Gap[]): void {
  for (const { consumer, file, message } of gaps) {
    const of = [consumer, file].filter((part) => part !== undefined).join(', ')
    incomplete(`${name}: missing here: ${of ? `${of}: ` : ''}${message}`)
  }
}

/** One answer of at most `limit` lines. `limited` is called where there are more. */
export async function* page(server: Server, query: Query, limited: () => void): AsyncGenerator<Line[], void, void> {
  let ended = false
  for await (const events of stream<LinesEvent>(server, 'api/v1/lines', { query })) {
    yield events.filter((event) => event.type === 'line')
    for (const event of events) {
      if (event.type !== 'end') continue
      ended = true
      sayGaps(server, event.partial)
      if (event.limited) limited()
    }
  }
  if (!ended) throw new CliError('BROKEN_OFF', `the answer of ${server.name} broke off`)
}

/**
 * All lines of the range. A page begins at the time of the last line before it, whose neighbours it repeats: those are left out.
 */
export async function* history(server: Server, query: Query, limit = PAGE): AsyncGenerator<Line[], void, void> {
  /** Lines of the moment that the page before ended in. */
  let edge = new Set<string>()
  let time: string | undefined
  for (let more = true; more; ) {
    more = false
    let fresh = 0
    const asked = { ...query, limit, ...(time !== undefined && { since: time }) }
    for await (const lines of page(server, asked, () => (more = true))) {
      const news = lines.filter(({ at }) => !edge.has(at))
      fresh += news.length
      for (const line of news) {
        if (line.time !== time) edge = new Set()
        time = line.time
        edge.add(line.at)
      }
      if (news.length > 0) yield news
    }
    if (more && fresh === 0) {
      incomplete(
        `${server.name}: more than ${limit.toLocaleString('en')} lines are of ${time}; some of them are left out`,
      )
      time = new Date(Date.parse(time!) + 1).toISOString()
      edge = new Set()
    }
  }
}
