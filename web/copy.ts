/** To the clipboard. What is copied from lines holds no control characters: it may well be pasted into a terminal. */
import type { Line } from '../consumer/api-schema.ts'
import { plain } from './printable.ts'
import { toast } from './toast.tsx'

/** As the files have it in their text format. */
export const asText = ({ time, container, source, line }: Line): string =>
  `${time} ${container}${source === 'stderr' ? '!' : ''} ${plain(line)}`

/** @param what is told once it is done */
export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    // Without TLS there is no clipboard for scripts, but for what is selected.
    if (!copySelected(text)) return toast('The browser does not let this page copy. Select the text and copy it.', true)
  }
  toast(`${what} copied`)
}

function copySelected(text: string): boolean {
  const area = document.createElement('textarea')
  area.value = text
  area.className = 'offscreen'
  const focused = document.activeElement as HTMLElement | null
  document.body.append(area)
  area.select()
  const done = document.execCommand('copy')
  area.remove()
  focused?.focus()
  return done
}
