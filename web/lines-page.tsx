/** The page of lines: what is chosen, what is looked for, how much there is, and the lines themselves. */
import { type Signal, useSignal } from '@preact/signals'
import { AlertTriangle, ArrowDownToLine, Download, Pause, Play, X } from 'lucide'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import { modules, services } from './catalog.ts'
import { asText, copy } from './copy.ts'
import { Dialog } from './dialog.tsx'
import { download, downloading, saveLines } from './download.ts'
import type { Row } from './feed.ts'
import { Histogram } from './histogram.tsx'
import { Icon } from './icon.tsx'
import type { Command } from './keys.ts'
import { LinePanel } from './line-panel.tsx'
import { type ListHandle, LogList } from './log-list.tsx'
import { momentOf, rfc3339 } from './moment.ts'
import { Empty } from './overview.tsx'
import { chart, sidebar } from './preferences.ts'
import { HISTORY_CAPACITY, Reader } from './reader.ts'
import { changed, go, linkTo, view } from './route.ts'
import { api } from './session.ts'
import { Sidebar } from './sidebar.tsx'
import { toast } from './toast.tsx'
import { Toolbar } from './toolbar.tsx'
import { sameLines, type View } from './view.ts'
import { bytes, counted, exact } from './words.ts'

/** What the page of lines does for a key; false where it has no part in it. */
export type Act = (command: Command) => boolean

export function LinesPage({ act }: { act: { current: Act | undefined } }) {
  const now = view.value
  const kept = useRef<View>(now)
  if (!sameLines(kept.current, now)) kept.current = now
  const of = kept.current
  const reader = useMemo(() => new Reader(api, of), [of])
  useEffect(() => () => reader.stop(), [reader])
  const current = useSignal<string | undefined>(now.at)
  const unfolded = useSignal<ReadonlySet<string>>(new Set())
  const drawer = useSignal(false)
  const saving = useSignal(false)
  const list = useRef<ListHandle | undefined>(undefined)
  const { feed } = reader

  const open = (row: Row): void => {
    current.value = row.key
    feed.hold()
    go({ at: row.key }, view.value.at === undefined ? 'push' : 'replace')
  }
  const toggle = (row: Row): void => {
    const next = new Set(unfolded.value)
    if (!next.delete(row.key)) next.add(row.key)
    unfolded.value = next
    feed.hold()
  }
  const moveTo = (index: number): void => {
    const row = feed.at(index)
    if (!row) return
    feed.hold()
    current.value = row.key
    list.current?.scrollTo(index)
    if (view.value.at !== undefined) go({ at: row.key }, 'replace')
  }
  const here = (): number => (current.value === undefined ? -1 : feed.indexOf(current.value))
  const toError = async (step: 1 | -1): Promise<void> => {
    const from = here()
    const found = reader.errorAmongRows(from === -1 ? (step === 1 ? -1 : feed.length) : from, step)
    if (found !== -1) return moveTo(found)
    toast(step === 1 ? 'No later error is loaded: searching…' : 'No earlier error is loaded: searching…')
    try {
      const at = await reader.errorBeyond(step)
      if (at === undefined) return toast(step === 1 ? 'There is no later error' : 'There is no earlier error')
      toast('Found beyond what is loaded')
      current.value = at
      go({ at })
    } catch (error) {
      toast((error as Error).message, true)
    }
  }

  // The panel takes room from the list, whose lines then stand elsewhere.
  useEffect(() => {
    const index = now.at === undefined ? -1 : feed.indexOf(now.at)
    if (index !== -1) requestAnimationFrame(() => list.current?.scrollTo(index))
  }, [now.at, feed])

  act.current = (command) => {
    const index = here()
    const row = index === -1 ? undefined : feed.at(index)
    switch (command) {
      case 'next':
        moveTo(Math.min(feed.length - 1, index === -1 ? feed.length - 1 : index + 1))
        return true
      case 'previous':
        moveTo(index === -1 ? feed.length - 1 : Math.max(0, index - 1))
        return true
      case 'start':
        feed.hold()
        list.current?.toStart()
        void reader.history?.older()
        return true
      case 'end':
        feed.release()
        list.current?.toEnd()
        return true
      case 'live':
        if (reader.live) {
          feed.release()
          list.current?.toEnd()
        } else go({ since: undefined, until: undefined, at: undefined })
        return true
      case 'pause':
        if (!reader.live) list.current?.page(1)
        else if (feed.held.value) feed.release()
        else feed.hold(true)
        return true
      case 'open':
        if (row) open(row)
        return true
      case 'unfold':
        if (row) toggle(row)
        return true
      case 'nextError':
        void toError(1)
        return true
      case 'previousError':
        void toError(-1)
        return true
      case 'copyLine':
        if (row) void copy([row.line, ...row.frames].map(asText).join('\n'), 'Line')
        else toast('Choose a line first: j and k move from line to line')
        return true
      case 'copyLink':
        void copyLink(row)
        return true
      case 'download':
        saving.value = true
        return true
      case 'close':
        if (view.value.at !== undefined) go({ at: undefined })
        else if (reader.history?.state.value === 'reading') reader.history.cancel()
        else current.value = undefined
        return true
      default:
        return false
    }
  }

  const wanted = useMemo(
    () => (of.text === '' || of.regex || of.invert ? undefined : { text: of.text, matchCase: of.matchCase }),
    [of],
  )
  const withService = new Set(modules.value.map(({ service }) => service)).size > 1
  return (
    <div class={`lines-page ${sidebar.value === 'on' ? '' : 'no-sidebar'} ${now.at === undefined ? '' : 'with-panel'}`}>
      {sidebar.value === 'on' && <Sidebar />}
      {drawer.value && (
        <Dialog
          title="What is read"
          className="drawer"
          bare
          onClose={() => {
            drawer.value = false
          }}
        >
          <Sidebar
            onClose={() => {
              drawer.value = false
            }}
          />
        </Dialog>
      )}
      <main class="lines-main" id="main">
        <h1 class="offscreen">Lines</h1>
        <Toolbar
          onFilters={() => {
            drawer.value = true
          }}
        />
        {chart.value === 'on' && (
          <Histogram
            api={api}
            view={now}
            now={reader.now}
            onRange={({ since, until }) => go({ since: rfc3339(since), until: rfc3339(until), at: undefined })}
            onBy={(by) => go({ by }, 'replace')}
          />
        )}
        <Notices reader={reader} />
        <div class="log-box">
          <LogList
            key={feedKey(reader)}
            feed={feed}
            live={reader.live}
            current={current}
            unfolded={unfolded}
            wanted={wanted}
            withService={withService}
            onOpen={open}
            onToggle={toggle}
            handle={list}
            onStart={() => {
              if (reader.hasOlder) void reader.history?.older()
            }}
          />
          <Nothing reader={reader} />
          <CatchUp reader={reader} onCatchUp={() => act.current?.('live')} />
        </div>
        <StatusBar
          reader={reader}
          onPause={() => act.current?.('pause')}
          onOlder={() => void reader.history?.older()}
          onSave={() => {
            saving.value = true
          }}
        />
      </main>
      {now.at !== undefined && <LinePanel api={api} at={now.at} onClose={() => go({ at: undefined })} />}
      {saving.value && <Save reader={reader} saving={saving} />}
    </div>
  )
}

const keys = new WeakMap<Reader, number>()
let readers = 0
/** A list of its own for each reader. */
function feedKey(reader: Reader): number {
  if (!keys.has(reader)) keys.set(reader, readers++)
  return keys.get(reader)!
}

/** To the line where one is chosen; else to the view, whose times are nailed down: a link with `15m` shows other lines tomorrow. */
async function copyLink(row: Row | undefined): Promise<void> {
  const of = view.value
  if (row) return copy(linkTo(changed({ at: row.key })), 'Link to the line')
  if (of.since === undefined) return copy(linkTo(of), 'Link to the live view')
  const at = Date.now()
  const since = rfc3339(momentOf(of.since, at))
  const until = rfc3339(of.until === undefined ? at : momentOf(of.until, at))
  return copy(linkTo(changed({ since, until })), 'Link to the view, with its times,')
}

/** What an answer leaves out. */
function Notices({ reader: { tail, history } }: { reader: Reader }) {
  const failure = tail?.failure.value ?? history?.failure.value
  const missing = [...(tail?.gaps.value ?? []), ...(history?.partial.value ?? [])]
  return (
    <>
      {failure && (
        <div class="notice bad" role="alert">
          <Icon of={AlertTriangle} />
          <span class="grow">{failure}</span>
          {history && (
            <button type="button" onClick={() => void history.run()}>
              Try again
            </button>
          )}
        </div>
      )}
      {missing.length > 0 && (
        <details class="notice fair">
          <summary>
            <Icon of={AlertTriangle} />
            Something is missing here: {missing[0]!.message}
            {missing.length > 1 && `, and ${missing.length - 1} more`}
          </summary>
          <ul>
            {missing.map((gap, i) => (
              <li key={i}>
                {gap.consumer ?? gap.file ?? ''} {gap.message}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  )
}

/** Instead of lines, where there are none. */
function Nothing({ reader }: { reader: Reader }) {
  const { feed, tail, history, view: of } = reader
  void feed.version.value
  if (feed.length > 0) return null
  if (services.value && modules.value.length === 0) return <Empty />
  if (history?.state.value === 'reading' || tail?.state.value === 'connecting') {
    return (
      <div class="log-empty" role="status">
        <div class="spinner" />
        {history ? (of.text === '' ? 'Reading…' : 'Searching…') : 'Connecting…'}
      </div>
    )
  }
  if (tail) {
    return (
      <div class="log-empty" role="status">
        <p>
          <b>Nothing so far.</b>
        </p>
        <p class="muted">Lines appear here as they land{of.text === '' ? '' : ', when they match'}.</p>
      </div>
    )
  }
  if (history?.state.value !== 'done') return null
  return (
    <div class="log-empty" role="status">
      <p>
        <b>{of.text === '' ? 'No lines in this range.' : 'Nothing found in this range.'}</b>
      </p>
      <div class="log-empty-actions">
        <button type="button" onClick={() => go({ since: '7d', until: undefined })}>
          Look at the last 7 days
        </button>
        {(of.text !== '' || of.exclude.length > 0) && (
          <button type="button" onClick={() => go({ text: '', exclude: [] })}>
            Clear the search
          </button>
        )}
      </div>
    </div>
  )
}

function CatchUp({ reader: { feed, live }, onCatchUp }: { reader: Reader; onCatchUp(): void }) {
  if (!live || !feed.held.value) return null
  const waiting = feed.waiting.value
  return (
    <button type="button" class="catch-up" onClick={onCatchUp}>
      <Icon of={ArrowDownToLine} size={15} />
      {waiting === 0 ? 'Paused · follow' : `${counted(waiting, 'new line')} · follow`}
    </button>
  )
}

type StatusProps = { reader: Reader; onPause(): void; onOlder(): void; onSave(): void }

function StatusBar({ reader, onPause, onOlder, onSave }: StatusProps) {
  const { feed, tail, history } = reader
  void feed.version.value
  const dropped = feed.dropped.value
  const progress = history?.progress.value
  const reading = history?.state.value === 'reading'
  return (
    <footer class="status">
      {tail && (
        <>
          <button type="button" class="ghost small" onClick={onPause} aria-pressed={feed.held.value}>
            <Icon of={feed.held.value ? Play : Pause} size={13} />
            {feed.held.value ? 'Go on' : 'Pause'}
          </button>
          <span class={`live-state ${feed.held.value ? 'held' : tail.state.value}`} role="status">
            <span class="pulse" />
            {feed.held.value
              ? 'Paused'
              : { connecting: 'Connecting…', live: 'Live', broken: 'Reconnecting…', refused: 'Refused' }[
                  tail.state.value
                ]}
          </span>
        </>
      )}
      <span class="numbers">{counted(feed.length, 'row')}</span>
      {dropped > 0 && (
        <span class="dropped" title="Lines that this page let go of, to stay quick. They are in the files.">
          {exact(dropped)} older not shown
        </span>
      )}
      {tail && tail.missed.value > 0 && (
        <span class="dropped bad" title="Lines came faster than this page takes them. They are in the files.">
          {exact(tail.missed.value)} skipped: too fast for this page
        </span>
      )}
      {history && reading && (
        <>
          <span class="reading" role="status">
            {progress?.queued
              ? `Waiting: ${exact(progress.queued)} ahead of it`
              : progress
                ? `Searched ${bytes(progress.bytes)} of ${bytes(progress.bytesTotal)} in ${exact(progress.files)} of ${exact(progress.filesTotal)} files`
                : 'Reading…'}
          </span>
          <progress
            aria-label="How far the search is"
            {...(progress && progress.bytesTotal > 0 ? { value: progress.bytes / progress.bytesTotal, max: 1 } : {})}
          />
          <button type="button" class="ghost small" onClick={() => history.cancel()}>
            <Icon of={X} size={13} /> Cancel
          </button>
        </>
      )}
      {history && !reading && (
        <>
          {history.state.value === 'cancelled' && <span class="dropped">cancelled: not all was searched</span>}
          {reader.hasOlder && (
            <button type="button" class="ghost small" onClick={onOlder}>
              There are earlier ones: load
            </button>
          )}
          {history.limited.value && !reader.hasOlder && (
            <span class="dropped">
              no more than {exact(HISTORY_CAPACITY)} are loaded: narrow the range, or download
            </span>
          )}
          {history.state.value === 'done' && !history.limited.value && <span class="muted">all of the range</span>}
        </>
      )}
      <span class="grow" />
      {downloading.value ? (
        <button type="button" class="ghost small" onClick={() => downloading.value?.cancel()}>
          <Icon of={X} size={13} /> {exact(downloading.value.lines)} lines… cancel
        </button>
      ) : (
        <button type="button" class="ghost small" onClick={onSave}>
          <Icon of={Download} size={13} /> Download
        </button>
      )}
    </footer>
  )
}

function Save({ reader, saving }: { reader: Reader; saving: Signal<boolean> }) {
  const close = (): void => {
    saving.value = false
  }
  const save = (format: 'text' | 'ndjson'): void => {
    close()
    if (reader.live) {
      const lines = [...reader.feed].flatMap(({ line, frames }) => [line, ...frames])
      toast(saveLines(lines, reader.view, format))
    } else void download(api, reader.view, format).then((words) => toast(words))
  }
  return (
    <Dialog title="Download" className="save" onClose={close}>
      <p>
        {reader.live
          ? `The ${counted(reader.feed.length, 'row')} that the live view holds. Choose a range to download all of it.`
          : 'Every line of the range that the filters let through, whether it is loaded here or not.'}
      </p>
      <div class="save-choices">
        <button type="button" class="primary" onClick={() => save('text')}>
          Text
        </button>
        <button type="button" onClick={() => save('ndjson')}>
          NDJSON
        </button>
      </div>
    </Dialog>
  )
}
