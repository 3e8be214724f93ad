/**
 * Names from the data as names of folders and files.
 *
 * Invariants
 * - The result is one path component of [A-Za-z0-9._-] and percent-encoded bytes, never empty, never beginning with a dot:
 *   nothing that a container says can name another folder, a hidden one or ours.
 * - Different names give different results: a byte that is not allowed becomes %XX, `%` among them; the empty name
 *   becomes `%`, which no other name does; a name too long for a file system ends in a hash of the whole.
 */
import { createHash } from 'node:crypto'

/** File systems take 255 bytes. */
const MAX_BYTES = 200

const HASH_CHARACTERS = 16

export function pathComponent(name: string): string {
  const safe = name.toWellFormed().replace(/[^A-Za-z0-9._-]/gu, percentEncode)
  const encoded = safe === '' ? '%' : safe.startsWith('.') ? `%2E${safe.slice(1)}` : safe
  if (encoded.length <= MAX_BYTES) return encoded
  const hash = createHash('sha256').update(name).digest('hex').slice(0, HASH_CHARACTERS)
  // `%` and no hex digit behind it stands nowhere else, so no shorter name can be meant.
  return `${encoded.slice(0, MAX_BYTES - HASH_CHARACTERS - 2)}%~${hash}`
}

/** A module's folder, below the root. */
export const folderOf = (service: string, module: string): string =>
  `${pathComponent(service)}/${pathComponent(module)}`

/**
 * The name that a component was made of. Of one that was cut the rest is not in there: it is given back as it is, so that a name
 * of the same beginning is not taken for it.
 */
export function nameOf(component: string): string {
  if (component === '%') return ''
  try {
    return decodeURIComponent(component)
  } catch {
    return component
  }
}

const percentEncode = (character: string): string =>
  Array.from(Buffer.from(character), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join('')

/** What the path of a file's text below the root says. `other`: the partition in its name, where it has one. */
export type FileName = { service: string; module: string; day: string; other: number | undefined; segment: number }

const FILE = /^([\w%~-][\w.%~-]*)\/([\w%~-][\w.%~-]*)\/(\d{4}-\d{2}-\d{2})(?:\.p(\d+))?(?:\.(\d+))?\.log$/

/** @returns undefined for what is no name of a file of ours; service and module are those of the folders */
export function readFileName(path: string): FileName | undefined {
  const [, service, module, day, other, segment] = FILE.exec(path) ?? []
  if (service === undefined) return undefined
  return {
    ...{ service, module: module!, day: day! },
    other: other === undefined ? undefined : Number(other),
    segment: Number(segment ?? 0),
  }
}
