/** Where the parts of a line of the `text` format stand. Knows nothing of Node, because the page reads such lines as well. */

export const NEWLINE = 10
const BLANK = 32
const MARK = 33

/** Of `2026-11-23T08:24:41.123Z `. */
export const STAMP_BYTES = 25

/** Where what was printed begins in a line: behind the stamp and the name. @returns -1 for what is no such line */
export function textBegin(bytes: Uint8Array, at: number, end: number): number {
  if (bytes[at + STAMP_BYTES - 1] !== BLANK) return -1
  const blank = bytes.indexOf(BLANK, at + STAMP_BYTES)
  return blank === -1 || blank >= end ? -1 : blank + 1
}

/** @param text where what was printed begins */
export const isStderr = (bytes: Uint8Array, text: number): boolean => bytes[text - 2] === MARK
