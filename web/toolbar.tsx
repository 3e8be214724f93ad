/** The toolbar: what is looked for and left out, and over which time. */
import { useSignal } from '@preact/signals'
import type { IconNode } from 'lucide'
import { CaseSensitive, ChevronDown, Filter, Radio, Regex, Search, WholeWord, X } from 'lucide'
import { useEffect, useRef } from 'preact/hooks'
import { Icon } from './icon.tsx'
import { isMoment, momentOf, readMoment } from './moment.ts'
import { zone } from './preferences.ts'
import { go, view } from './route.ts'
import type { View } from './view.ts'
import { stamp, zoneName } from './words.ts'

type Flag = 'matchCase' | 'word' | 'regex' | 'invert'
const FLAGS: [Flag, IconNode, string][] = [
  ['matchCase', CaseSensitive, 'Match case'],
  ['word', WholeWord, 'Whole words'],
  ['regex', Regex, 'Regular expressions'],
]

/** How long after the last letter it is searched, ms. */
const TYPED_MS = 400

export function Toolbar({ onFilters }: { onFilters(): void }) {
  const { text, exclude } = view.value
  const typed = useSignal(text)
  const adding = useSignal('')
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined)
  // Back and forward change what is looked for, too.
  useEffect(() => {
    typed.value = text
  }, [text, typed])
  const search = (how: 'push' | 'replace'): void => {
    clearTimeout(timer.current)
    if (typed.value !== view.value.text) go({ text: typed.value, at: undefined }, how)
  }
  const add = (): void => {
    const value = adding.value.trim()
    adding.value = ''
    if (value !== '' && !view.value.exclude.includes(value))
      go({ exclude: [...view.value.exclude, value], at: undefined })
  }
  return (
    <search class="toolbar">
      <button type="button" class="ghost square only-small" aria-label="Services and hosts" onClick={onFilters}>
        <Icon of={Filter} />
      </button>
      <div class="search">
        <Icon of={Search} />
        <input
          id="search"
          type="text"
          placeholder={view.value.regex ? 'Search by a regular expression' : 'Search'}
          aria-label="Search"
          aria-keyshortcuts="/"
          spellcheck={false}
          autocomplete="off"
          value={typed.value}
          onInput={(event) => {
            typed.value = event.currentTarget.value
            clearTimeout(timer.current)
            timer.current = setTimeout(() => search('replace'), TYPED_MS)
          }}
          onKeyDown={(event) => event.key === 'Enter' && search('push')}
          onBlur={() => search('replace')}
        />
        {typed.value !== '' && (
          <button
            type="button"
            class="ghost small"
            aria-label="Clear the search"
            onClick={() => {
              typed.value = ''
              search('push')
            }}
          >
            <Icon of={X} size={14} />
          </button>
        )}
        <div class="flags">
          {FLAGS.map(([flag, icon, name]) => (
            <button
              key={flag}
              type="button"
              class="flag"
              title={name}
              aria-label={name}
              aria-pressed={view.value[flag]}
              onClick={() => go({ [flag]: !view.value[flag], at: undefined })}
            >
              <Icon of={icon} size={17} />
            </button>
          ))}
          <button
            type="button"
            class="flag words"
            title="Lines that do not match"
            aria-pressed={view.value.invert}
            onClick={() => go({ invert: !view.value.invert, at: undefined })}
          >
            not
          </button>
        </div>
      </div>
      <div class="excludes">
        {exclude.map((value) => (
          <span key={value} class="exclude">
            <span>−</span>
            <code>{value}</code>
            <button
              type="button"
              aria-label={`No longer leave out ${value}`}
              onClick={() => go({ exclude: view.value.exclude.filter((one) => one !== value), at: undefined })}
            >
              <Icon of={X} size={12} />
            </button>
          </span>
        ))}
        <input
          id="exclude"
          type="text"
          placeholder="Leave out…"
          aria-label="Leave out lines with"
          aria-keyshortcuts="-"
          spellcheck={false}
          autocomplete="off"
          value={adding.value}
          onInput={(event) => {
            adding.value = event.currentTarget.value
          }}
          onKeyDown={(event) => event.key === 'Enter' && add()}
          onBlur={add}
        />
      </div>
      <RangePicker />
    </search>
  )
}

const RANGES: [moment: string, name: string][] = [
  ['15m', 'Last 15 minutes'],
  ['1h', 'Last hour'],
  ['6h', 'Last 6 hours'],
  ['24h', 'Last 24 hours'],
  ['7d', 'Last 7 days'],
  ['30d', 'Last 30 days'],
]

/** A range as its button tells it. */
function rangeName({ since, until }: View): string {
  if (since === undefined) return 'Live'
  const known = RANGES.find(([moment]) => moment === since)
  if (known && until === undefined) return known[1]
  const word = (moment: string): string =>
    /^\d+[smhdw]$/.test(moment) ? `${moment} ago` : stamp(new Date(moment), false).replace(/:00$/, '')
  return `${word(since)} – ${until === undefined ? 'now' : word(until)}`
}

function RangePicker() {
  const open = useSignal(false)
  const failure = useSignal<string | undefined>(undefined)
  const box = useRef<HTMLDivElement>(null)
  const { since, until } = view.value
  useEffect(() => {
    if (!open.value) return
    const away = (event: Event): void => {
      if (!box.current?.contains(event.target as Node)) open.value = false
    }
    document.addEventListener('pointerdown', away)
    document.addEventListener('focusin', away)
    return () => {
      document.removeEventListener('pointerdown', away)
      document.removeEventListener('focusin', away)
    }
  }, [open.value, open])
  const choose = (range: { since?: string | undefined; until?: string | undefined }): void => {
    open.value = false
    go({ since: undefined, until: undefined, at: undefined, ...range })
    box.current?.querySelector('button')?.focus()
  }
  const apply = (event: SubmitEvent): void => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const read = (name: string): string | undefined =>
      readMoment(String(form.get(name) ?? ''), Date.now(), zone.value === 'utc')
    const from = read('since')
    const to = read('until')
    const words = 'write it as 90m, 14:30, 2026-11-23 or 2026-11-23 14:30'
    if (from === undefined) failure.value = `“From” is no time: ${words}`
    else if (to === undefined && String(form.get('until') ?? '').trim() !== '')
      failure.value = `“To” is no time: ${words}`
    else if (to !== undefined && momentOf(to, Date.now()) <= momentOf(from, Date.now())) {
      failure.value = '“To” has to be later than “From”.'
    } else {
      failure.value = undefined
      choose({ since: from, until: to })
    }
  }
  const typed = (moment: string | undefined): string =>
    moment === undefined || (isMoment(moment) && !moment.includes('T')) ? (moment ?? '') : stamp(new Date(moment))
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: Escape closes what is open in here
    <div
      class="range"
      ref={box}
      onKeyDown={(event) => {
        if (event.key !== 'Escape' || !open.value) return
        event.stopPropagation()
        open.value = false
        box.current?.querySelector('button')?.focus()
      }}
    >
      <button
        type="button"
        class={`range-button ${since === undefined ? 'live' : ''}`}
        aria-haspopup="dialog"
        aria-expanded={open.value}
        onClick={() => {
          open.value = !open.value
        }}
      >
        {since === undefined ? <Icon of={Radio} /> : null}
        <span>{rangeName(view.value)}</span>
        <Icon of={ChevronDown} size={14} />
      </button>
      {open.value && (
        <div class="popover range-popover" role="dialog" aria-label="Time range">
          <div class="range-quick">
            <button type="button" aria-pressed={since === undefined} onClick={() => choose({})}>
              <Icon of={Radio} size={14} /> Live
            </button>
            {RANGES.map(([moment, name]) => (
              <button
                key={moment}
                type="button"
                aria-pressed={since === moment && until === undefined}
                onClick={() => choose({ since: moment })}
              >
                {name}
              </button>
            ))}
          </div>
          <form class="range-form" onSubmit={(event) => apply(event as SubmitEvent)}>
            <label>
              From
              <input name="since" defaultValue={typed(since)} placeholder="90m, 14:30, 2026-11-23" autocomplete="off" />
            </label>
            <label>
              To
              <input name="until" defaultValue={typed(until)} placeholder="now" autocomplete="off" />
            </label>
            <p class="failure" role="alert">
              {failure.value}
            </p>
            <div class="range-foot">
              <span class="muted">{zoneName()}</span>
              <button type="submit" class="primary">
                Apply
              </button>
            </div>
          </form>
        </div>
      )}
    </div>
  )
}
