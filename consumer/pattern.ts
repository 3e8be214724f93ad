/**
 * What is searched for, as ripgrep is told it.
 *
 * In a file of the `text` format a line begins with stamp and name, and what is searched for is meant of what stands behind them.
 * The pattern becomes one of the whole line: stamp, name, anything, pattern.
 *
 * Invariants
 * - A line of a file matches the pattern that is made here if and only if what was printed matches the one that was asked for. Where
 *   that cannot be said in a pattern (`^` in the middle of one), none is made, and ripgrep is given what was printed alone.
 * - A pattern that is wrong by itself is never put together with anything: `a)|(b` would become right.
 */
import type { SearchQuery } from './api-schema.ts'

export type Question = Pick<SearchQuery, 'pattern' | 'fixed' | 'ignoreCase' | 'word' | 'invert'>

/** What rg's own -F, -w, -i and -v make of the question, for lines that are what was printed. */
export function printedArguments({ pattern, fixed, ignoreCase, word, invert }: Question): string[] {
  return [
    ...(fixed ? ['--fixed-strings'] : []),
    ...(word ? ['--word-regexp'] : []),
    ...(ignoreCase ? ['--ignore-case'] : []),
    ...(invert ? ['--invert-match'] : []),
    ...['-e', pattern],
  ]
}

/** What Rust's regex::escape escapes. */
const META = /[\\.+*?()|[\]{}^$#&\-~]/g

/** Stamp and name. Bytes, not characters: a name is ASCII, and what stands before a match need not be UTF-8. */
const STAMPED = '^(?-u:[^ ]+ [^ ]+ )'
const ANYTHING = '(?-u:.*?)'

/**
 * The question as one of lines with stamp and name.
 * @returns undefined where it can't be put so
 */
export function stampedArguments({ pattern, fixed, ignoreCase, word, invert }: Question): string[] | undefined {
  const anchor = fixed ? 'none' : anchorOf(pattern)
  if (anchor === 'any') return undefined
  const core = fixed ? pattern.replace(META, '\\$&') : anchor === 'first' ? pattern.slice(1) : pattern
  const before = anchor === 'first' ? '' : word ? `(?:|${ANYTHING}\\W)` : ANYTHING
  const whole = `${STAMPED}${before}(?:${core})${word ? '(?:\\W|$)' : ''}`
  return [...(ignoreCase ? ['--ignore-case'] : []), ...(invert ? ['--invert-match'] : []), '-e', whole]
}

/**
 * Where a pattern is tied to the beginning of a line: nowhere, with its first character and nowhere else, or in a way that is
 * not looked into.
 */
export function anchorOf(pattern: string): 'none' | 'first' | 'any' {
  // Blanks and comments that mean nothing, in which `^` and `)` mean nothing either.
  if (/\(\?[a-zA-Z]*x/.test(pattern)) return 'any'
  let anchors = 0
  let depth = 0
  let alternatives = false
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i]
    if (character === '\\') {
      if (pattern[i + 1] === 'A') return 'any'
      i++
    } else if (character === '[') {
      // Classes can hold classes; whatever has a `^` in there but in front counts as tied.
      if (pattern[i + 1] === '^') i++
    } else if (character === '^') anchors++
    else if (character === '(') depth++
    else if (character === ')') depth--
    else if (character === '|' && depth === 0) alternatives = true
  }
  if (anchors === 0) return 'none'
  const tied = anchors === 1 && pattern.startsWith('^') && !alternatives && !/^\^[*+?{]/.test(pattern)
  return tied ? 'first' : 'any'
}
