/**
 * Globs over names: `*` is any characters, `?` is one, all others are themselves.
 *
 * Not by regular expressions: whoever asks chooses the glob, and one with many stars would keep a backtracking matcher busy for
 * hours. This takes a name's length times the glob's at most.
 */

/** @returns whether a name matches one of the globs; none matches where there are no globs */
export function globMatcher(globs: readonly string[]): (name: string) => boolean {
  if (globs.includes('*')) return () => true
  const exact = new Set(globs.filter((glob) => !/[*?]/.test(glob)))
  const wild = globs.filter((glob) => /[*?]/.test(glob)).map((glob) => Array.from(glob))
  if (wild.length === 0) return (name) => exact.has(name)
  return (name) => {
    if (exact.has(name)) return true
    const characters = Array.from(name)
    return wild.some((glob) => matches(glob, characters))
  }
}

function matches(glob: readonly string[], name: readonly string[]): boolean {
  let at = 0
  // Where the last star stands, and where what it does not cover begins: only that one ever has to cover more.
  let star = -1
  let rest = 0
  for (let i = 0; i < name.length; ) {
    if (glob[at] === '*') {
      star = at++
      rest = i
    } else if (at < glob.length && (glob[at] === '?' || glob[at] === name[i])) {
      at++
      i++
    } else if (star >= 0) {
      at = star + 1
      i = ++rest
    } else {
      return false
    }
  }
  while (glob[at] === '*') at++
  return at === glob.length
}
