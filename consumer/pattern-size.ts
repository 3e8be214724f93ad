/**
 * How large a regular expression gets when it is compiled, told without compiling it.
 *
 * RE2 takes time linear in the text, but a repetition is compiled as that many copies: 4 KB of `x{0,1000}` are hundreds of thousands
 * of steps, which cost seconds and half a GB in the process that lands lines, and as many at each character of each line.
 */

/** Steps of all patterns of a question at most; what people write has hundreds. */
export const MAX_STEPS = 5_000

/** @returns an upper bound of the steps, for a pattern that is well formed; some number for any other */
export function stepsOf(pattern: string): number {
  // Steps of each group that is open, and of the last thing in it, which a repetition is about.
  const open: { steps: number; last: number }[] = [{ steps: 0, last: 0 }]
  for (const [token] of pattern.matchAll(TOKEN)) {
    const group = open.at(-1)!
    // A repetition behind literal text of no length is about what stands before it.
    if (/^\\Q(?:\\E)?$/.test(token)) continue
    const repeated = /^\{(\d+)(?:,(\d*))?\}$/.exec(token)
    if (token.startsWith('(')) {
      open.push({ steps: 2, last: 0 })
    } else if (token === ')' && open.length > 1) {
      open.pop()
      const outer = open.at(-1)!
      outer.last = group.steps
      outer.steps += group.steps
    } else if (repeated) {
      const times = Math.max(Number(repeated[1]), Number(repeated[2] || 0), 1)
      group.steps += group.last * (times - 1) + times
      group.last = group.last * times + times
    } else {
      // A quantifier, an alternative or a character: each is a step, and only the last can be repeated; so it is in literal text.
      group.steps += token.startsWith('\\Q') ? token.length : 1
      group.last = /^[*+?]/.test(token) ? group.last + 1 : 1
    }
  }
  return open.reduce((sum, { steps }) => sum + steps, 0)
}

/** Something escaped, literal text, a class, the beginning of a group, a repetition, or one character. */
const TOKEN = new RegExp(
  [
    ...[/\\[pP](?:\{[^}]*\}|.)/, /\\x\{[^}]*\}/, /\\Q.*?(?:\\E|$)/, /\\./],
    ...[/\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]/, /\((?:\?(?:P?<\w+>|[a-zA-Z-]*:?))?/, /\{\d+(?:,\d*)?\}/, /./],
  ]
    .map(({ source }) => source)
    .join('|'),
  'gsu',
)
