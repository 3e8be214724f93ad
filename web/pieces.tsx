/** A line's text, with its colours and where it matched: text nodes and classes, never markup from the line. */
import { useMemo } from 'preact/hooks'
import { type Piece, printable } from './printable.ts'

/** Of a longer line a row shows so much: laying out 256 KiB in one row costs more than a frame. */
export const SHOWN = 4_000

const NAMED = /^[A-Za-z]+$/

function classOf({ kind, match, fg, bg, decorations = [] }: Piece): string | undefined {
  const classes = [
    kind === 'hidden' && 'hidden-char',
    match && 'match',
    fg && NAMED.test(fg) && `fg-${fg}`,
    bg && NAMED.test(bg) && `bg-${bg}`,
    ...decorations,
  ].filter(Boolean)
  return classes.length > 0 ? classes.join(' ') : undefined
}

function PieceOf({ piece }: { piece: Piece }) {
  const { text, fg, bg } = piece
  const style = {
    ...(fg && !NAMED.test(fg) && { color: fg }),
    ...(bg && !NAMED.test(bg) && { backgroundColor: bg }),
  }
  const names = classOf(piece)
  if (names === undefined && !fg && !bg) return <>{text}</>
  return piece.match ? (
    <mark class={names} style={style}>
      {text}
    </mark>
  ) : (
    <span class={names} style={style}>
      {text}
    </span>
  )
}

type Matches = readonly (readonly [number, number])[]

/** @param whole show all of it, however long */
export function Pieces({
  text,
  matches,
  whole = false,
}: {
  text: string
  matches?: Matches | undefined
  whole?: boolean
}) {
  const cut = !whole && text.length > SHOWN
  const pieces = useMemo(
    () => printable(cut ? wholeLetters(text.slice(0, SHOWN)) : text, matches),
    [text, matches, cut],
  )
  return (
    <>
      {pieces.map((piece, i) => (
        <PieceOf key={i} piece={piece} />
      ))}
      {cut && <span class="cut"> … {Math.round((text.length - SHOWN) / 1024)} KiB more</span>}
    </>
  )
}

/** Without the half of a pair at its end. */
const wholeLetters = (text: string): string => (text.isWellFormed() ? text : text.slice(0, -1))

/** Text in which some words are looked for, letter by letter: where they stand. */
export function placesOf(text: string, wanted: string, matchCase: boolean): [number, number][] {
  const places: [number, number][] = []
  if (wanted === '') return places
  const [where, what] = matchCase ? [text, wanted] : [text.toLowerCase(), wanted.toLowerCase()]
  // Lower case may be longer than what it is of: then places would be wrong.
  if (where.length !== text.length) return places
  for (let at = where.indexOf(what); at !== -1 && places.length < 100; at = where.indexOf(what, at + what.length)) {
    places.push([at, at + what.length])
  }
  return places
}
