/**
 * What a line may do to a terminal. A line is whatever an app printed, or whoever talked to it: written to a terminal as it is, it
 * can move the cursor over other lines, set the title, fill the clipboard, or have the terminal type an answer.
 *
 * Invariants
 * - Of what is let through to a terminal, SGR (colours, bold and the like) is the only control sequence, and tab the only control
 *   character.
 * - A sequence that never ends costs its introducer, not the rest of the line: nothing can be hidden behind it.
 */

/**
 * In this order: what is let through where colours are, whole sequences, then whatever character can begin one. No sequence goes
 * on over the beginning of another, so that many without an end take linear time.
 */
const CONTROL =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /(\x1b\[[\d;:]*m)|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f]/g

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const ANY = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/

/** Whether there is anything in it that a terminal would not simply show. */
export const hasControl = (text: string): boolean => ANY.test(text)

/** A stretch of a line: shown, a colour, or neither. */
export type Piece = { kind: 'text' | 'colour' | 'control'; from: number; to: number }

/** A line's pieces, end to end. */
export function* pieces(text: string): Generator<Piece> {
  let at = 0
  for (const found of text.matchAll(CONTROL)) {
    if (found.index > at) yield { kind: 'text', from: at, to: found.index }
    at = found.index + found[0].length
    yield { kind: found[1] === undefined ? 'control' : 'colour', from: found.index, to: at }
  }
  if (at < text.length) yield { kind: 'text', from: at, to: text.length }
}

/** Without control sequences. @param colours SGR stays, and is ended where the text ends */
export function harmless(text: string, colours: boolean): string {
  if (!hasControl(text)) return text
  let coloured = false
  const kept = text.replace(CONTROL, (_all, colour: string | undefined) => {
    if (!colours || colour === undefined) return ''
    coloured = true
    return colour
  })
  return coloured ? `${kept}\x1b[0m` : kept
}
