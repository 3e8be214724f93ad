/** `tallyman ledger`: lines by where they are from, as the ledger counts them. */
import type { LedgerAnswer, LedgerRow, LineCount } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { sayGaps } from './history.ts'
import { apart, fromEach } from './merge.ts'
import { type GlobalOptions, serversFor } from './selection.ts'
import { number, table } from './table.ts'
import { print } from './terminal.ts'

export type LedgerOptions = GlobalOptions & {
  by: string
  service?: string
  module?: string
  host?: string
  since?: string
  json?: boolean
}

export const COUNTS = ['lines', 'written', 'lost', 'claimed', 'doubled', 'ratio']

export const cells = ({ lines, written, lost, claimed, doubled, ratio }: LineCount): string[] => [
  ...[lines, written, lost, claimed, doubled].map(number),
  ratio.toExponential(1),
]

export async function ledger(options: LedgerOptions): Promise<void> {
  const { by, service, module, host, since, json } = options
  const servers = await apart(await serversFor(options))
  const query = { by, service, module, host, since }
  const answers = await fromEach(servers, (server) =>
    ask<LedgerAnswer & { rows: LedgerRow[] }>(server, 'api/v1/ledger', { query }),
  )
  for (const { server, answer } of answers) sayGaps(server, answer.partial)
  if (json) return print(asJson(servers.length, answers))
  for (const { server, answer } of answers) {
    if (servers.length > 1) await print(`${server.name}\n`)
    const names = (['service', 'module', 'day', 'host'] as const).filter((name) => answer.rows[0]?.[name] !== undefined)
    const rows = answer.rows.map((row) => [...names.map((name) => row[name]!), ...cells(row)])
    await print(`${table([...names, ...COUNTS], rows, names.length)}\n`)
  }
}

/** What one server says, or what each says by its name. */
export function asJson(servers: number, answers: { server: { name: string }; answer: unknown }[]): string {
  const said =
    servers === 1 ? answers[0]!.answer : Object.fromEntries(answers.map(({ server, answer }) => [server.name, answer]))
  return `${JSON.stringify(said, undefined, 2)}\n`
}
