/**
 * The tokens that open the API, as TOKENS_FILE lists them: a JSON object a line,
 *
 *   {"name": "ci", "sha256": "9f86d0…", "services": ["shop", "bank-*"]}
 *
 * (and `"peer": true` for another consumer, which asks on behalf of its own callers), blank lines and lines that begin with # left out. The file holds a hash of each token, and nobody but its bearer has the token.
 * SHA-256 and no password hash: a token is 32 random bytes, which nobody finds by trying, whereas a slow hash of whatever a
 * stranger sends would keep the consumer busy.
 *
 * Invariants
 * - A file that was changed counts within seconds; one that can't be understood changes nothing, so that a slip of the editor
 *   neither locks everybody out nor lets anybody in. Nor does one that lists nobody: so a file looks while it is written in place.
 * - How long a comparison takes tells nothing of any token.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Logger } from 'pino'
import { z } from 'zod'
import { type Access, accessTo } from './access.ts'
import { ConsumerError } from './errors.ts'
import { watchFiles } from './file-watch.ts'

/** As many wrong lines are named. */
const NAMED = 5

const entry = z.strictObject({
  name: z.string().regex(/^[\w.@-]{1,64}$/, { error: 'must be 1 to 64 letters, digits and . _ @ -' }),
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/i, { error: "must be the token's SHA-256, 64 hexadecimal digits" })
    .transform((hex) => hex.toLowerCase()),
  services: z.array(z.string().max(4096)),
  peer: z.boolean().optional(),
})
type TokenEntry = z.infer<typeof entry>

const sha256 = (token: string): Buffer => createHash('sha256').update(token).digest()

/** @throws ConsumerError where the file can't be read, or naming the lines that are wrong */
export function readTokens(path: string): TokenEntry[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConsumerError('TOKENS_REFUSED', `TOKENS_FILE=${path} can't be read: ${(error as Error).message}`)
  }
  const problems: string[] = []
  const entries = new Map<string, TokenEntry>()
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const wrong = (what: string) => problems.push(`line ${i + 1}: ${what}`)
    let given: unknown
    try {
      given = JSON.parse(line)
    } catch {
      // Not in the words of the parser, which repeats the line: somebody may have written the token itself there.
      wrong('is no JSON object such as {"name": "ci", "sha256": "…", "services": ["shop", "bank-*"]}')
      continue
    }
    const { success, data, error } = entry.safeParse(given)
    if (!success) wrong(error.issues.map(({ path, message }) => `${path.join('.') || 'it'}: ${message}`).join('; '))
    else if (entries.has(data.sha256)) wrong(`${data.name} has the same token as ${entries.get(data.sha256)!.name}`)
    else entries.set(data.sha256, data)
  }
  if (problems.length > 0) {
    const more = problems.length > NAMED ? `; and ${problems.length - NAMED} more` : ''
    throw new ConsumerError('TOKENS_REFUSED', `TOKENS_FILE=${path}: ${problems.slice(0, NAMED).join('; ')}${more}`)
  }
  return [...entries.values()]
}

/** A token that is let in: `key` stands for it while the consumer runs. */
export type Bearer = { key: string; access: Access; peer: boolean }

export class Tokens implements Disposable {
  #path: string
  #log: Pick<Logger, 'info' | 'warn'>
  #bearers: (Bearer & { hash: Buffer })[] = []
  #stopWatching: () => void
  #listeners: (() => void)[] = []

  /**
   * @param everyMs how often the file is looked at
   * @throws ConsumerError where the file can't be read or understood
   */
  constructor(path: string, log: Pick<Logger, 'info' | 'warn'>, everyMs?: number) {
    this.#path = path
    this.#log = log
    // Before it is read: what changes from then on is read again.
    this.#stopWatching = watchFiles([path], () => this.#reload(), everyMs)
    this.#read()
  }

  /** @returns whose token it is */
  find(token: string): Bearer | undefined {
    const given = sha256(token)
    let found: Bearer | undefined
    for (const bearer of this.#bearers) if (timingSafeEqual(bearer.hash, given)) found = bearer
    return found
  }

  /** @returns what the token that `key` stands for may read now; undefined once the file does not list it any more */
  byKey(key: string): Bearer | undefined {
    return this.#bearers.find((bearer) => bearer.key === key)
  }

  /** Calls `listener` whenever the file was read anew. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  [Symbol.dispose](): void {
    this.#stopWatching()
  }

  #read(): void {
    const entries = readTokens(this.#path)
    if (entries.length === 0 && this.#bearers.length > 0) {
      throw new ConsumerError(
        'TOKENS_REFUSED',
        `TOKENS_FILE=${this.#path} lists no token; to let nobody in, stop the consumer`,
      )
    }
    this.#bearers = entries.map(({ name, sha256, services, peer = false }) => ({
      ...{ key: sha256, hash: Buffer.from(sha256, 'hex'), peer },
      access: accessTo(name, services),
    }))
  }

  #reload(): void {
    try {
      this.#read()
    } catch (error) {
      this.#log.warn({ err: error }, 'the changed TOKENS_FILE is not heeded; the tokens of before are still let in')
      return
    }
    this.#log.info({ tokens: this.#bearers.length }, 'TOKENS_FILE was read again')
    for (const listener of this.#listeners) listener()
  }
}
