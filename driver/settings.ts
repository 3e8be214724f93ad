/** The plugin's settings: the env of plugin-config.json, set by `docker plugin set` and empty where nobody did. */
import * as z from 'zod'
import { address, byteSize, commonSettings, duration, list } from '../wire/settings.ts'

export const settingsSchema = z.object({
  ...commonSettings,
  KAFKA_TOPICS_ALLOWED: list
    .prefault('')
    .describe(
      'Topics that the log-opt `kafka-topic` may name beside `KAFKA_TOPIC`, commas between; `*` stands for any characters. Empty: none.',
    ),
  KAFKA_COMPRESSION: z
    .enum(['zstd', 'gzip', 'none'], { error: 'must be zstd, gzip or none' })
    .prefault('zstd')
    .describe('How record batches are compressed: `zstd`, `gzip` or `none`.'),
  KAFKA_ACKS: z
    .enum(['all', 'leader'], { error: 'must be all or leader' })
    .prefault('all')
    .describe(
      'Who has to have a line before the journal may drop it: `all` in-sync replicas, or the `leader` alone, with which lines are lost when a broker dies.',
    ),
  LINGER: duration(1_000)
    .prefault('10ms')
    .describe('Sends start at least this far apart, so that each carries more lines; not where 256 KiB wait.'),
  JOURNAL_MAX: byteSize
    .pipe(z.number().min(64 * 1024 ** 2, { error: 'must be at least 64m' }))
    .prefault('2g')
    .describe(
      'Bytes that the journals of all runs may take, such as 2g. Beyond it what is kept for docker logs goes first, then the oldest lines of the largest journal, counted.',
    ),
  JOURNAL_SYNC: duration(60_000)
    .prefault('1s')
    .describe(
      'What Kafka has not taken for this long is synced to the disk, and from then on this often: as much is lost when a host loses its power while Kafka is away. `0s`: left to the kernel.',
    ),
  METRICS_ADDR: z
    .union([z.literal('off').transform(() => undefined), address])
    .prefault('127.0.0.1:9463')
    .describe('Where `/metrics` for Prometheus and `/healthz` are served, host:port; `off`: nowhere.'),
  HOST_NAME: z.string().max(253).prefault('').describe('What the host is called in the records. Empty: its own name.'),
  RUNS_MAX: z.coerce
    .number({ error: 'must be a whole number' })
    .int({ error: 'must be a whole number' })
    .min(0, { error: 'must be 0 or more' })
    .max(30_000, { error: 'must be at most 30000' })
    .default(1000)
    .describe('As many runs that are over are kept for docker logs; the oldest go first.'),
})

export type Settings = z.infer<typeof settingsSchema>
