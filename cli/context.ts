/** `tallyman context`: a line and those around it in its file. */
import type { ContextAnswer, Line } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { CliError, EXIT } from './errors.ts'
import { sayGaps } from './history.ts'
import { layout } from './layout.ts'
import { layoutOf, type SelectionOptions, serversFor } from './selection.ts'
import type { Server } from './servers.ts'
import { print } from './terminal.ts'

export type ContextOptions = Omit<SelectionOptions, 'host' | 'container'> & {
  afterContext?: number
  beforeContext?: number
  context?: number
}

/** @param at a line's cursor, or a whole line as `-o json` prints it */
export async function context(at: string, options: ContextOptions): Promise<void> {
  const cursor = cursorOf(at)
  const around = options.context ?? 20
  const query = {
    at: cursor,
    before: options.beforeContext ?? around,
    after: options.afterContext ?? around,
  }
  const { server, answer } = await fromOne(await serversFor(options), query)
  sayGaps(server, answer.partial)
  const shown = layoutOf([], options)
  const show = layout(shown)
  const text = answer.lines.map((line, i) => {
    const asked = i === answer.index
    if (shown.output !== 'text') return show(line)
    return `${asked ? '>' : ' '} ${show(asked ? { ...line, matches: [[0, line.line.length]] } : line)}`
  })
  await print(text.join(''))
  process.exitCode ??= EXIT.GOOD
}

/** A cursor is opaque: of several servers, the one whose line it is knows it. */
async function fromOne(
  servers: readonly Server[],
  query: Record<string, string | number>,
): Promise<{ server: Server; answer: ContextAnswer }> {
  const failures: unknown[] = []
  for (const server of servers) {
    try {
      return { server, answer: await ask<ContextAnswer>(server, 'api/v1/context', { query }) }
    } catch (error) {
      failures.push(error)
    }
  }
  throw failures.find((error) => !(error instanceof CliError) || error.code !== 'NOT_FOUND') ?? failures[0]
}

function cursorOf(at: string): string {
  if (!at.startsWith('{')) return at
  try {
    const line = JSON.parse(at) as Partial<Line>
    if (typeof line.at === 'string') return line.at
  } catch {}
  throw new CliError('USAGE', "that is no line as -o json prints it: it has no 'at'")
}
