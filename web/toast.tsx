/** A word that comes and goes: that something was copied, or why not. */
import { signal } from '@preact/signals'

const SHOWN_MS = 4_000
const shown = signal<{ text: string; bad: boolean } | undefined>(undefined)
let timer: ReturnType<typeof setTimeout> | undefined

export function toast(text: string, bad = false): void {
  shown.value = { text, bad }
  clearTimeout(timer)
  timer = setTimeout(() => {
    shown.value = undefined
  }, SHOWN_MS)
}

export function Toast() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {shown.value && <div class={shown.value.bad ? 'toast bad' : 'toast'}>{shown.value.text}</div>}
    </div>
  )
}
