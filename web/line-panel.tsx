/** The panel of an opened line: all that is known of it, and what stands around it in its file. */

import { useSignal } from '@preact/signals'
import { ArrowDown, ArrowUp, Copy, Link, X } from 'lucide'
import { useEffect, useRef } from 'preact/hooks'
import type { ContextAnswer, Line } from '../consumer/api-schema.ts'
import type { Api } from './api.ts'
import { hueOf } from './catalog.ts'
import { asText, copy } from './copy.ts'
import { Icon } from './icon.tsx'
import { fieldsOf } from './json.ts'
import { JsonTree } from './json-tree.tsx'
import { levelOf } from './level.ts'
import { Pieces } from './pieces.tsx'
import { plain } from './printable.ts'
import { changed, go, linkTo, view } from './route.ts'
import { clock, stamp, zoneName } from './words.ts'

const AROUND = 12
const MORE = 50
const MOST = 1_000
/** A longer line is not read as JSON. */
const JSON_MAX = 512 * 1024

export function LinePanel({ api, at, onClose }: { api: Api; at: string; onClose(): void }) {
  const answer = useSignal<ContextAnswer | undefined>(undefined)
  const failure = useSignal<string | undefined>(undefined)
  const around = useSignal({ before: AROUND, after: AROUND })
  const panel = useRef<HTMLElement>(null)
  const seen = useRef(at)
  if (seen.current !== at) {
    seen.current = at
    around.value = { before: AROUND, after: AROUND }
  }
  const { before, after } = around.value
  useEffect(() => {
    const ended = new AbortController()
    const query = new URLSearchParams({ at, before: String(before), after: String(after) })
    api.get<ContextAnswer>('/context', query, ended.signal).then(
      (given) => {
        answer.value = given
        failure.value = undefined
      },
      (error: Error) => {
        if (ended.signal.aborted) return
        answer.value = undefined
        failure.value = error.message
      },
    )
    return () => ended.abort()
  }, [api, at, before, after, answer, failure])

  const line = answer.value?.lines[answer.value.index]
  return (
    <aside class="panel" aria-label="Line" ref={panel}>
      <header class="panel-head">
        <h2>Line</h2>
        <span class="grow" />
        <button type="button" class="ghost" onClick={() => void copy(linkTo(changed({ at })), 'Link')}>
          <Icon of={Link} size={14} /> Link
        </button>
        {line && (
          <button type="button" class="ghost" onClick={() => void copy(asText(line), 'Line')}>
            <Icon of={Copy} size={14} /> Copy
          </button>
        )}
        <button type="button" class="ghost square" aria-label="Close" onClick={onClose}>
          <Icon of={X} />
        </button>
      </header>
      <div class="panel-body" tabIndex={0} role="region" aria-label="About the line">
        {failure.value && (
          <div class="notice bad" role="alert">
            {failure.value}
          </div>
        )}
        {!failure.value && !line && <div class="skeleton-row" />}
        {line && <About line={line} />}
        {answer.value && line && (
          <Around
            answer={answer.value}
            onMore={(change) => {
              around.value = {
                before: Math.min(MOST, before + (change === 'before' ? MORE : 0)),
                after: Math.min(MOST, after + (change === 'after' ? MORE : 0)),
              }
            }}
            asked={around.value}
          />
        )}
      </div>
    </aside>
  )
}

function About({ line }: { line: Line }) {
  const time = new Date(line.time)
  const json = fieldsOf(line.line, JSON_MAX)
  const name = `${line.service}/${line.module}`
  const level = levelOf(line.line)
  return (
    <>
      <dl class="facts">
        <dt>Time</dt>
        <dd>
          {stamp(time)} <span class="muted">{zoneName()}</span>
        </dd>
        <dt>Module</dt>
        <dd>
          <button
            type="button"
            class={`link hue-${hueOf(name)}`}
            onClick={() => go({ targets: [name] })}
            title="Read this module alone"
          >
            {name}
          </button>
        </dd>
        <dt>Host</dt>
        <dd>
          <button type="button" class="link" onClick={() => go({ hosts: [line.host] })} title="Read this host alone">
            {line.host}
          </button>
        </dd>
        <dt>Container</dt>
        <dd>
          <button
            type="button"
            class="link"
            onClick={() => go({ containers: [line.container] })}
            title="Read this container alone"
          >
            {line.container}
          </button>
        </dd>
        <dt>Source</dt>
        <dd>
          {line.source}
          {level && <span class={`level ${level}`}>{level}</span>}
        </dd>
        <dt>File</dt>
        <dd>
          <code>{line.file}</code> <span class="muted">at byte {line.position.toLocaleString('en')}</span>
        </dd>
      </dl>
      {json ? (
        <div class="panel-tree">
          <JsonTree value={json} />
        </div>
      ) : (
        <pre class="panel-text">
          <Pieces text={line.line} whole />
          {line.line === '' && <span class="muted">(an empty line)</span>}
        </pre>
      )}
      <div class="panel-actions">
        <button type="button" onClick={() => void copy(plain(line.line), 'Text')}>
          Copy text
        </button>
        <button type="button" onClick={() => rangeAround(time)}>
          All lines around this time
        </button>
      </div>
    </>
  )
}

/** Ten minutes around a line, of all that is selected, with nothing looked for. */
function rangeAround(time: Date): void {
  const iso = (ms: number): string => new Date(ms).toISOString()
  go({
    text: '',
    exclude: [],
    since: iso(time.getTime() - 300_000),
    until: iso(time.getTime() + 300_000),
    at: view.value.at,
  })
}

type AroundProps = {
  answer: ContextAnswer
  asked: { before: number; after: number }
  onMore(which: 'before' | 'after'): void
}

function Around({ answer: { lines, index, partial }, asked, onMore }: AroundProps) {
  const hit = useRef<HTMLDivElement>(null)
  useEffect(() => {
    hit.current?.scrollIntoView({ block: 'nearest' })
  }, [lines[index]?.at])
  return (
    <section class="around-section">
      <h3>Around it in its file</h3>
      {partial[0] && <p class="notice fair">Something is missing here: {partial[0].message}</p>}
      <button
        type="button"
        class="more"
        disabled={index < asked.before || asked.before >= MOST}
        onClick={() => onMore('before')}
      >
        <Icon of={ArrowUp} size={13} />
        {index < asked.before ? 'The file begins here' : 'Earlier'}
      </button>
      <div class="around-lines" role="list">
        {lines.map((line, i) => {
          const level = levelOf(line.line)
          return (
            <div
              key={line.at}
              role="listitem"
              ref={i === index ? hit : null}
              class={`around-line ${level ? `level-${level}` : ''} ${i === index ? 'hit' : ''}`}
            >
              <button
                type="button"
                class="around-time"
                onClick={() => go({ at: line.at }, 'replace')}
                aria-label={`Open the line of ${clock(new Date(line.time))}`}
              >
                {clock(new Date(line.time))}
              </button>
              <span class="around-text">
                <Pieces text={line.line} />
              </span>
            </div>
          )
        })}
      </div>
      <button
        type="button"
        class="more"
        disabled={lines.length - 1 - index < asked.after || asked.after >= MOST}
        onClick={() => onMore('after')}
      >
        <Icon of={ArrowDown} size={13} />
        {lines.length - 1 - index < asked.after ? 'The file ends here' : 'Later'}
      </button>
    </section>
  )
}
