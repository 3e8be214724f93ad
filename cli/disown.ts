/** `tallyman disown`: roots that are away with lines they have claimed; and to give one up, whose disk is gone. */
import { once } from 'node:events'
import { createInterface } from 'node:readline/promises'
import type { z } from 'zod'
import type { RootClaims, rootsAnswer } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { useColours } from './colours.ts'
import { CliError, EXIT } from './errors.ts'
import { fromEach } from './merge.ts'
import { type GlobalOptions, serversFor } from './selection.ts'
import type { Server } from './servers.ts'
import { number, table } from './table.ts'
import { print, say } from './terminal.ts'

export type DisownOptions = GlobalOptions & { yes?: boolean; json?: boolean }

export async function disown(root: string | undefined, options: DisownOptions): Promise<void> {
  const servers = await serversFor(options)
  const roots = await rootsOf(servers)
  if (root === undefined) return list(roots, options)
  const known = roots.find((one) => one.root === root)
  if (!known) {
    const others = roots.map((one) => one.root).join(', ') || 'none'
    throw new CliError(
      'NOT_FOUND',
      `there is no root ${root} that is away with lines it has claimed; those are: ${others}`,
    )
  }
  if (known.state === 'claimed' && !options.yes && !(await agreed(known))) {
    process.exitCode = EXIT.BAD
    return
  }
  const disowned = await byOne(servers, (server) =>
    ask<RootClaims>(server, `api/v1/roots/${root}/disown`, { method: 'POST' }),
  )
  await print(
    options.json
      ? `${JSON.stringify(disowned)}\n`
      : `${root} is disowned: at most ${number(disowned.lines)} lines that it had claimed count as lost, unless it comes back with them\n`,
  )
}

/** Consumers of one Kafka all know the same roots. */
async function rootsOf(servers: Server[]): Promise<RootClaims[]> {
  const answers = await fromEach(servers, (server) => ask<z.infer<typeof rootsAnswer>>(server, 'api/v1/roots'))
  const all = answers.flatMap(({ answer }) => answer.roots)
  return [...new Map(all.map((one) => [`${one.root} ${one.state}`, one])).values()]
}

async function byOne<T>(servers: Server[], act: (server: Server) => Promise<T>): Promise<T> {
  let failure: unknown
  for (const server of servers) {
    try {
      return await act(server)
    } catch (error) {
      if (!(error instanceof CliError)) throw error
      failure ??= error
    }
  }
  throw failure
}

async function list(roots: RootClaims[], { json, color }: DisownOptions): Promise<void> {
  if (json) return print(roots.map((root) => `${JSON.stringify(root)}\n`).join(''))
  if (roots.length === 0) return say('no root is away with lines it has claimed')
  const rows = roots.map(({ root, state, partitions, lines, uncounted }) => {
    const more = uncounted > 0 ? `, and those of ${number(uncounted)} records that Kafka dropped` : ''
    return [root, state, partitions.join(' '), `${number(lines)}${more}`]
  })
  const colours = useColours(color, process.stdout, process.env)
  await print(`${table(['root', 'is', 'partitions', 'lines at most'], rows, 3, colours)}\n`)
}

/** Nobody is asked where nobody can answer. @throws CliError there */
async function agreed({ root, lines }: RootClaims): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new CliError('USAGE', `its lines would count as lost: say --yes where the disk of ${root} is really gone`)
  }
  const asked = createInterface({ input: process.stdin, output: process.stderr })
  asked.once('SIGINT', () => process.exit(EXIT.INTERRUPTED))
  try {
    const question = `Is the disk of ${root} gone for good? At most ${number(lines)} lines will count as lost. [y/N] `
    // Ctrl-D is no answer: depending on its version, Node says so by an error or not at all.
    const answer = await Promise.race([asked.question(question).catch(() => ''), once(asked, 'close').then(() => '')])
    return /^y(es)?$/i.test(answer.trim())
  } finally {
    asked.close()
  }
}
