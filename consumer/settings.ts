/** The consumer's settings, from its environment. */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { filePath } from '../wire/security.ts'
import {
  address,
  byteSize,
  commonSettings,
  duration,
  list,
  readSettings,
  SettingsError,
  topicName,
} from '../wire/settings.ts'
import { readCertificate } from './certificate.ts'
import { isLoopback } from './loopback.ts'
import { readTokens } from './tokens.ts'

const count = (least: number, most: number) => z.coerce.number().pipe(z.int().min(least).max(most))

const MAX_COMPRESS_AFTER_MS = 30 * 86_400_000
const MAX_SEARCH_IDLE_MS = 86_400_000

const timeZone = z.string().refine(
  (zone) => {
    try {
      new Intl.DateTimeFormat('en', { timeZone: zone })
      return true
    } catch {
      return false
    }
  },
  { error: 'must be an IANA time zone such as UTC or Europe/Berlin' },
)

const urls = list.refine(
  (items) =>
    items.every(
      (item) => ['http:', 'https:'].includes(URL.parse(item)?.protocol ?? '') && URL.parse(item)?.pathname === '/',
    ),
  { error: 'must be an address such as https://logs-2:4680, several with commas between' },
)

export const settingsSchema = z.object({
  ...commonSettings,
  KAFKA_GROUP: z
    .string()
    .min(1)
    .max(255)
    .default('tallyman')
    .describe('Consumer group; its members share the partitions.'),
  KAFKA_LEDGER_TOPIC: topicName
    .optional()
    .describe(
      'Topic in which consumers of a group leave for each other what they know of their partitions; compacted, created where it is missing. Not set: KAFKA_TOPIC with `-ledger` behind it.',
    ),
  KAFKA_FETCH_BYTES: byteSize
    .prefault('2m')
    .describe('Bytes that one answer of a broker may bring, as they are compressed; memory grows with it.'),
  KAFKA_PARTITIONS: count(1, 10_000).default(12).describe('Partitions of the topic, where it has to be created.'),
  KAFKA_REPLICATION: count(1, 100)
    .default(2)
    .describe('Replicas of the topic, where it has to be created; as many as there are brokers where those are fewer.'),
  ROOT: z
    .string()
    .startsWith('/', { error: 'must be an absolute path' })
    .default('/var/log/tallyman')
    .describe('Folder of the files.'),
  TZ_FILES: timeZone.default('UTC').describe('Time zone whose midnight ends a day file.'),
  LINE_FORMAT: z.enum(['text', 'raw', 'jsonl']).default('text').describe('Layout of a line in the files.'),
  KEEP_DAYS: count(1, 3650)
    .default(7)
    .describe('Days that are kept; a line whose own day is older, or beyond tomorrow, goes to the day it arrived.'),
  KEEP_BYTES: byteSize
    .optional()
    .describe(
      'Bytes that all files may take up, such as 200g: beyond it whole days are removed, the oldest first, the live one never. Not set: no limit.',
    ),
  COMPRESS: z
    .enum(['zst', 'gz', 'none'])
    .default('zst')
    .describe('How files of closed days are compressed: `zst`, `gz` or `none`.'),
  COMPRESS_AFTER: duration(MAX_COMPRESS_AFTER_MS)
    .prefault('1h')
    .describe('For so long a day has to be over, and a file of it not written to, before it is compressed.'),
  MIN_FREE: byteSize
    .optional()
    .describe(
      'Bytes of the disk that stay free: below it nothing more is written, Kafka holds the lines, and it goes on by itself once there is room. Not set: 5 % of the disk, at least 1g.',
    ),
  DEAD_LETTERS_MAX: byteSize
    .prefault('64m')
    .describe(
      'Bytes that records which could not be decoded may take up; what does not fit is counted, and only Kafka has it.',
    ),
  OPEN_FILES: count(8, 100_000).default(256).describe('Files that are held open at most.'),
  HTTP_ADDR: address
    .prefault('127.0.0.1:4680')
    .describe('Where HTTP is served, host:port. Beyond loopback it needs TOKENS_FILE.'),
  TOKENS_FILE: filePath.describe(
    'File that lists who may read what ([access](operate.md#access)); heeded again when it changes. Without it whoever reaches HTTP_ADDR may read everything.',
  ),
  TLS_CERT_FILE: filePath.describe(
    'Certificate (PEM) to serve HTTP with, and those in between behind it; read again when it changes. Without it: no TLS.',
  ),
  TLS_KEY_FILE: filePath.describe('The private key (PEM) of that certificate.'),
  RATE_LIMIT: count(0, 1_000_000)
    .default(3_000)
    .describe('Requests over HTTP a minute that one token, or one address without one, may make; 0: any number.'),
  STREAMS_MAX: count(1, 10_000)
    .default(64)
    .describe('Tails, searches and downloads that one token, or one address without one, may have open.'),
  SEARCHES_MAX: count(1, 1_000)
    .default(4)
    .describe('Searches that run at a time; others wait for their turn. One token never has all of them.'),
  SEARCH_IDLE: duration(MAX_SEARCH_IDLE_MS)
    .prefault('2m')
    .describe(
      'A search whose reader takes nothing for so long is ended, because others may wait for its turn; 0s: it is never.',
    ),
  TAIL_BUFFER: byteSize
    .prefault('4m')
    .describe(
      'What a reader of a live tail may be behind, in bytes as they are sent, before lines are left out for it.',
    ),
  TAIL_MEMORY: byteSize
    .prefault('128m')
    .describe(
      'What all readers of live tails take up together, in bytes: where many follow, each may be less behind than TAIL_BUFFER, and lines are put in order over a shorter time.',
    ),
  INDEX_CACHE: byteSize
    .prefault('128m')
    .describe('Memory for the index of days that are read; a day of a larger index is read anew for each question.'),
  CONSUMER_NAME: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,64}$/, { error: 'must be 1 to 64 letters, digits and . _ -' })
    .optional()
    .describe('What this consumer is called among several. Not set: the name of its host.'),
  PEERS: urls
    .prefault('')
    .describe(
      'Addresses of the other consumers ([several consumers](operate.md#several-consumers)), such as https://logs-2:4680, commas between: this one answers for all. Its own may be among them.',
    ),
  PEERS_TOKEN_FILE: filePath.describe('File with the token that those let in.'),
})

export type Settings = z.infer<typeof settingsSchema>

/**
 * The settings, as the environment says them.
 * @throws SettingsError naming every mistake
 */
export function consumerSettings(env: Readonly<Record<string, string | undefined>>): Settings {
  const settings = readSettings(settingsSchema, env, ['KAFKA_', 'TLS_', 'TOKENS_', 'TOKEN_FILE', 'PEER'])
  const problems = httpProblems(settings)
  if (problems.length > 0) throw new SettingsError(problems)
  return settings
}

/** What the settings of HTTP, each of them allowed, say that does not go together, or name that can't be used. */
function httpProblems(settings: Settings): string[] {
  const {
    HTTP_ADDR: { host, port },
    TOKENS_FILE,
    TLS_CERT_FILE,
    TLS_KEY_FILE,
    PEERS_TOKEN_FILE,
  } = settings
  const problems: string[] = []
  const attempt = (use: () => void) => {
    try {
      use()
    } catch (error) {
      problems.push((error as Error).message)
    }
  }
  if (TOKENS_FILE) attempt(() => readTokens(TOKENS_FILE))
  else if (!isLoopback(host)) {
    problems.push(
      `HTTP_ADDR=${host}:${port} is beyond loopback, where everybody could read everything: set TOKENS_FILE, or serve 127.0.0.1`,
    )
  }
  if (!TLS_CERT_FILE !== !TLS_KEY_FILE)
    problems.push('TLS_CERT_FILE and TLS_KEY_FILE go together; one of them is missing')
  if (TLS_CERT_FILE && TLS_KEY_FILE) attempt(() => readCertificate({ cert: TLS_CERT_FILE, key: TLS_KEY_FILE }))
  if (PEERS_TOKEN_FILE) {
    try {
      readFileSync(PEERS_TOKEN_FILE)
    } catch (error) {
      problems.push(`PEERS_TOKEN_FILE=${PEERS_TOKEN_FILE} can't be read: ${(error as Error).message}`)
    }
  }
  return problems
}
