/** The page as a whole: header, one of its two pages, what lies over them, and the keys. */
import { useSignal } from '@preact/signals'
import { CircleHelp, LogOut, Moon, PanelLeft, Search, SlidersHorizontal, Sun, SunMoon } from 'lucide'
import { useEffect, useRef } from 'preact/hooks'
import { status } from './catalog.ts'
import { Dialog } from './dialog.tsx'
import { Icon } from './icon.tsx'
import { type Command, commandOf } from './keys.ts'
import { KeysHelp } from './keys-help.tsx'
import { type Act, LinesPage } from './lines-page.tsx'
import { Login } from './login.tsx'
import { follow, LedgerChip, Overview } from './overview.tsx'
import { Picker } from './picker.tsx'
import * as preferences from './preferences.ts'
import { go, linkTo, view } from './route.ts'
import { admitted, logOut, session, unreachable } from './session.ts'
import { Toast } from './toast.tsx'
import { zoneName } from './words.ts'

type Over = 'help' | 'picker' | 'settings' | undefined

export function App() {
  const over = useSignal<Over>(undefined)
  const act = useRef<Act | undefined>(undefined)
  const onLines = view.value.page === 'lines'

  const run = (command: Command): void => {
    const { toggle } = preferences
    switch (command) {
      case 'help':
      case 'picker':
        over.value = command
        return
      case 'overview':
        go({ page: 'overview', at: undefined })
        return
      case 'lines':
        go({ page: 'lines' })
        return
      case 'wrap':
        toggle(preferences.wrap)
        return
      case 'fields':
        toggle(preferences.fields)
        return
      case 'chart':
        toggle(preferences.chart)
        return
      case 'sidebar':
        toggle(preferences.sidebar)
        return
      case 'theme':
        preferences.nextTheme()
        return
      case 'zone':
        preferences.zone.value = preferences.zone.value === 'utc' ? 'local' : 'utc'
        return
      case 'density':
        preferences.density.value = preferences.density.value === 'cosy' ? 'compact' : 'cosy'
        return
      case 'search':
      case 'exclude':
        if (!onLines) go({ page: 'lines' })
        queueMicrotask(() => (document.getElementById(command) as HTMLInputElement | null)?.select())
        return
      default:
        act.current?.(command)
    }
  }

  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.isComposing || document.querySelector('dialog[open]')) return
      const command = commandOf(event)
      if (!command || !session.value || !admitted(session.value)) return
      const target = event.target as HTMLElement
      const types = target.matches('input:not([type=checkbox]), textarea, select, [contenteditable]')
      // In a field a letter is a letter. Escape leaves it.
      if (types && command === 'close') {
        target.blur()
        return
      }
      if (types && !event.ctrlKey && !event.metaKey) return
      // A button is pressed by these.
      if ((event.key === 'Enter' || event.key === ' ') && target.closest('button, a, summary, input, label')) return
      event.preventDefault()
      run(command)
    }
    addEventListener('keydown', pressed)
    return () => removeEventListener('keydown', pressed)
  })

  if (!session.value) return <Starting />
  if (!admitted(session.value)) return <Login />
  const away = [...(status.value?.partial ?? [])]
  return (
    <div class="app">
      <a class="skip" href="#main">
        Skip to the lines
      </a>
      <header class="top">
        <a class="brand" aria-label="tallyman" href={linkTo({ ...view.value, page: 'overview' })} onClick={follow}>
          <img src="./mark.svg" alt="" width="22" height="22" />
          <span>tallyman</span>
        </a>
        <nav class="tabs" aria-label="Pages">
          <a
            href={linkTo({ ...view.value, page: 'overview' })}
            onClick={follow}
            aria-current={onLines ? undefined : 'page'}
          >
            Overview
          </a>
          <button
            type="button"
            class="tab"
            onClick={() => go({ page: 'lines' })}
            aria-current={onLines ? 'page' : undefined}
          >
            Lines
          </button>
        </nav>
        <button
          type="button"
          class="pick"
          onClick={() => {
            over.value = 'picker'
          }}
        >
          <Icon of={Search} size={14} />
          <span>Go to a service…</span>
          <kbd>Ctrl K</kbd>
        </button>
        <span class="grow" />
        {away.length > 0 && (
          <span class="chip bad" title={away.map(({ message }) => message).join('\n')}>
            {away.length === 1 ? 'a consumer is away' : `${away.length} consumers are away`}
          </span>
        )}
        <LedgerChip />
        {onLines && (
          <button
            type="button"
            class="ghost square not-small"
            aria-label="Sidebar"
            aria-pressed={preferences.sidebar.value === 'on'}
            onClick={() => run('sidebar')}
          >
            <Icon of={PanelLeft} />
          </button>
        )}
        <button
          type="button"
          class="ghost square"
          aria-label="How it looks"
          onClick={() => {
            over.value = 'settings'
          }}
        >
          <Icon of={SlidersHorizontal} />
        </button>
        <button type="button" class="ghost square not-small" aria-label="Keys" onClick={() => run('help')}>
          <Icon of={CircleHelp} />
        </button>
        {session.value.required && (
          <button
            type="button"
            class="ghost square"
            aria-label={`Log out ${session.value.name}`}
            title={`Log out ${session.value.name}`}
            onClick={() => void logOut()}
          >
            <Icon of={LogOut} />
          </button>
        )}
      </header>
      {onLines ? <LinesPage act={act} /> : <Overview />}
      {over.value === 'help' && <KeysHelp onClose={() => (over.value = undefined)} />}
      {over.value === 'picker' && <Picker onClose={() => (over.value = undefined)} onCommand={run} />}
      {over.value === 'settings' && <Settings onClose={() => (over.value = undefined)} />}
      <Toast />
    </div>
  )
}

const Starting = () => (
  <main class="login">
    <div class="login-card" role="status">
      {unreachable.value ? (
        <>
          <h1>No answer</h1>
          <p class="muted">{unreachable.value}</p>
        </>
      ) : (
        <div class="spinner" />
      )}
    </div>
  </main>
)

function Settings({ onClose }: { onClose(): void }) {
  const { theme, density, zone, wrap, fields, chart } = preferences
  return (
    <Dialog title="How it looks" className="settings" onClose={onClose}>
      <Choice
        name="Theme"
        of={theme}
        choices={{ system: [SunMoon, 'System'], light: [Sun, 'Light'], dark: [Moon, 'Dark'] }}
      />
      <Choice name="Rows" of={density} choices={{ cosy: [undefined, 'Cosy'], compact: [undefined, 'Compact'] }} />
      <Choice
        name="Times"
        of={zone}
        choices={{
          local: [undefined, Intl.DateTimeFormat().resolvedOptions().timeZone || 'Local'],
          utc: [undefined, 'UTC'],
        }}
      />
      <Choice name="Long lines" of={wrap} choices={{ off: [undefined, 'One row'], on: [undefined, 'Wrap'] }} />
      <Choice
        name="JSON"
        of={fields}
        choices={{ on: [undefined, 'Message and fields'], off: [undefined, 'As printed'] }}
      />
      <Choice name="Histogram" of={chart} choices={{ on: [undefined, 'Shown'], off: [undefined, 'Hidden'] }} />
      <p class="muted">Kept in this browser. Times are shown in {zoneName()}.</p>
    </Dialog>
  )
}

type ChoiceProps<T extends string> = {
  name: string
  of: { value: T }
  choices: Record<T, [icon: Parameters<typeof Icon>[0]['of'] | undefined, name: string]>
}

function Choice<T extends string>({ name, of, choices }: ChoiceProps<T>) {
  return (
    <fieldset class="choice">
      <legend>{name}</legend>
      <div class="segments">
        {(Object.keys(choices) as T[]).map((value) => (
          <button
            key={value}
            type="button"
            aria-pressed={of.value === value}
            onClick={() => {
              of.value = value
            }}
          >
            {choices[value][0] && <Icon of={choices[value][0]} size={14} />}
            {choices[value][1]}
          </button>
        ))}
      </div>
    </fieldset>
  )
}
