/** Colours of the terminal: whether there are any, what is shown in which, and lines that bring their own. */
import { harmless, hasControl, pieces } from './control-sequences.ts'

export type When = 'auto' | 'always' | 'never'

/** What a stretch of a line is shown in, the later over the earlier. */
export const STYLES = {
  plain: '',
  trace: '2',
  debug: '34',
  info: '32',
  warn: '33',
  error: '31',
  fatal: '1;31',
  key: '36',
  highlight: '30;43',
  match: '1;31',
} as const
export type Style = keyof typeof STYLES
const STYLE_NAMES = Object.keys(STYLES) as Style[]

export type Span = { from: number; to: number; style: Style }

const RESET = '\x1b[0m'

export const inColour = (sgr: string, text: string): string => `\x1b[${sgr}m${text}${RESET}`
export const dim = (text: string): string => inColour('2', text)

/**
 * Colours of modules: of the 256, those that are read well on black and on white, far enough apart; red and yellow mean something
 * else here.
 */
const MODULE_COLOURS = [
  33, 37, 64, 67, 71, 73, 98, 104, 107, 110, 133, 136, 139, 140, 168, 172, 175, 38, 61, 97, 65, 132,
]

/** The colour of a module: it is the same wherever and whenever it is shown. FNV-1a of its name. */
export function moduleColour(name: string): string {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return `38;5;${MODULE_COLOURS[(hash >>> 0) % MODULE_COLOURS.length]}`
}

type Terminal = { isTTY?: boolean; hasColors?(): boolean }

/** `auto` is a terminal that has colours, and nobody who says NO_COLOR (no-color.org). */
export function useColours(when: When, stream: Terminal, env: NodeJS.ProcessEnv): boolean {
  if (when !== 'auto') return when === 'always'
  if (env['NO_COLOR']) return false
  return stream.isTTY === true && (stream.hasColors?.() ?? true)
}

/**
 * A line with its spans in their styles. The line's own colours go on behind each of them.
 * @param strip whether control sequences are left out, because a terminal reads it
 */
export function paint(line: string, spans: readonly Span[], strip: boolean): string {
  const own = hasControl(line)
  if (spans.length === 0) return strip && own ? harmless(line, true) : line
  const style = new Uint8Array(line.length)
  for (const name of STYLE_NAMES) {
    for (const span of spans) if (span.style === name) style.fill(STYLE_NAMES.indexOf(name), span.from, span.to)
  }
  let text = ''
  /** The line's own colours, as they are now. */
  let colours = ''
  const show = (from: number, to: number): void => {
    for (let at = from; at < to; ) {
      let end = at + 1
      while (end < to && style[end] === style[at]) end++
      const sgr = STYLES[STYLE_NAMES[style[at]!]!]
      const part = line.slice(at, end)
      text += sgr === '' ? part : `\x1b[${sgr}m${part}${RESET}${colours}`
      at = end
    }
  }
  for (const { kind, from, to } of own ? pieces(line) : [{ kind: 'text' as const, from: 0, to: line.length }]) {
    const part = line.slice(from, to)
    if (kind === 'text') show(from, to)
    else if (kind === 'colour') {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape that begins a colour
      colours = /^\x1b\[(?:0?|0;0)m$/.test(part) ? '' : colours + part
      text += part
    } else if (!strip) text += part
  }
  return colours === '' ? text : `${text}${RESET}`
}
