/**
 * Log-opts: what `--log-opt` takes, in one schema, and what follows from it for a container. dockerd hands over whatever was
 * said, so a typo is found here or nowhere: an unknown key is refused with the nearest known one.
 *
 * Every default is said as somebody would write it (`prefault`), so that docs/log-opts.md is made from the schema alone.
 */
import { posix } from 'node:path'
import * as z from 'zod'
import { byteSize, duration, list, topicName, unknownKey } from '../wire/settings.ts'
import { type ContainerInfo, derivedModule, derivedService, extraAttributes, fillTemplate } from './container.ts'
import { DriverError } from './errors.ts'
import type { RunOptions } from './run.ts'

/** Names travel with every chunk; what is longer is cut where it was derived and refused where somebody said it. */
const MAX_NAME = 1024
/** Attributes travel with every chunk, too. */
const MAX_ATTRS_BYTES = 8 * 1024
/** Readers of a chunk take no more of either. */
const MAX_ATTR_UNITS = 4096
const MAX_ATTRS = 256

const KIB = 1024

const template = z.string().max(MAX_NAME, { error: `is longer than ${MAX_NAME} characters` })
/**
 * A regular expression in RE2's syntax, as Docker's own drivers take it; its time is linear in what it is held against, and so the
 * variables of one container can't hold up the others'. What is empty selects nothing.
 */
const regex = template.transform(async (text, context) => {
  if (text === '') return undefined
  // Most hosts never need it.
  const { RE2JS } = await import('re2js')
  try {
    const compiled = RE2JS.compile(text)
    return (name: string): boolean => compiled.test(name)
  } catch (error) {
    context.addIssue({ code: 'custom', message: `is no regular expression: ${(error as Error).message}` })
    return z.NEVER
  }
})
const flag = z.enum(['true', 'false'], { error: 'must be true or false' }).transform((text) => text === 'true')
const positive = z
  .string()
  .regex(/^\d{1,6}$/, { error: 'must be a whole number' })
  .transform(Number)
  .pipe(z.number().min(1, { error: 'must be at least 1' }))

export const logOptsSchema = z.object({
  service: template
    .optional()
    .describe('Name of the service: the folder of its files. Takes tag template fields such as `{{.ImageName}}`.'),
  module: template
    .optional()
    .describe('Name of the module: the folder below the service. Takes tag template fields such as `{{.Name}}`.'),
  labels: list.prefault('').describe('Labels of the container that go with its lines as attributes, commas between.'),
  'labels-regex': regex
    .optional()
    .describe('The same for every label whose name matches, a regular expression in RE2’s syntax.'),
  env: list
    .prefault('')
    .describe('Environment variables of the container that go with its lines as attributes, commas between.'),
  'env-regex': regex.optional().describe('The same for every variable whose name matches.'),
  tag: template
    .optional()
    .describe('Goes with the lines as the attribute `tag`. Takes tag template fields; Docker’s own default is no tag.'),
  'kafka-key': z
    .enum(['module', 'run'], { error: 'must be module or run' })
    .prefault('module')
    .describe(
      'What chooses the Kafka partition: `module` keeps all containers of a module in one partition and so in one file; `run` spreads them, for a module that is too much for one partition.',
    ),
  'kafka-topic': topicName
    .optional()
    .describe("Another topic than the plugin's own; one that its setting `KAFKA_TOPICS_ALLOWED` allows."),
  format: z
    .enum(['chunk', 'json'], { error: 'must be chunk or json' })
    .prefault('chunk')
    .describe(
      'What a record is: `chunk`, many lines in MessagePack, or `json`, a line each, for readers of your own at several times the cost ([format](format.md)).',
    ),
  'on-full': z
    .enum(['drop-oldest', 'block'], { error: 'must be drop-oldest or block' })
    .prefault('drop-oldest')
    .describe(
      'What happens when the journals are full of lines that Kafka does not take: the oldest of the largest journal are dropped and counted, or the container waits, for `block-max` at most, before that.',
    ),
  'block-max': duration(60_000)
    .prefault('1s')
    .describe(
      'For how long in a row the container may be made to wait: with `on-full=block`, and while the disk of the journal refuses bytes.',
    ),
  'max-line-bytes': byteSize
    .pipe(
      z
        .number()
        .min(KIB, { error: 'must be at least 1k' })
        .max(480 * KIB, { error: 'must be at most 480k' }),
    )
    .prefault('256k')
    .describe('A longer line is cut into pieces of this many bytes, each a line of its own in the file.'),
  'cache-disabled': flag
    .prefault('false')
    .describe(
      '`true`: nothing is kept for `docker logs` once Kafka has it. Saves its room on the disk; the files are not touched by it.',
    ),
  'cache-max-size': byteSize
    .prefault('20m')
    .describe(
      'Times `cache-max-file`: what is kept on the host for `docker logs` of the container, once Kafka has it. The oldest goes first.',
    ),
  'cache-max-file': positive.prefault('5').describe('See `cache-max-size`.'),
})

/** Options of dockerd itself, or of the drivers that people come from: accepted, and without meaning for us. */
export const DOCKERD_OPTS = ['mode', 'max-buffer-size', 'cache-compress', 'max-size', 'max-file', 'compress']

const KNOWN = [...Object.keys(logOptsSchema.shape), ...DOCKERD_OPTS]

/** A JSON record has to fit into what brokers take, blown up as it may be. */
const MAX_JSON_LINE_BYTES = 256 * KIB

const refused = (key: string, value: string, why: string): DriverError =>
  new DriverError('LOG_OPT_INVALID', `log-opt ${key}=${value}: ${why}`)

/** What the log-opts of a container and its labels say. */
export type LogOpts = { service: string; module: string; attrs: Record<string, string>; options: RunOptions }

/** Topics that a container may name, as patterns. */
export type TopicRule = { own: string; allowed: readonly string[] }

/** @throws DriverError naming key, value and what is allowed */
function checkTopic(topic: string, { own, allowed }: TopicRule): void {
  if (topic === own || allowed.some((pattern) => posix.matchesGlob(topic, pattern))) return
  const others = allowed.length > 0 ? `, and what matches ${allowed.join(' ')}` : ''
  throw refused(
    'kafka-topic',
    topic,
    `this host's plugin allows ${own}${others}; others with its setting KAFKA_TOPICS_ALLOWED`,
  )
}

/**
 * @param topics which the container may name; any where it is not given
 * @throws DriverError naming key, value and what is allowed
 */
export async function readLogOpts(info: ContainerInfo, topics?: TopicRule): Promise<LogOpts> {
  const { Config } = info
  const unknown = Object.keys(Config).find((key) => !KNOWN.includes(key))
  if (unknown !== undefined) throw new DriverError('LOG_OPT_INVALID', `log-opt ${unknownKey(unknown, KNOWN)}`)
  const result = await logOptsSchema.safeParseAsync(Config)
  if (!result.success) {
    const issue = result.error.issues[0]!
    const key = String(issue.path[0])
    throw refused(key, Config[key] ?? '', issue.message)
  }
  const { data } = result
  const topic = data['kafka-topic']
  if (topic !== undefined && topics) checkTopic(topic, topics)
  if (data.format === 'json' && data['max-line-bytes'] > MAX_JSON_LINE_BYTES)
    throw refused('max-line-bytes', Config['max-line-bytes']!, 'must be at most 256k with format=json')
  const filled = (key: 'service' | 'module' | 'tag'): string | undefined => {
    const value = data[key]
    if (value === undefined) return undefined
    let text: string
    try {
      text = fillTemplate(value, info)
    } catch (error) {
      throw refused(key, value, (error as Error).message)
    }
    if (text.length > MAX_NAME) throw refused(key, value, `is longer than ${MAX_NAME} characters once it is filled in`)
    return text
  }
  const name = (key: 'service' | 'module', derived: string): string => {
    const text = filled(key)
    if (text?.trim() === '')
      throw refused(key, data[key]!, 'must not be empty; leave the option out to have the name derived')
    return text ?? derived.slice(0, MAX_NAME)
  }
  const tag = filled('tag')
  const attrs = { ...extraAttributes(info, data), ...(tag && { tag }) }
  const long = Object.entries(attrs).find((pair) => pair.some((text) => text.length > MAX_ATTR_UNITS))
  if (long) {
    throw new DriverError(
      'LOG_OPT_INVALID',
      `log-opts labels and env select ${long[0].slice(0, 100)}, which is longer than ${MAX_ATTR_UNITS} characters; leave it out`,
    )
  }
  const bytes = Buffer.byteLength(JSON.stringify(attrs))
  const count = Object.keys(attrs).length
  if (bytes > MAX_ATTRS_BYTES || count > MAX_ATTRS) {
    throw new DriverError(
      'LOG_OPT_INVALID',
      `log-opts labels, env and tag select ${count} attributes of ${bytes} bytes; at most ${MAX_ATTRS} of ${MAX_ATTRS_BYTES} can go with the lines`,
    )
  }
  return {
    service: name('service', derivedService(info)),
    module: name('module', derivedModule(info)),
    attrs,
    options: {
      maxLineBytes: data['max-line-bytes'],
      cacheBytes: data['cache-disabled'] ? 0 : data['cache-max-size'] * data['cache-max-file'],
      key: data['kafka-key'],
      ...(topic !== undefined && { topic }),
      format: data.format,
      onFull: data['on-full'],
      blockMs: data['block-max'],
    },
  }
}
