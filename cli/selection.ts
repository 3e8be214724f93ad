/** Which lines are meant, and what is done with them: options that several commands share, and the API's query for them. */
import type { Query } from './api.ts'
import { useColours, type When } from './colours.ts'
import { CliError } from './errors.ts'
import type { LayoutOptions, Output } from './layout.ts'
import { type Server, serversOf } from './servers.ts'
import { parseTime } from './time.ts'

/** Of every command. */
export type GlobalOptions = { server?: string[]; color: When; utc?: boolean }

export type SelectionOptions = GlobalOptions & {
  since?: string
  until?: string
  stdout?: boolean
  stderr?: boolean
  host?: string[]
  container?: string[]
  output: Output
  json?: boolean
  highlight?: string[]
}

/** @throws CliError for a pattern that is none */
export function highlights(patterns: readonly string[] = []): RegExp[] {
  return patterns.map((pattern) => {
    try {
      return new RegExp(pattern, 'gu')
    } catch (error) {
      throw new CliError('USAGE', `--highlight: ${(error as Error).message}`)
    }
  })
}

/** `shop/api` and no glob: there is one such module, so that its name needs not be shown. */
export const isOneModule = (targets: readonly string[]): boolean =>
  targets.length === 1 && /^[^/*?]+\/[^/*?]+$/.test(targets[0]!)

/** @param now ms since 1970 */
export function rangeOf(
  { since, until }: { since?: string; until?: string },
  now: number,
): { since?: string; until?: string } {
  const moment = (text: string): string => new Date(parseTime(text, now)).toISOString()
  const range = {
    ...(since !== undefined && { since: moment(since) }),
    ...(until !== undefined && { until: moment(until) }),
  }
  if (range.since && range.until && range.since >= range.until) {
    throw new CliError('USAGE', `--since ${since} (${range.since}) is not before --until ${until} (${range.until})`)
  }
  return range
}

/** The API's `selection` and `range`. */
export function queryOf(targets: readonly string[], options: SelectionOptions, now: number): Query {
  const { stdout, stderr, host, container } = options
  return {
    target: targets,
    host,
    container,
    ...(stdout !== stderr && { source: stdout ? 'stdout' : 'stderr' }),
    ...rangeOf(options, now),
  }
}

export function layoutOf(targets: readonly string[], options: SelectionOptions): LayoutOptions {
  return {
    output: options.output,
    colours: useColours(options.color, process.stdout, process.env),
    terminal: process.stdout.isTTY === true,
    names: !isOneModule(targets),
    unfold: options.json === true,
    highlight: highlights(options.highlight),
  }
}

/** The targets, or those that are picked where none is given and somebody sits at a terminal. */
export async function targetsOf(
  given: readonly string[],
  servers: readonly Server[],
  many = true,
): Promise<readonly string[]> {
  if (given.length > 0) return given.map(checked)
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new CliError('USAGE', "say whose lines: shop/api, 'shop/*', '*/api' or a container's name; '*' is all")
  }
  return (await import('./picker.ts')).pick(servers, many)
}

function checked(target: string): string {
  if (/^[^/]+(\/[^/]+)?$/.test(target)) return target
  throw new CliError(
    'USAGE',
    `'${target}' is no target. Targets are: shop/api, 'shop/*', '*/api', a service, a container's name`,
  )
}

export const serversFor = ({ server = [] }: GlobalOptions): Promise<Server[]> => serversOf(server, process.env)
