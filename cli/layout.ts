/**
 * How a line is printed.
 *
 *   text   `2026-11-23T08:24:41.123Z shop/api web-1 the line`, for stderr `… web-1! the line`; the module is left out where it is
 *          the only one that was asked for, as grep does with the name of a file
 *   raw    what the app wrote, and nothing else
 *   json   the line as the API has it, one object a line
 *
 * Invariants
 * - What goes to anything but a terminal has the app's bytes as they were, colours and control sequences too.
 * - What goes to a terminal has no control sequence but SGR, and no SGR where colours are off.
 */
import type { Line } from '../consumer/api-schema.ts'
import { dim, inColour, moduleColour, paint, type Span, STYLES } from './colours.ts'
import { harmless } from './control-sequences.ts'
import { unfold } from './json-line.ts'
import { findLevel } from './level.ts'
import { localTime } from './time.ts'

export type Output = 'text' | 'raw' | 'json'

export type LayoutOptions = {
  output: Output
  colours: boolean
  /** Whether a terminal reads it. */
  terminal: boolean
  /** Whether `service/module` is shown. */
  names: boolean
  /** Lines that are JSON are unfolded. */
  unfold: boolean
  /** What is shown on yellow. */
  highlight: readonly RegExp[]
}

const INDENT = '    '

export type Layout = (line: Line) => string

/** Prints a line, newline included. Options that change while it runs, such as `highlight`, are heeded. */
export function layout(options: LayoutOptions): Layout {
  const { output, colours, terminal, names } = options
  if (output === 'json') return (line) => `${asJson(line, terminal)}\n`
  const colourOf = memo(moduleColour)
  const shown = (name: string): string => (terminal ? harmless(name, false) : name)
  const prefix = ({ time, service, module, container, source }: Line): string => {
    const name = `${service}/${module}`
    const from = shown(names ? `${name} ${container}` : container)
    const clock = localTime(time)
    const mark = source === 'stderr' ? '!' : ''
    if (!colours) return `${clock} ${from}${mark} `
    return `${dim(clock)} ${inColour(colourOf(name), from)}${mark && inColour(STYLES.error, mark)} `
  }
  return (line) => {
    const said = (options.unfold && unfolded(line.line, options)) || body(line, options)
    if (output === 'raw') return `${said}\n`
    return `${prefix(line)}${said}\n`
  }
}

function memo(of: (name: string) => string): (name: string) => string {
  const known = new Map<string, string>()
  return (name) => {
    const value = known.get(name) ?? of(name)
    known.set(name, value)
    return value
  }
}

/** JSON escapes what is below a blank, and not C1, which some terminals obey. */
function asJson(line: Line, terminal: boolean): string {
  const text = JSON.stringify(line)
  return terminal ? text.replace(/[\x7f-\x9f]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`) : text
}

/** Where `text` matches. */
function* found(text: string, patterns: readonly RegExp[]): Generator<Span> {
  for (const pattern of patterns) {
    for (const { index, 0: part } of text.matchAll(pattern)) {
      if (part !== '') yield { from: index, to: index + part.length, style: 'highlight' }
    }
  }
}

function body({ line, matches }: Line, { colours, terminal, highlight }: LayoutOptions): string {
  if (!colours) return terminal ? harmless(line, false) : line
  const spans: Span[] = [...found(line, highlight)]
  for (const [from, to] of matches ?? []) spans.push({ from, to, style: 'match' })
  const level = line.includes('\x1b') ? undefined : findLevel(line)
  if (level) spans.push({ from: level.from, to: level.to, style: level.level })
  return paint(line, spans, terminal)
}

function unfolded(line: string, options: LayoutOptions): string | undefined {
  const parts = unfold(line)
  if (!parts) return undefined
  const { colours, terminal, highlight } = options
  // Strings in JSON can hold control characters by escapes.
  const safe = (text: string): string => (terminal ? harmless(text, false) : text)
  const marked = (text: string): string =>
    colours ? paint(safe(text), [...found(safe(text), highlight)], false) : safe(text)
  const key = (text: string): string => (colours ? inColour(STYLES.key, safe(text)) : safe(text))
  const words: string[] = []
  if (parts.level) {
    const text = safe(parts.level.text).padEnd(5)
    words.push(colours && parts.level.level ? inColour(STYLES[parts.level.level], text) : text)
  }
  let below = ''
  if (parts.message !== undefined) {
    const [first, ...more] = parts.message.split('\n')
    words.push(marked(first!))
    below += more.map((text) => `\n${INDENT}${marked(text)}`).join('')
  }
  for (const field of parts.fields) words.push(`${key(field.key)}=${marked(field.value)}`)
  for (const { key: name, lines } of parts.blocks) {
    below += `\n${INDENT}${key(name)}:${lines.map((text) => `\n${INDENT}${INDENT}${marked(text)}`).join('')}`
  }
  return words.join(' ') + below
}
