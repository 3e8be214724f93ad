/**
 * A line as it may be shown: colours kept, everything else that would act on a terminal or on the reader's eye made visible.
 *
 * Invariants
 * - The result is text and styles, never markup: whoever renders it makes text nodes.
 * - Sequences other than colour are left out. Control characters, and those that turn the direction of writing or cannot be seen,
 *   become pieces of kind `hidden` that name them.
 * - Places within the line (`matches`) stay where they were, in UTF-16 code units of what was printed.
 * - Linear in the length, and in bounded memory: at most MAX_PIECES pieces, the rest is one.
 */
import { createAnsiSequenceParser } from 'ansi-sequence-parser'

type Color = string
export type Piece = {
  text: string
  /** `hidden`: stands for a character that is not shown, named by `text`. */
  kind: 'text' | 'hidden'
  match: boolean
  /** A class of the style sheet (`fg-red`), or a colour `rgb(…)`. */
  fg?: Color
  bg?: Color
  decorations?: readonly string[]
}

export const MAX_PIECES = 2_000

/** CSI (SGR is the one that ends in m and has no other marks), OSC, DCS and the like with their end, and two-byte sequences. */
const SEQUENCE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /\x1b\[([\x30-\x3f]*)[\x20-\x2f]*([\x40-\x7e])|\x9b[\x30-\x3f]*[\x20-\x2f]*[\x40-\x7e]|\x1b[\]PX^_][^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)|\x1b[\x20-\x2f]*[\x30-\x5a\x5c\x60-\x7e]/g
const HIDDEN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /[\x00-\x08\x0a-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g
/** More than this many marks on one letter reach into other lines. */
const STACKED = /(\p{M}{4})\p{M}+/gu

const NAMES: Record<number, string> = { 27: 'ESC', 127: 'DEL', 13: 'CR', 10: 'LF', 7: 'BEL', 8: 'BS', 0: 'NUL' }

const nameOf = (character: string): string => {
  const code = character.charCodeAt(0)
  return (
    NAMES[code] ??
    (code < 0x20 ? String.fromCharCode(0x2400 + code) : `U+${code.toString(16).toUpperCase().padStart(4, '0')}`)
  )
}

type Matches = readonly (readonly [number, number])[]
type Style = Pick<Piece, 'fg' | 'bg' | 'decorations'>

/** What is seen of a line, and copied: no sequences, and no control characters but tabs. */
export const plain = (text: string): string => text.replace(SEQUENCE, '').replace(HIDDEN, '')

/** @param matches where it matched: begin and end of each place, in order */
export function printable(text: string, matches: Matches = []): Piece[] {
  const pieces: Piece[] = []
  const colors = createAnsiSequenceParser()
  let style: Style = {}
  let from = 0
  const take = (until: number): void => {
    cut(text, from, until, matches, style, pieces)
  }
  for (const sequence of text.matchAll(SEQUENCE)) {
    if (pieces.length >= MAX_PIECES) break
    take(sequence.index)
    from = sequence.index + sequence[0].length
    // Colons part the numbers of a colour just as well; the parser knows semicolons alone.
    if (sequence[2] === 'm' && /^[\d;:]*$/.test(sequence[1]!))
      style = styleOf(colors, sequence[1]!.replaceAll(':', ';'))
  }
  take(text.length)
  return pieces
}

function styleOf(colors: ReturnType<typeof createAnsiSequenceParser>, numbers: string): Style {
  // `ESC[m` is `ESC[0m`.
  const [token] = colors.parse(`\x1b[${numbers === '' ? '0' : numbers}m.`)
  if (!token) return {}
  const style: Style = {}
  const [fg, bg] = token.decorations.has('reverse')
    ? [token.background, token.foreground]
    : [token.foreground, token.background]
  if (fg) style.fg = colorOf(fg)
  if (bg) style.bg = colorOf(bg)
  if (token.decorations.has('reverse')) {
    style.fg ??= 'ground'
    style.bg ??= 'ink'
  }
  const decorations = [...token.decorations].filter((name) => name !== 'reverse' && name !== 'hidden')
  if (decorations.length > 0) style.decorations = decorations
  return style
}

type AnsiColor = NonNullable<ReturnType<ReturnType<typeof createAnsiSequenceParser>['parse']>[number]['foreground']>

const NAMED = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white']
const STEPS = [0, 95, 135, 175, 215, 255]

/** One of the sixteen by its name, so that each theme has its own; any other as it is. */
function colorOf(color: AnsiColor): Color {
  if (color.type === 'named') return color.name
  if (color.type === 'rgb') return `rgb(${color.rgb.map((part) => Math.min(255, part)).join(' ')})`
  const { index } = color
  if (!(index >= 0 && index < 256)) return 'ink'
  if (index < 8) return NAMED[index]!
  if (index < 16) return `bright${NAMED[index - 8]![0]!.toUpperCase()}${NAMED[index - 8]!.slice(1)}`
  if (index >= 232) return `rgb(${[0, 0, 0].map(() => 8 + 10 * (index - 232)).join(' ')})`
  const cube = index - 16
  return `rgb(${[Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((step) => STEPS[step]).join(' ')})`
}

/** Adds what stands between two places to the pieces, parted where it matches and where a character is hidden. */
function cut(text: string, from: number, until: number, matches: Matches, style: Style, pieces: Piece[]): void {
  let at = from
  const add = (upTo: number, match: boolean): void => {
    if (upTo <= at) return
    const part = text.slice(at, upTo).replace(STACKED, '$1')
    at = upTo
    let begin = 0
    for (const hidden of part.matchAll(HIDDEN)) {
      if (pieces.length >= MAX_PIECES) break
      if (hidden.index > begin) pieces.push({ text: part.slice(begin, hidden.index), kind: 'text', match, ...style })
      pieces.push({ text: nameOf(hidden[0]), kind: 'hidden', match, ...style })
      begin = hidden.index + 1
    }
    if (begin < part.length)
      pieces.push({ text: part.slice(begin).replace(HIDDEN, '·'), kind: 'text', match, ...style })
  }
  for (const [begin, end] of matches) {
    if (end <= at) continue
    if (begin >= until || pieces.length >= MAX_PIECES) break
    add(Math.min(begin, until), false)
    add(Math.min(end, until), true)
  }
  add(until, false)
}
