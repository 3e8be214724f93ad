/** The plugin's settings: the env of plugin-config.json, set by `docker plugin set` and empty where nobody did. */
import { z } from 'zod'
import { commonSettings } from '../wire/settings.ts'

export const settingsSchema = z.object({ ...commonSettings })

export type Settings = z.infer<typeof settingsSchema>
