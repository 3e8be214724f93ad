/**
 * The configuration file: servers by name, `$XDG_CONFIG_HOME/tallyman/config.json` or `config.toml` beside it.
 *
 *   default = ["prod"]                    # asked where none is named; all of them where nothing is said
 *
 *   [servers.prod]
 *   url = "https://logs.example:4680"
 *   tokenFile = "~/.config/tallyman/prod.token"
 */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, resolve } from 'node:path'
import { closest } from 'fastest-levenshtein'
import { parse as parseToml } from 'smol-toml'
import { z } from 'zod'
import { CliError } from './errors.ts'

const server = z.strictObject({
  url: z
    .url({ protocol: /^https?$/, error: 'must be a URL such as https://logs.example:4680' })
    .describe('Where it is.'),
  token: z.string().min(1).optional().describe('Its token.'),
  tokenFile: z
    .string()
    .min(1)
    .optional()
    .describe('A file with its token; relative to the configuration file, `~` is the home folder.'),
  caFile: z
    .string()
    .min(1)
    .optional()
    .describe('A PEM file with the certificates of those who may have signed its own.'),
})

export const configSchema = z.strictObject({
  default: z
    .union([z.string(), z.array(z.string()).min(1)])
    .optional()
    .describe('Name of the server, or names of those, that are asked where none is named.'),
  servers: z.record(z.string().min(1), server).default({}).describe('Servers by name.'),
})

export type ConfiguredServer = { url: string; token?: string; ca?: string }
export type Config = { path: string; default: string[]; servers: Record<string, ConfiguredServer> }

/** @throws CliError for a file that cannot be read, or says something wrong */
export function readConfig(path: string): Config {
  const text = read(path, 'the configuration file')
  let said: unknown
  try {
    said = path.endsWith('.toml') ? parseToml(text) : JSON.parse(text)
  } catch (error) {
    const [reason] = (error as Error).message.split('\n')
    throw new CliError('CONFIG_INVALID', `${path} is no ${path.endsWith('.toml') ? 'TOML' : 'JSON'}: ${reason}`)
  }
  const { success, data, error } = configSchema.safeParse(said)
  if (!success) throw new CliError('CONFIG_INVALID', `${path}: ${error.issues.map(describe).join('; ')}`)
  const names = data.default === undefined ? Object.keys(data.servers) : [data.default].flat()
  const unknown = names.find((name) => !Object.hasOwn(data.servers, name))
  if (unknown !== undefined) {
    throw new CliError('CONFIG_INVALID', `${path}: default names the server '${unknown}', which is not there`)
  }
  const inFile = (name: string): string => resolve(dirname(path), name.replace(/^~(?=\/)/, homedir()))
  const servers = Object.entries(data.servers).map(([name, { url, token, tokenFile, caFile }]) => [
    name,
    {
      url,
      ...(token !== undefined && { token }),
      ...(tokenFile !== undefined && { token: read(inFile(tokenFile), `the token of ${name}`).trim() }),
      ...(caFile !== undefined && { ca: read(inFile(caFile), `the certificates of ${name}`) }),
    },
  ])
  return { path, default: names, servers: Object.fromEntries(servers) }
}

function read(path: string, what: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new CliError('CONFIG_INVALID', `${what} cannot be read: ${(error as Error).message}`)
  }
}

function describe(issue: z.core.$ZodIssue): string {
  const at = issue.path.join('.')
  if (issue.code !== 'unrecognized_keys') return `${at}: ${issue.message}`
  const known = Object.keys(issue.path[0] === 'servers' ? server.shape : configSchema.shape)
  return issue.keys
    .map((key) => `${[...issue.path, key].join('.')} is not known; the nearest known one is ${closest(key, known)}`)
    .join('; ')
}
