/** How somebody likes the page to look: kept in this browser alone, and never part of a link. */
import { effect, type Signal, signal } from '@preact/signals'

export type Theme = 'system' | 'light' | 'dark'
type Density = 'cosy' | 'compact'
type Zone = 'local' | 'utc'

const PREFIX = 'tallyman.'

/** A preference that outlives the page; where the browser keeps nothing for us it lives as long as the page does. */
function kept<T extends string>(name: string, choices: readonly T[], first: T): Signal<T> {
  let found: string | null = null
  try {
    found = localStorage.getItem(PREFIX + name)
  } catch {
    // Storage is switched off.
  }
  const preference = signal<T>(choices.find((choice) => choice === found) ?? first)
  effect(() => {
    const { value } = preference
    try {
      localStorage.setItem(PREFIX + name, value)
    } catch {
      // Storage is switched off, or full.
    }
  })
  return preference
}

export const theme = kept<Theme>('theme', ['system', 'light', 'dark'], 'system')
export const density = kept<Density>('density', ['cosy', 'compact'], 'cosy')
export const zone = kept<Zone>('zone', ['local', 'utc'], 'local')
export const wrap = kept<'on' | 'off'>('wrap', ['on', 'off'], 'off')
export const fields = kept<'on' | 'off'>('fields', ['on', 'off'], 'on')
export const chart = kept<'on' | 'off'>('chart', ['on', 'off'], 'on')
export const sidebar = kept<'on' | 'off'>('sidebar', ['on', 'off'], 'on')

/** The next of a preference's choices. */
export const toggle = (of: Signal<'on' | 'off'>): void => {
  of.value = of.value === 'on' ? 'off' : 'on'
}
const THEMES: readonly Theme[] = ['system', 'light', 'dark']
export const nextTheme = (): void => {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!
}

/** Brings the preferences that are a matter of style onto the document. */
export function applyPreferences(to: HTMLElement): void {
  effect(() => {
    if (theme.value === 'system') delete to.dataset['theme']
    else to.dataset['theme'] = theme.value
    to.dataset['density'] = density.value
  })
}
