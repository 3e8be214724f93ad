/**
 * How a connection to Kafka is secured: TLS, and SASL by name and password.
 *
 * Files are read each time a client is made, so that a certificate or password that was renewed is taken up with the next
 * connection. A file that can't be read then is as Kafka being away: tried again, and nothing is lost.
 */
import { readFileSync } from 'node:fs'
import type { KafkaConfig } from 'kafkajs'
import * as z from 'zod'

/** A file, named by a setting. */
export const filePath = z.string().startsWith('/', { error: 'must be an absolute path' }).optional()

/** Settings that every program of ours has, to be spread into its schema. */
export const securitySettings = {
  KAFKA_TLS: z
    .enum(['true', 'false'], { error: 'must be true or false' })
    .transform((text) => text === 'true')
    .prefault('false')
    .describe('Whether the brokers are spoken to over TLS.'),
  KAFKA_CA_FILE: filePath.describe(
    'Certificates (PEM) of who signs those of the brokers. Without it: those that Node knows.',
  ),
  KAFKA_CERT_FILE: filePath.describe('Our own certificate (PEM), where the brokers ask for one.'),
  KAFKA_KEY_FILE: filePath.describe('The private key (PEM) of our certificate.'),
  KAFKA_SASL_MECHANISM: z
    .enum(['plain', 'scram-sha-256', 'scram-sha-512'], { error: 'must be plain, scram-sha-256 or scram-sha-512' })
    .optional()
    .describe('How we say who we are: `plain`, `scram-sha-256` or `scram-sha-512`. Without it: not at all.'),
  KAFKA_SASL_USERNAME: z.string().optional().describe('Our name.'),
  KAFKA_SASL_PASSWORD: z
    .string()
    .optional()
    .describe('Our password. Whoever may inspect the plugin or the container can read it.'),
  KAFKA_SASL_PASSWORD_FILE: filePath.describe('File with our password, in place of `KAFKA_SASL_PASSWORD`.'),
}

const schema = z.object(securitySettings)
export type SecuritySettings = z.infer<typeof schema>

const FILES = ['KAFKA_CA_FILE', 'KAFKA_CERT_FILE', 'KAFKA_KEY_FILE', 'KAFKA_SASL_PASSWORD_FILE'] as const

/** What the settings, each of them allowed, say that does not go together. */
export function securityProblems(settings: SecuritySettings): string[] {
  const { KAFKA_TLS, KAFKA_SASL_MECHANISM: mechanism } = settings
  const problems: string[] = []
  for (const name of ['KAFKA_CA_FILE', 'KAFKA_CERT_FILE', 'KAFKA_KEY_FILE'] as const) {
    if (settings[name] && !KAFKA_TLS) problems.push(`${name} is set, but KAFKA_TLS is not true`)
  }
  if (!settings.KAFKA_CERT_FILE !== !settings.KAFKA_KEY_FILE)
    problems.push('KAFKA_CERT_FILE and KAFKA_KEY_FILE go together; one of them is missing')
  const passwords = [settings.KAFKA_SASL_PASSWORD, settings.KAFKA_SASL_PASSWORD_FILE].filter(Boolean).length
  if (passwords === 2) problems.push('KAFKA_SASL_PASSWORD and KAFKA_SASL_PASSWORD_FILE are both set; take one away')
  if (mechanism && !settings.KAFKA_SASL_USERNAME)
    problems.push(`KAFKA_SASL_MECHANISM=${mechanism} needs KAFKA_SASL_USERNAME`)
  if (mechanism && passwords === 0)
    problems.push(`KAFKA_SASL_MECHANISM=${mechanism} needs KAFKA_SASL_PASSWORD or KAFKA_SASL_PASSWORD_FILE`)
  if (!mechanism && (passwords > 0 || settings.KAFKA_SASL_USERNAME))
    problems.push('KAFKA_SASL_USERNAME or a password is set, but KAFKA_SASL_MECHANISM is not')
  return problems
}

/** Files that the settings name and that can't be read. */
export function unreadableFiles(settings: SecuritySettings): string[] {
  const problems: string[] = []
  for (const name of FILES) {
    try {
      if (settings[name]) readFileSync(settings[name])
    } catch (error) {
      problems.push(`${name}=${settings[name]}: can't be read: ${(error as Error).message}`)
    }
  }
  return problems
}

/**
 * As kafkajs takes it, from the files as they are now.
 * @throws Error of the file system
 */
export function kafkaSecurity(settings: SecuritySettings): Pick<KafkaConfig, 'sasl'> & { ssl?: Tls } {
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file, 'utf8'))
  const { KAFKA_SASL_MECHANISM: mechanism, KAFKA_SASL_USERNAME: username = '' } = settings
  const password = read(settings.KAFKA_SASL_PASSWORD_FILE)?.replace(/\r?\n$/, '') ?? settings.KAFKA_SASL_PASSWORD ?? ''
  const [ca, cert, key] = [settings.KAFKA_CA_FILE, settings.KAFKA_CERT_FILE, settings.KAFKA_KEY_FILE].map(read)
  return {
    ...(settings.KAFKA_TLS && { ssl: { ...(ca && { ca: [ca] }), ...(cert && { cert }), ...(key && { key }) } }),
    ...(mechanism && { sasl: { mechanism, username, password } as NonNullable<KafkaConfig['sasl']> }),
  }
}

type Tls = { ca?: string[]; cert?: string; key?: string }
