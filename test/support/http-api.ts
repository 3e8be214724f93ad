/** The consumer's HTTP server without a consumer behind it, in a folder that holds its tokens. */
import { createHash, randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import pino from 'pino'
import { Registry } from 'prom-client'
import { type HttpSources, httpApi } from '../../consumer/http-api.ts'
import { Tokens } from '../../consumer/tokens.ts'
import { temporaryFolder } from './folder.ts'

/** How often changed files are looked for, ms. */
export const LOOK_MS = 10

/** A token by this name is another consumer's. */
export const PEER = 'peer'

/** Tokens by their names, and what they may read. */
export type TokenNames = Record<string, readonly string[]>

/** A TOKENS_FILE that can be written anew: a name keeps its token. */
export class TokensFile {
  readonly path: string
  #made = new Map<string, string>()

  constructor(folder: string, names: TokenNames) {
    this.path = join(folder, 'tokens')
    this.write(names)
  }

  write(names: TokenNames): void {
    const lines = Object.entries(names).map(([name, services]) => {
      const token = this.#made.get(name) ?? randomBytes(32).toString('base64url')
      this.#made.set(name, token)
      const sha256 = createHash('sha256').update(token).digest('hex')
      return JSON.stringify({ name, sha256, services, ...(name === PEER && { peer: true }) })
    })
    writeFileSync(this.path, `# who may read what\n\n${lines.join('\n')}\n`)
  }

  token(name: string): string {
    return this.#made.get(name)!
  }
}

export class Api implements AsyncDisposable {
  readonly server: FastifyInstance
  /** What it logged, parsed. */
  readonly log: Record<string, unknown>[]
  readonly tokens: TokensFile
  #stack: AsyncDisposableStack
  #address: Promise<string> | undefined

  /**
   * @param names undefined: no token is needed
   * @param shared the file of another one, which has the same tokens
   */
  static async create(names?: TokenNames, sources: Partial<HttpSources> = {}, shared?: TokensFile): Promise<Api> {
    await using stack = new AsyncDisposableStack()
    const file = shared ?? new TokensFile(stack.use(temporaryFolder()).path, names ?? {})
    const lines: Record<string, unknown>[] = []
    const log = pino({}, { write: (line) => lines.push(JSON.parse(line)) })
    const tokens = names && stack.use(new Tokens(file.path, log, LOOK_MS))
    const server = await httpApi({
      ...{ log, tokens, trouble: () => undefined, metrics: new Registry(), routes: [] },
      ...sources,
    })
    stack.defer(() => server.close())
    return new Api(server, lines, file, stack.move())
  }

  private constructor(
    server: FastifyInstance,
    log: Record<string, unknown>[],
    tokens: TokensFile,
    stack: AsyncDisposableStack,
  ) {
    this.server = server
    this.log = log
    this.tokens = tokens
    this.#stack = stack
  }

  /** @returns its address, once it listens on a free port of 127.0.0.1 */
  listen(): Promise<string> {
    this.#address ??= this.server.listen({ host: '127.0.0.1', port: 0 })
    return this.#address
  }

  /** The headers of a token's bearer. */
  as(name: string): { authorization: string } {
    return { authorization: `Bearer ${this.tokens.token(name)}` }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync()
  }
}
