/**
 * A colour for each name, the same in the list, in the histogram and tomorrow.
 *
 * Invariants
 * - A name's hue follows from its letters. Of two known names with the same, the later by the alphabet takes the next free one,
 *   so that modules that stand side by side are told apart as long as there are hues.
 */

/** Hues that the style sheet has. */
const HUES = 12
/** From a hue that is taken to one that looks quite different; it comes by all of them. */
const STEP = 5

/** @returns which of the hues its letters ask for */
export function ownHue(name: string): number {
  let hash = 2_166_136_261
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16_777_619)
  return ((hash ^ (hash >>> 15)) >>> 0) % HUES
}

/** Hues for all names that are known. */
export function huesOf(names: Iterable<string>): Map<string, number> {
  const hues = new Map<string, number>()
  let taken = new Set<number>()
  for (const name of [...new Set(names)].sort()) {
    if (taken.size === HUES) taken = new Set()
    let hue = ownHue(name)
    while (taken.has(hue)) hue = (hue + STEP) % HUES
    taken.add(hue)
    hues.set(name, hue)
  }
  return hues
}
