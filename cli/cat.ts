/** `tallyman cat`: all lines of a range, the oldest first. */
import { history } from './history.ts'
import { layout } from './layout.ts'
import { mergeByTime, once } from './merge.ts'
import { layoutOf, queryOf, type SelectionOptions, serversFor, targetsOf } from './selection.ts'
import { print } from './terminal.ts'

export async function cat(given: string[], options: SelectionOptions): Promise<void> {
  const servers = await serversFor(options)
  const targets = await targetsOf(given, servers)
  const query = queryOf(targets, options, Date.now())
  const show = layout(layoutOf(targets, options))
  const first = once(servers)
  const sources = servers.map((server) => history(server, query))
  for await (const lines of mergeByTime(sources, ({ time }) => time)) await print(first(lines).map(show).join(''))
}
