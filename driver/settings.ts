/** The plugin's settings: the env of plugin-config.json, set by `docker plugin set` and empty where nobody did. */
import { z } from 'zod'
import { address, byteSize, commonSettings } from '../wire/settings.ts'

export const settingsSchema = z.object({
  ...commonSettings,
  JOURNAL_MAX: byteSize
    .pipe(z.number().min(64 * 1024 ** 2, { error: 'must be at least 64m' }))
    .prefault('2g')
    .describe(
      'Bytes that the journals of all runs may take, such as 2g. Beyond it what is kept for docker logs goes first, then the oldest lines of the largest journal, counted.',
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
