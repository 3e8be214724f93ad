/**
 * What follows from the schemas of log-opts and settings: docs/log-opts.md, docs/settings.md and the env of
 * plugin-config.json. `make docs` writes them; a unit test compares what is there with what would be written.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { z } from 'zod'
import { settingsSchema as consumerSettings } from '../consumer/settings.ts'
import { FIELDS } from '../driver/container.ts'
import { DOCKERD_OPTS, logOptsSchema } from '../driver/log-opts.ts'
import { settingsSchema as pluginSettings } from '../driver/settings.ts'
import { cliDocs, manPage } from './cli-docs.ts'

const repo = join(import.meta.dirname, '..')

type Entry = { name: string; fallback: string | undefined; description: string }

/** Name, default as one would write it, and description of each key. @throws Error for a key that does not say them */
export function entriesOf(schema: z.ZodObject): Entry[] {
  return Object.entries(schema.shape).map(([name, key]) => {
    const { def, description } = key as z.ZodType & { def: { type: string; defaultValue?: unknown } }
    if (description === undefined) throw new Error(`${name} has no description`)
    if (def.type === 'optional') return { name, fallback: undefined, description }
    const fallback = def.defaultValue
    if (!['string', 'number', 'boolean'].includes(typeof fallback))
      throw new Error(`${name} has no default that could be written down; use prefault`)
    return { name, fallback: String(fallback), description }
  })
}

const row = (...cells: string[]): string => `| ${cells.join(' | ')} |`

const table = (schema: z.ZodObject, head: string): string =>
  [
    row(head, 'default', 'meaning'),
    row('---', '---', '---'),
    ...entriesOf(schema).map(({ name, fallback, description }) =>
      row(`\`${name}\``, fallback ? `\`${fallback}\`` : '', description),
    ),
  ].join('\n')

const code = (names: readonly string[]): string => names.map((name) => `\`${name}\``).join(' ')

const logOpts = (): string => `# Log-opts

What \`--log-opt\` takes with \`--log-driver tallyman\`. A key that is not known, or a value that is not allowed, makes \`docker run\`
fail with a sentence that says so.

${table(logOptsSchema, 'log-opt')}

Accepted as well, because dockerd handles them itself or other drivers take them: ${code(DOCKERD_OPTS)}.

Tag template fields: ${code(Object.keys(FIELDS).map((field) => `{{.${field}}}`))}.

Without \`service\`, the first of these that a container has names the service: the label \`tallyman.service\`, its Swarm stack, its
Compose project, its image's repository. Without \`module\`: the label \`tallyman.module\`, its Swarm service without the stack,
its Compose service, its own name.

\`docker logs\` reads the plugin's journal. \`--details\` shows nothing more, because dockerd drops what a plugin adds to a line. The
attributes that \`labels\`, \`env\` and \`tag\` select travel with the lines through Kafka ([format](format.md)).
`

const settings = (): string => `# Settings

All of them are environment variables; an empty one counts as not set. A mistake keeps the program from starting, and every
mistake is named at once. Sizes are bytes, or end in \`k\`, \`m\` or \`g\`.

## The plugin

Set with \`docker plugin set tallyman NAME=VALUE\` while it is disabled. Files that settings name are those that the plugin sees: it
has the folder of the host that \`docker plugin set tallyman certs.source=/etc/tallyman\` says at \`/run/tallyman/certs\`.

${table(pluginSettings, 'setting')}

## The consumer

${table(consumerSettings, 'setting')}
`

/** What nobody is to set, and a process has to have from its first moment on. */
const FIXED_ENV = [
  {
    name: 'MALLOC_ARENA_MAX',
    description: 'For the C library: one heap for all threads, a tenth less memory than with one for each.',
    settable: [],
    value: '1',
  },
]

function pluginConfig(): string {
  const config = JSON.parse(readFileSync(join(repo, 'plugin-config.json'), 'utf8'))
  config.env = [
    ...FIXED_ENV,
    ...entriesOf(pluginSettings).map(({ name, fallback, description }) => ({
      name,
      description: `${description.replaceAll('`', '')} Empty: ${fallback || 'not set'}.`,
      settable: ['value'],
      value: '',
    })),
  ]
  return `${JSON.stringify(config, undefined, 2)}\n`
}

/** Each file, by its path in the repository, as the schemas want it. */
export const generated: Record<string, () => string> = {
  'docs/log-opts.md': logOpts,
  'docs/settings.md': settings,
  'plugin-config.json': pluginConfig,
  'docs/cli.md': cliDocs,
  'man/tallyman.1': manPage,
}

if (import.meta.main) {
  for (const [path, text] of Object.entries(generated)) {
    mkdirSync(dirname(join(repo, path)), { recursive: true })
    writeFileSync(join(repo, path), text())
  }
}
