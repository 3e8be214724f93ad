/** The consumer's settings, from its environment. */
import { z } from 'zod'
import { address, byteSize, commonSettings } from '../wire/settings.ts'

const count = (least: number, most: number) => z.coerce.number().pipe(z.int().min(least).max(most))

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

export const settingsSchema = z.object({
  ...commonSettings,
  KAFKA_GROUP: z
    .string()
    .min(1)
    .max(255)
    .default('tallyman')
    .describe('Consumer group; its members share the partitions.'),
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
  MIN_FREE: byteSize
    .optional()
    .describe(
      'Bytes of the disk that stay free: below it nothing more is written, Kafka holds the lines, and it goes on by itself once there is room. Not set: 5 % of the disk, at least 1g.',
    ),
  OPEN_FILES: count(8, 100_000).default(256).describe('Files that are held open at most.'),
  HTTP_ADDR: address.prefault('127.0.0.1:4680').describe('Where HTTP is served, host:port.'),
})

export type Settings = z.infer<typeof settingsSchema>
