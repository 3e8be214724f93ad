/** What a view asks of the API: its questions as query strings. */
import { ERROR_PATTERN } from './level.ts'
import { momentOf, rfc3339 } from './moment.ts'
import type { View } from './view.ts'

/** Lines that a tail begins with, and that one question for history brings. */
const FIRST_LINES = 500
export const PAGE_LINES = 1_000
/** What the histogram of a live view spans, ms. */
const LIVE_SPAN_MS = 15 * 60_000

/** Text as a regular expression that means just that, in RE2's and Rust's syntax. */
export const literal = (text: string): string => text.replace(/[\\.+*?()|[\]{}^$]/g, '\\$&')

const patternOf = (text: string, { regex, word }: View): string => {
  const pattern = regex ? text : literal(text)
  return word ? `\\b(?:${pattern})\\b` : pattern
}
const excluded = (view: View): string[] => view.exclude.map((text) => (view.regex ? text : literal(text)))

function selectionQuery(view: View): URLSearchParams {
  const query = new URLSearchParams()
  for (const value of view.targets) query.append('target', value)
  for (const value of view.hosts) query.append('host', value)
  for (const value of view.containers) query.append('container', value)
  for (const value of view.sources) query.append('source', value)
  return query
}

/** Adds include and exclude. */
function filter(query: URLSearchParams, view: View): URLSearchParams {
  if (view.text !== '') query.append(view.invert ? 'exclude' : 'include', patternOf(view.text, view))
  for (const pattern of excluded(view)) query.append('exclude', pattern)
  if (!view.matchCase && (view.text !== '' || view.exclude.length > 0)) query.set('ignoreCase', 'true')
  return query
}

/** A stretch of time, ms since 1970. */
export type Span = { since: number; until: number }

/** What a view spans. @param now ms since 1970 */
export function spanOf(view: View, now: number): Span {
  if (view.since === undefined) return { since: now - LIVE_SPAN_MS, until: now }
  return { since: momentOf(view.since, now), until: view.until === undefined ? now : momentOf(view.until, now) }
}

/** The same, as the API is asked: without an end where it is now, since a line may be stamped by a clock that is ahead. */
function addRange(query: URLSearchParams, view: View, now: number): void {
  if (view.since !== undefined) query.set('since', rfc3339(momentOf(view.since, now)))
  if (view.until !== undefined) query.set('until', rfc3339(momentOf(view.until, now)))
}

/** `/tail`. @param cursor where a tail that broke off goes on */
export function tailQuery(view: View, cursor: string | undefined): URLSearchParams {
  const query = filter(selectionQuery(view), view)
  if (cursor === undefined) query.set('last', String(FIRST_LINES))
  else query.set('cursor', cursor)
  return query
}

type PageOptions = {
  now: number
  limit?: number
  /** From the end of the range backwards (default), or from its start. */
  last?: boolean
  /** Instead of the view's own end, or start, ms since 1970: the page before, or after. */
  until?: number
  since?: number
}

function pageQuery(view: View, { now, limit = PAGE_LINES, last = true, until, since }: PageOptions): URLSearchParams {
  const query = selectionQuery(view)
  addRange(query, view, now)
  if (until !== undefined) query.set('until', rfc3339(until))
  if (since !== undefined) query.set('since', rfc3339(since))
  query.set('limit', String(limit))
  if (last) query.set('last', 'true')
  return query
}

/** `/lines`, filtered, in the order of time. */
export const linesQuery = (view: View, options: PageOptions): URLSearchParams => filter(pageQuery(view, options), view)

/** `/lines` where nothing is looked for, else `/search`, which tells how far it is. */
export function historyQuery(view: View, options: PageOptions): { path: '/lines' | '/search'; query: URLSearchParams } {
  if (view.text === '') return { path: '/lines', query: linesQuery(view, options) }
  const query = pageQuery(view, options)
  query.set('pattern', view.text)
  if (!view.regex) query.set('fixed', 'true')
  if (!view.matchCase) query.set('ignoreCase', 'true')
  if (view.word) query.set('word', 'true')
  if (view.invert) query.set('invert', 'true')
  for (const pattern of excluded(view)) query.append('exclude', pattern)
  return { path: '/search', query }
}

/** `/lines` for the nearest error before or after a moment, ms since 1970, whatever the view looks for. */
export function errorQuery(view: View, direction: 'before' | 'after', moment: number): URLSearchParams {
  const query = selectionQuery(view)
  query.set('include', ERROR_PATTERN)
  query.set('limit', '1')
  query.set(direction === 'before' ? 'until' : 'since', rfc3339(moment))
  if (direction === 'before') query.set('last', 'true')
  return query
}

/** `/histogram`. */
export function histogramQuery(view: View, span: Span, buckets: number): URLSearchParams {
  const query = selectionQuery(view)
  query.set('since', rfc3339(span.since))
  query.set('until', rfc3339(Math.max(span.until, span.since + 1)))
  query.set('buckets', String(buckets))
  query.set('by', view.by)
  return query
}
