/** `tallyman ls`: what there is: modules, or the days of them. */
import type { DaysAnswer, ModuleDay, ModuleOverview, ServicesAnswer } from '../consumer/api-schema.ts'
import { ask, type Query } from './api.ts'
import { useColours } from './colours.ts'
import { EXIT } from './errors.ts'
import { sayGaps } from './history.ts'
import { apart, fromEach } from './merge.ts'
import { type GlobalOptions, isOneModule, rangeOf, serversFor } from './selection.ts'
import type { Server } from './servers.ts'
import { bytes, number, table } from './table.ts'
import { print, say } from './terminal.ts'
import { age } from './time.ts'

export type LsOptions = GlobalOptions & { days?: boolean; since?: string; until?: string; json?: boolean }

const now = Date.now()
const ago = (time: string): string => age(now - Date.parse(time))

export async function ls(targets: string[], options: LsOptions): Promise<void> {
  const servers = await apart(await serversFor(options))
  const range = rangeOf(options, now)
  const byDay = options.days || range.since !== undefined || range.until !== undefined || isOneModule(targets)
  const query = {
    target: targets,
    ...(byDay && { since: range.since?.slice(0, 10), until: range.until?.slice(0, 10) }),
  }
  const rows = byDay ? await days(servers, query) : await modules(servers, query)
  if (rows.length === 0) {
    say(targets.length > 0 ? `there is nothing of ${targets.join(', ')}` : 'there is nothing yet')
    process.exitCode ??= EXIT.BAD
  }
  const colours = useColours(options.color, process.stdout, process.env)
  if (options.json) await print(rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  else if (rows.length > 0) {
    await print(byDay ? ofDays(rows as ModuleDay[], colours) : ofModules(rows as ModuleOverview[], colours))
  }
}

async function modules(servers: Server[], query: Query): Promise<ModuleOverview[]> {
  const answers = await fromEach(servers, (server) => ask<ServicesAnswer>(server, 'api/v1/services', { query }))
  for (const { server, answer } of answers) sayGaps(server, answer.partial)
  return answers.flatMap(({ answer }) => answer.modules)
}

async function days(servers: Server[], query: Query): Promise<ModuleDay[]> {
  const answers = await fromEach(servers, (server) => ask<DaysAnswer>(server, 'api/v1/days', { query }))
  for (const { server, answer } of answers) sayGaps(server, answer.partial)
  return answers.flatMap(({ answer }) => answer.days)
}

function ofModules(rows: ModuleOverview[], colours: boolean): string {
  const cells = rows
    .sort((a, b) => (`${a.service}/${a.module}` < `${b.service}/${b.module}` ? -1 : 1))
    .map(({ service, module, days, bytes: size, lines, lost, last }) => [
      ...[`${service}/${module}`, number(days), bytes(size), number(lines), number(lost)],
      ago(last),
    ])
  return `${table(['module', 'days', 'size', 'lines', 'lost', 'last line'], cells, 1, colours)}\n`
}

function ofDays(rows: ModuleDay[], colours: boolean): string {
  const cells = rows
    .sort((a, b) => (`${a.service}/${a.module} ${a.day}` < `${b.service}/${b.module} ${b.day}` ? -1 : 1))
    .map(({ service, module, day, files, bytes: size, lines, lost, last }) => [
      ...[`${service}/${module}`, day, [...new Set(files.map(({ compressed }) => compressed ?? 'text'))].join(' ')],
      ...[number(files.length), bytes(size), number(lines), number(lost), ago(last)],
    ])
  return `${table(['module', 'day', 'as', 'files', 'size', 'lines', 'lost', 'last line'], cells, 3, colours)}\n`
}
