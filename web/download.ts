/**
 * A download of all that a view's filters let through: not what is loaded, but the whole range, page by page.
 *
 * Invariants
 * - Ends at MAX_BYTES, because the browser holds it until it is saved; a file that was cut says so in its last line.
 * - Pages meet in a millisecond, and each line is in there once.
 */
import { signal } from '@preact/signals'
import type { Line, LinesEvent } from '../consumer/api-schema.ts'
import type { Api } from './api.ts'
import { asText } from './copy.ts'
import { linesQuery } from './queries.ts'
import type { View } from './view.ts'

type Format = 'text' | 'ndjson'
const PAGE = 50_000
const MAX_BYTES = 512 * 1024 * 1024

/** Lines so far, while one runs. */
export const downloading = signal<{ lines: number; cancel(): void } | undefined>(undefined)

const render: Record<Format, (line: Line) => string> = {
  text: asText,
  ndjson: ({ type: _type, matches: _matches, ...line }) => JSON.stringify(line),
}

/** Lines of a view from first to last, each once. @param take gets them page by page; false ends it */
async function everyLine(
  api: Api,
  view: View,
  now: number,
  signal: AbortSignal,
  take: (lines: Line[]) => boolean,
): Promise<{ partial: number; cut: boolean }> {
  let since: number | undefined
  let partial = 0
  let seen = new Set<string>()
  for (;;) {
    const query = linesQuery(view, { now, limit: PAGE, last: false, ...(since !== undefined && { since }) })
    let latest = since ?? 0
    let end: { limited: boolean } | undefined
    let fresh = 0
    let going = true
    const edge = new Map<string, number>()
    await api.stream<LinesEvent>('/lines', query, signal, (events) => {
      const lines = events.filter((event) => event.type === 'line' && !seen.has(event.at)) as Line[]
      for (const { at, time } of lines) {
        const ms = Date.parse(time)
        edge.set(at, ms)
        if (ms > latest) latest = ms
      }
      fresh += lines.length
      for (const event of events) {
        if (event.type !== 'end') continue
        end = event
        partial += event.partial.length
      }
      if (going && lines.length > 0) going = take(lines)
    })
    if (!end) throw new Error('The answer broke off: the consumer ended, or the connection did.')
    if (!end.limited || !going) return { partial, cut: !going }
    if (fresh === 0) return { partial, cut: true }
    since = latest
    seen = new Set([...edge].filter(([, ms]) => ms >= latest).map(([at]) => at))
  }
}

/** Saves lines that are there already. @returns what is to be told */
export function saveLines(lines: Line[], view: View, format: Format): string {
  save(new Blob(lines.map((line) => `${render[format](line)}\n`)), nameOf(view, format))
  return `${lines.length.toLocaleString('en')} lines saved: those that the live view holds`
}

/** Saves all lines of a view's range. @returns what is to be told */
export async function download(api: Api, view: View, format: Format): Promise<string> {
  const running = new AbortController()
  const parts: Blob[] = []
  let lines = 0
  let size = 0
  downloading.value = { lines, cancel: () => running.abort() }
  try {
    const { cut, partial } = await everyLine(api, view, Date.now(), running.signal, (page) => {
      const part = new Blob([page.map((line) => `${render[format](line)}\n`).join('')])
      parts.push(part)
      size += part.size
      lines += page.length
      downloading.value = { lines, cancel: () => running.abort() }
      return size < MAX_BYTES
    })
    const words = `${lines.toLocaleString('en')} lines`
    if (cut)
      parts.push(new Blob([`# cut here by the page after ${words}: narrow the range, or use the command tallyman\n`]))
    save(new Blob(parts, { type: format === 'text' ? 'text/plain' : 'application/x-ndjson' }), nameOf(view, format))
    if (cut) return `${words} saved; there are more, and the file says so in its last line`
    return partial > 0 ? `${words} saved; some files could not be read` : `${words} saved`
  } catch (error) {
    return running.signal.aborted ? 'Download cancelled' : `Download failed: ${(error as Error).message}`
  } finally {
    downloading.value = undefined
  }
}

const nameOf = (view: View, format: Format): string =>
  `${[...view.targets, 'tallyman'][0]!.replace(/[^\w.-]+/g, '-').replace(/^-|-$/g, '') || 'tallyman'}-${new Date().toISOString().slice(0, 19).replace(/:/g, '')}.${format === 'text' ? 'log' : 'ndjson'}`

function save(blob: Blob, name: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
}
