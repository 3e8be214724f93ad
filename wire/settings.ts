/**
 * Settings from the environment: one zod schema a program says names, types, defaults and docs, and this reads it.
 * An empty value counts as not set: that is how Docker hands over a plugin's env that nobody has set.
 */
import { closest } from 'fastest-levenshtein'
import * as z from 'zod'
import { type SecuritySettings, securityProblems, securitySettings, unreadableFiles } from './security.ts'

/** Every mistake of the environment at once, a line each, so that a bad deployment is mended in one go. */
export class SettingsError extends Error {
  override name = 'SettingsError'
  readonly problems: readonly string[]
  constructor(problems: readonly string[]) {
    super(`settings refused:\n${problems.map((p) => `  ${p}`).join('\n')}`)
    this.problems = problems
  }
}

/** `key=…` is not known; names the nearest that is, which is nearly always the one that was meant. */
export const unknownKey = (key: string, known: readonly string[]): string =>
  `${key} is not known; the nearest known one is ${closest(key, known)} (known: ${known.join(', ')})`

/** `host:port`, an IPv6 address in brackets. @returns undefined for anything else */
function hostAndPort(text: string, leastPort: number): { host: string; port: number } | undefined {
  const [, host, port] = /^(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})$/.exec(text) ?? []
  if (host === undefined || Number(port) < leastPort || Number(port) > 65_535) return undefined
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** A list with commas between, without blanks and empty items. */
export const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter(Boolean),
)

/** `a:1,b:2`, with at least one left. */
export const brokerList = list.refine(
  (brokers) => brokers.length > 0 && brokers.every((broker) => hostAndPort(broker, 1)),
  { error: 'must be host:port, several with commas between' },
)

/** `host:port` to listen on; port 0 is any free one. */
export const address = z.string().transform((text, context) => {
  const address = hostAndPort(text, 0)
  if (address) return address
  context.addIssue({ code: 'custom', message: 'must be host:port' })
  return z.NEVER
})

const UNITS: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

/** Bytes, as Docker writes them: `512m`, `2g`. */
export const byteSize = z
  .string()
  .regex(/^\d+[kmg]?b?$/i, { error: 'must be a number of bytes, such as 512m or 2g' })
  .transform((text) => Number.parseInt(text, 10) * UNITS[/[kmg]/i.exec(text)?.[0].toLowerCase() ?? '']!)

const DURATIONS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** A time, as `500ms`, `2s`, `5m` or `1h`, in ms, of at most `most` ms. */
export const duration = (most: number) =>
  z
    .string()
    .regex(/^\d{1,9}(ms|s|m|h)$/, { error: 'must be a time, such as 500ms, 2s, 5m or 1h' })
    .transform((text) => Number.parseInt(text, 10) * DURATIONS[text.replace(/^\d+/, '')]!)
    .pipe(z.number().max(most, { error: `must be at most ${most / 1000}s` }))

/** A topic's name, as Kafka allows it. */
export const topicName = z
  .string()
  .regex(/^[A-Za-z0-9._-]{1,249}$/, { error: 'must be a Kafka topic name: letters, digits, dot, underscore, hyphen' })

/** Settings that every program of ours has, to be spread into its schema. */
export const commonSettings = {
  KAFKA_BROKERS: brokerList
    .prefault('127.0.0.1:9092')
    .describe('Seed brokers of the Kafka cluster, host:port, several with commas between.'),
  KAFKA_TOPIC: topicName.default('tallyman').describe('Topic that carries the lines.'),
  KAFKA_CLIENT_ID: z
    .string()
    .max(249)
    .prefault('tallyman')
    .describe('What we are called in the logs and quotas of the brokers.'),
  ...securitySettings,
  LOG_LEVEL: z
    .enum(['error', 'warn', 'info', 'debug', 'trace'])
    .default('info')
    .describe('What is logged: error says that lines were lost, warn that none were.'),
}

/**
 * @param prefixes a name that begins with one of them must be in the schema: a typo is refused instead of ignored
 * @param files whether a file that can't be read is a mistake: `later`, each connection tries to read it
 * @throws SettingsError naming every mistake
 */
export function readSettings<S extends z.ZodObject>(
  schema: S,
  env: Readonly<Record<string, string | undefined>>,
  prefixes: readonly string[] = [],
  files: 'now' | 'later' = 'now',
): z.infer<S> {
  const known = Object.keys(schema.shape)
  const problems = Object.keys(env)
    .filter((key) => !known.includes(key) && prefixes.some((prefix) => key.startsWith(prefix)))
    .map((key) => unknownKey(key, known))
  const given = Object.fromEntries(known.filter((key) => env[key]).map((key) => [key, env[key]]))
  const result = schema.safeParse(given)
  if (!result.success) {
    for (const issue of result.error.issues) {
      const key = String(issue.path[0])
      problems.push(`${key}=${env[key]}: ${issue.message}`)
    }
  }
  // What does not go together can only be told of values that are allowed, one by one.
  if (result.success && 'KAFKA_TLS' in schema.shape) {
    const settings = result.data as SecuritySettings
    problems.push(...securityProblems(settings), ...(files === 'now' ? unreadableFiles(settings) : []))
  }
  if (problems.length > 0 || !result.success) throw new SettingsError(problems)
  return result.data
}
