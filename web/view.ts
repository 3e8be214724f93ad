/**
 * A view: all that decides what the page shows, held by the URL's query, so that a link brings anybody to the same sight.
 *
 * Invariants
 * - `viewOf(searchOf(view))` is `view`, and `searchOf` writes nothing for what is as it would be anyway.
 * - A query that somebody wrote by hand, or an older page, gives a view: what is not understood is left out.
 * - How lines look (wrap, zone, theme) belongs to who looks and not to the view: see preferences.ts.
 */
import type { HistogramQuery } from '../consumer/api-schema.ts'
import { isMoment } from './moment.ts'

export type Source = 'stdout' | 'stderr'
export type By = HistogramQuery['by']

export type View = {
  page: 'overview' | 'lines'
  /** `service/module`, globs allowed. */
  targets: string[]
  hosts: string[]
  containers: string[]
  /** None: both. */
  sources: Source[]
  /** What is looked for; empty: every line. */
  text: string
  regex: boolean
  matchCase: boolean
  word: boolean
  /** Lines that do not match. */
  invert: boolean
  /** Regular expressions: lines that match one are left out. */
  exclude: string[]
  /** A moment (moment.ts); missing: live, what lands from now on. */
  since?: string
  /** Missing: up to now. */
  until?: string
  /** What the histogram tells apart. */
  by: By
  /** Cursor of the line that is opened. */
  at?: string
}

export const EMPTY: View = {
  page: 'lines',
  targets: [],
  hosts: [],
  containers: [],
  sources: [],
  text: '',
  regex: false,
  matchCase: false,
  word: false,
  invert: false,
  exclude: [],
  by: 'module',
}

export const BYS: readonly By[] = ['module', 'service', 'host', 'source', 'total']
const FLAGS = { regex: 'regex', case: 'matchCase', word: 'word', invert: 'invert' } as const
const LISTS = { target: 'targets', host: 'hosts', container: 'containers', not: 'exclude' } as const

/** @param search the URL's query. An empty one is the overview. */
export function viewOf(search: string): View {
  const asked = new URLSearchParams(search)
  const view: View = { ...EMPTY, text: asked.get('q') ?? '' }
  if (asked.get('page') === 'overview' || asked.size === 0) view.page = 'overview'
  for (const [key, of] of Object.entries(LISTS)) {
    view[of] = [...new Set(asked.getAll(key).filter((value) => value !== ''))]
  }
  for (const [key, of] of Object.entries(FLAGS)) view[of] = asked.has(key) && asked.get(key) !== 'false'
  view.sources = (['stdout', 'stderr'] as const).filter((source) => asked.getAll('source').includes(source))
  if (view.sources.length === 2) view.sources = []
  view.by = BYS.find((by) => by === asked.get('by')) ?? EMPTY.by
  for (const key of ['since', 'until'] as const) {
    const value = asked.get(key)
    if (value !== null && isMoment(value)) view[key] = value
  }
  // What lands from now on has no end.
  if (view.since === undefined) delete view.until
  const at = asked.get('at')
  if (at) view.at = at
  return view
}

/** The URL's query, with its question mark. */
export function searchOf(view: View): string {
  const asked = new URLSearchParams()
  if (view.page === 'overview') return ''
  for (const [key, of] of Object.entries(LISTS)) for (const value of view[of]) asked.append(key, value)
  for (const source of view.sources) asked.append('source', source)
  if (view.text !== '') asked.set('q', view.text)
  for (const [key, of] of Object.entries(FLAGS)) if (view[of]) asked.set(key, 'true')
  for (const key of ['since', 'until', 'at'] as const) if (view[key] !== undefined) asked.set(key, view[key])
  if (view.by !== EMPTY.by) asked.set('by', view.by)
  if (asked.size === 0) asked.set('page', 'lines')
  // A slash, a star, a comma and a colon may stand in a query as they are, and are read more easily so.
  return `?${asked.toString().replace(/%2F|%2A|%2C|%3A/g, decodeURIComponent)}`
}

/** Whether two views ask for the same lines, whatever of them is opened. */
export const sameLines = (one: View, other: View): boolean => {
  const lines = ({ at: _at, by: _by, ...rest }: View): string => searchOf({ ...rest, by: EMPTY.by })
  return lines(one) === lines(other)
}
