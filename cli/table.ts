/** Tables, numbers and bars of the terminal. */
import Table from 'cli-table3'
import prettyBytes from 'pretty-bytes'
import { dim } from './colours.ts'

const sides = ['top', 'bottom', 'left', 'right', 'mid']
const corners = ['mid', 'left', 'right'].flatMap((end) => ['top', 'bottom'].map((side) => `${side}-${end}`))
/** No lines around and between: two blanks keep columns apart. */
const chars = {
  ...Object.fromEntries([...sides, ...corners, 'left-mid', 'mid-mid', 'right-mid'].map((part) => [part, ''])),
  middle: '  ',
}

/** @param text columns up to this one are texts, the others numbers. @param colours whether the head is dimmed */
export function table(head: string[], rows: string[][], texts: number, colours = false): string {
  const colAligns = head.map((_, i) => (i < texts ? ('left' as const) : ('right' as const)))
  const style = { 'padding-left': 0, 'padding-right': 0, head: [], border: [] }
  const drawn = new Table({ head: colours ? head.map(dim) : head, colAligns, chars, style })
  drawn.push(...rows)
  return drawn.toString()
}

export const number = (n: number): string => n.toLocaleString('en')

export const bytes = (n: number): string =>
  prettyBytes(n, { minimumFractionDigits: n < 1000 ? 0 : 1, maximumFractionDigits: 1 })

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']

/** A bar of block characters, as long as its share of the most; whatever is more than nothing can be seen. */
export function bar(value: number, most: number, width: number): string {
  if (value <= 0 || most <= 0) return ''
  const eighths = Math.max(1, Math.round((8 * width * value) / most))
  return '█'.repeat(Math.floor(eighths / 8)) + EIGHTHS[eighths % 8]
}
