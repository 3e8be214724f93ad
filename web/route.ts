/** The view that the address bar holds, and going to another. */
import { signal } from '@preact/signals'
import { EMPTY, searchOf, type View, viewOf } from './view.ts'

export const view = signal<View>(viewOf(location.search))

addEventListener('popstate', () => {
  view.value = viewOf(location.search)
})

type Change = { [Key in keyof View]?: View[Key] | undefined }

/** The view with some of it changed; undefined takes a key away. */
export function changed(change: Change, from: View = view.value): View {
  const next = { ...from, ...change }
  for (const key of ['since', 'until', 'at'] as const) if (next[key] === undefined) delete next[key]
  if (next.since === undefined) delete next.until
  return next as View
}

/** @param how `replace` where going back should not lead here */
export function go(change: Change, how: 'push' | 'replace' = 'push'): void {
  show(changed(change), how)
}

/** Lines of a selection, live, with nothing else of the view before. */
export function goToLines(selection: Partial<View>): void {
  show({ ...EMPTY, ...selection }, 'push')
}

function show(next: View, how: 'push' | 'replace'): void {
  const search = searchOf(next)
  // The address is the view: what it does not hold is not shown.
  if (search !== searchOf(view.value)) history[`${how}State`](null, '', search === '' ? location.pathname : search)
  view.value = viewOf(search)
}

/** A link to a view. */
export const linkTo = (to: View): string => new URL(searchOf(to) || location.pathname, location.href).href
