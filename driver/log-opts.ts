/**
 * Log-opts: what `--log-opt` takes, in one schema, and what follows from it for a container. dockerd hands over whatever was
 * said, so a typo is found here or nowhere: an unknown key is refused with the nearest known one.
 */
import { z } from 'zod'
import { unknownKey } from '../wire/settings.ts'
import { type ContainerInfo, derivedModule, derivedService, fillTemplate } from './container.ts'
import { DriverError } from './errors.ts'

/** Names travel with every chunk; what is longer is cut where it was derived and refused where somebody said it. */
const MAX_NAME = 1024

const template = z.string().max(MAX_NAME, { error: `is longer than ${MAX_NAME} characters` })

export const logOptsSchema = z.object({
  service: template
    .optional()
    .describe('Name of the service: the folder of its files. Takes tag template fields such as {{.ImageName}}.'),
  module: template
    .optional()
    .describe('Name of the module: the folder below the service. Takes tag template fields such as {{.Name}}.'),
})

/** Options of dockerd itself, or of the drivers that people come from: accepted, and without meaning for us. */
const DOCKERD_OPTS = [
  'mode',
  'max-buffer-size',
  'cache-disabled',
  'cache-max-size',
  'cache-max-file',
  'cache-compress',
  'max-size',
  'max-file',
  'compress',
]

const KNOWN = [...Object.keys(logOptsSchema.shape), ...DOCKERD_OPTS]

const refused = (key: string, value: string, why: string): DriverError =>
  new DriverError('LOG_OPT_INVALID', `log-opt ${key}=${value}: ${why}`)

/** What the log-opts of a container and its labels say. */
export type LogOpts = { service: string; module: string }

/** @throws DriverError naming key, value and what is allowed */
export function readLogOpts(info: ContainerInfo): LogOpts {
  const unknown = Object.keys(info.Config).find((key) => !KNOWN.includes(key))
  if (unknown !== undefined) throw new DriverError('LOG_OPT_INVALID', `log-opt ${unknownKey(unknown, KNOWN)}`)
  const result = logOptsSchema.safeParse(info.Config)
  if (!result.success) {
    const issue = result.error.issues[0]!
    const key = String(issue.path[0])
    throw refused(key, info.Config[key] ?? '', issue.message)
  }
  const name = (key: 'service' | 'module', derived: string): string => {
    const value = result.data[key]
    if (value === undefined) return derived.slice(0, MAX_NAME)
    let filled: string
    try {
      filled = fillTemplate(value, info)
    } catch (error) {
      throw refused(key, value, (error as Error).message)
    }
    if (filled.trim() === '')
      throw refused(key, value, 'must not be empty; leave the option out to have the name derived')
    if (filled.length > MAX_NAME)
      throw refused(key, value, `is longer than ${MAX_NAME} characters once it is filled in`)
    return filled
  }
  return { service: name('service', derivedService(info)), module: name('module', derivedModule(info)) }
}
