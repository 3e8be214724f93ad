/**
 * `tallyman token`: a new token, and the line of the consumer's TOKENS_FILE that lets it in. The consumer keeps a hash; the token
 * itself is printed once and kept nowhere.
 */
import { createHash, randomBytes } from 'node:crypto'
import { CliError } from './errors.ts'
import { print, say } from './terminal.ts'

const TOKEN_BYTES = 32

/** The line goes to stdout, so that it can be appended to the file; the token to stderr, where its bearer's friend reads it. */
export async function token(name: string, services: string[]): Promise<void> {
  if (!/^[\w.@-]{1,64}$/.test(name)) {
    throw new CliError('USAGE', `'${name}' is no name for a token: 1 to 64 letters, digits and . _ @ -`)
  }
  const made = randomBytes(TOKEN_BYTES).toString('base64url')
  const sha256 = createHash('sha256').update(made).digest('hex')
  await print(`${JSON.stringify({ name, sha256, services: services.length > 0 ? services : ['*'] })}\n`)
  say(`the token of ${name}, which is shown once: ${made}`)
  if (process.stdout.isTTY) say("the line above belongs into the consumer's TOKENS_FILE")
}
