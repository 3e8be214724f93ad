/**
 * A live tail: history where it is asked for, then what lands, with no gap and nothing twice between the two.
 *
 * A cursor is how long each day's log of the index was at a checkpoint: all that landed later stands behind it, whatever
 * happened to the consumer meanwhile. What landed between a checkpoint and the end of a connection is sent again. It says of
 * a day whose log was replaced how often: a place in the log before it is none in this one.
 */
import type { Access } from './access.ts'
import type { Gap, TailQuery } from './api-schema.ts'
import type { State } from './checkpoint.ts'
import { ConsumerError } from './errors.ts'
import type { Events, Wire } from './event-stream.ts'
import type { Hub } from './hub.ts'
import { type History, isWanted, Merge, readStretches, wantedOf } from './lines.ts'
import type { IndexPlace, Wanted } from './row-cache.ts'
import { type TextFilter, textFilter } from './selection.ts'
import { byTime, lineEvent, parseLines, type StoredLine, type Stretch } from './stored-line.ts'

/** What a reader comes back to is read before it joins, as long as more than this came meanwhile. */
const LITTLE_BYTES = 256 * 1024
const CATCH_UP_ROUNDS = 20

export type TailContext = {
  access: Access
  wire: Wire
  signal: AbortSignal
}

/** Whether a question is for all lines of what it selects: then they can be told in batches, as they stand in their files. */
export const asksForAll = ({ include, exclude, source }: Pick<TailQuery, 'include' | 'exclude' | 'source'>): boolean =>
  include.length === 0 && exclude.length === 0 && new Set(source).size !== 1

/** @throws ConsumerError before the first event, for a question that is not understood */
export async function* readTail(
  history: History,
  hub: Hub,
  query: TailQuery,
  { access, wire, signal }: TailContext,
): Events {
  const wanted = wantedOf({ ...query, since: undefined }, access.may)
  const filter = textFilter(query)
  const place = query.cursor === undefined ? undefined : readTailCursor(query.cursor)
  const { target, service, module, host, container, source, include, exclude, ignoreCase, window } = query
  const key = JSON.stringify([
    ...[target, service, module, host, container, source],
    ...[include, exclude, ignoreCase, access.services],
  ])
  yield [JSON.stringify({ type: 'window', ms: window })]
  if (place) {
    for (let i = 0; i < CATCH_UP_ROUNDS; i++) {
      let bytes = 0
      for await (const [events, read] of catchUp(history, place, { wanted, filter, signal }, false)) {
        if (signal.aborted) return
        bytes += read
        yield events
      }
      if (bytes < LITTLE_BYTES) break
    }
  }
  const { reader, lengths, cursor } = await hub.follow({ key, selector: wanted, filter, window, wire })
  try {
    if (place) {
      const behind = catchUp(history, place, { wanted: { ...wanted, lengths }, filter, signal }, true)
      for await (const [events] of behind) yield events
    } else if (query.last > 0) {
      const partial: Gap[] = []
      const since = query.since === undefined ? Number.NEGATIVE_INFINITY : Date.parse(query.since)
      const merge = new Merge(
        history,
        { ...wanted, since, lengths },
        filter,
        { limit: query.last, last: true },
        partial,
      )
      for await (const lines of merge.run(signal)) yield lines.map((line) => lineEvent(line, filter?.spans(line.text)))
      yield partial.map((gap) => JSON.stringify({ type: 'gap', ...gap }))
    }
    if (signal.aborted) return
    yield [JSON.stringify({ type: 'cursor', cursor })]
    for (let bytes = await reader.next(signal); bytes; bytes = await reader.next(signal)) yield bytes
  } finally {
    hub.leave(reader)
  }
}

/** What landed behind a place, in the order of time as far as it landed together. The place moves on. */
async function* catchUp(
  { rows, text }: History,
  place: Map<string, IndexPlace>,
  { wanted, filter, signal }: { wanted: Wanted; filter: TextFilter | undefined; signal: AbortSignal },
  pending: boolean,
): AsyncGenerator<[events: string[], bytes: number]> {
  const partial: Gap[] = []
  const send = async (stretches: Stretch[]): Promise<[string[], number]> => {
    const lines: StoredLine[] = []
    let read = 0
    for await (const [stretch, bytes] of readStretches(text, stretches, partial, signal)) {
      read += bytes.length
      for (const line of parseLines(stretch, bytes))
        if (isWanted(wanted, line) && (!filter || filter.passes(line.text))) lines.push(line)
    }
    const gaps = partial.splice(0).map((gap) => JSON.stringify({ type: 'gap', ...gap }))
    return [[...lines.sort(byTime).map((line) => lineEvent(line, filter?.spans(line.text))), ...gaps], read]
  }
  for await (const stretches of rows.behind(place, wanted, pending, partial)) {
    if (signal.aborted) return
    yield await send(stretches)
  }
  if (partial.length > 0) yield await send([])
}

/** How long each day's log is, as a cursor. */
export const tailCursor = ({ index, reindexed }: Pick<State, 'index' | 'reindexed'>): string =>
  Array.from(index, ([day, length]) => {
    const times = reindexed.get(day)?.times
    return `${day.replaceAll('-', '')}-${length.toString(36)}${times === undefined ? '' : `-${times.toString(36)}`}`
  })
    .sort()
    .join('.')

/** @throws ConsumerError for what is no cursor */
function readTailCursor(cursor: string): Map<string, IndexPlace> {
  const days = cursor === '' ? [] : cursor.split('.')
  return new Map(
    days.map((said) => {
      const [, year, month, day, length, times = '0'] =
        /^(\d{4})(\d\d)(\d\d)-([0-9a-z]{1,10})(?:-([0-9a-z]{1,6}))?$/.exec(said) ?? []
      if (length === undefined)
        throw new ConsumerError('QUERY_INVALID', `cursor: ${said} is no part of a cursor; pass one on as it was sent`)
      return [`${year}-${month}-${day}`, { length: Number.parseInt(length, 36), times: Number.parseInt(times, 36) }]
    }),
  )
}
