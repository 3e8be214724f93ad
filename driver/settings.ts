/** The plugin's settings: the env of plugin-config.json, set by `docker plugin set` and empty where nobody did. */
import { z } from 'zod'
import { commonSettings } from '../wire/settings.ts'

const UNITS: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }

/** Bytes, as Docker writes them: `512m`, `2g`. */
const byteSize = z
  .string()
  .regex(/^\d+[kmg]?b?$/i, { error: 'must be a number of bytes, such as 512m or 2g' })
  .transform((text) => Number.parseInt(text, 10) * UNITS[/[kmg]/i.exec(text)?.[0].toLowerCase() ?? '']!)

export const settingsSchema = z.object({
  ...commonSettings,
  JOURNAL_MAX: byteSize
    .pipe(z.number().min(64 * 1024 ** 2, { error: 'must be at least 64m' }))
    .default(2 * 1024 ** 3)
    .describe(
      'Bytes that the journals of all runs may take, such as 2g. Beyond it the oldest lines of the largest one go, counted.',
    ),
})

export type Settings = z.infer<typeof settingsSchema>
