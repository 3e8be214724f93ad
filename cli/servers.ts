/** Which consumers are asked: those that --server names, TALLYMAN_URL, the configuration's, the one of this container, the local one. */
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { CliError } from './errors.ts'

export type Server = {
  /** For people: its name in the configuration, else host and port. */
  name: string
  /** Ends with a slash; routes are below it. */
  url: URL
  token?: string
  /** PEM of those who may have signed its certificate. */
  ca?: string
  /** PEM of the very certificate that it must show, whoever signed it and whatever name it has. */
  certificate?: string
}

/** Where the configuration file may be, in the order in which it is looked for. */
export function configPaths(env: NodeJS.ProcessEnv): string[] {
  if (env['TALLYMAN_CONFIG']) return [env['TALLYMAN_CONFIG']]
  const folder = join(env['XDG_CONFIG_HOME'] || join(homedir(), '.config'), 'tallyman')
  return ['config.json', 'config.toml'].map((name) => join(folder, name))
}

const DEFAULT_URL = 'http://127.0.0.1:4680'

/** @throws CliError for what is no URL of HTTP */
function server(
  text: string,
  from: string,
  more: { name?: string; token?: string | undefined; ca?: string; certificate?: string },
): Server {
  const spelled = /^[a-z]+:\/\//i.test(text) ? text : `http://${text}`
  const url = URL.canParse(spelled) ? new URL(spelled) : undefined
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new CliError(
      'USAGE',
      `${from} says '${text}', which is no URL. Such as ${DEFAULT_URL}, several with commas between`,
    )
  }
  if (!url.pathname.endsWith('/')) url.pathname += '/'
  const { name = url.host, token, ca, certificate } = more
  return { name, url, ...(token && { token }), ...(ca && { ca }), ...(certificate && { certificate }) }
}

function certificateOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new CliError('CONFIG_INVALID', `TLS_CERT_FILE cannot be read: ${(error as Error).message}`)
  }
}

/** Schema and TOML are loaded only where somebody wrote a file: the first line of a tail need not wait for them. */
async function configured(env: NodeJS.ProcessEnv) {
  const path = env['TALLYMAN_CONFIG'] || configPaths(env).find(existsSync)
  return path === undefined ? undefined : (await import('./config.ts')).readConfig(path)
}

/** Names of servers that --server may be. */
export const configuredServers = async (env: NodeJS.ProcessEnv): Promise<string[]> =>
  Object.keys((await configured(env))?.servers ?? {})

/**
 * Within the consumer's container its own HTTP_ADDR says where it listens, and TLS_CERT_FILE which certificate it shows.
 * @param named of --server, none where it is not given
 */
export async function serversOf(named: readonly string[], env: NodeJS.ProcessEnv): Promise<Server[]> {
  const token = env['TALLYMAN_TOKEN']
  const urls =
    env['TALLYMAN_URL']
      ?.split(',')
      .map((url) => url.trim())
      .filter(Boolean) ?? []
  if (named.length === 0 && urls.length > 0) {
    return [...new Set(urls)].map((url) => server(url, 'TALLYMAN_URL', { token }))
  }
  const found = await configured(env)
  if (named.length > 0 || (found && found.default.length > 0)) {
    return [...new Set(named.length > 0 ? named : found!.default)].map((name) => {
      const at = found?.servers[name]
      if (at) return server(at.url, `${found.path}, ${name},`, { name, ...at, token: at.token ?? token })
      const known = Object.keys(found?.servers ?? {})
      throw new CliError(
        'SERVER_UNKNOWN',
        found
          ? `${found.path} has no server '${name}'; it has ${known.join(', ') || 'none'}`
          : `there is no server '${name}': nobody wrote ${configPaths(env).join(' or ')}`,
      )
    })
  }
  const { HTTP_ADDR, TLS_CERT_FILE } = env
  if (!HTTP_ADDR) return [server(DEFAULT_URL, 'the default', { token })]
  if (!TLS_CERT_FILE) return [server(HTTP_ADDR, 'HTTP_ADDR', { token })]
  return [server(`https://${HTTP_ADDR}`, 'HTTP_ADDR', { token, certificate: certificateOf(TLS_CERT_FILE) })]
}
