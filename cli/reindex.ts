/**
 * `tallyman reindex`: the index of days made whole again.
 *
 * Exit status: 0 all is as it was written; 1 some of it could only be made of the files; 2 something could not be read.
 */
import type { ReindexEvent, StatusAnswer } from '../consumer/api-schema.ts'
import { ask, stream } from './api.ts'
import { useColours } from './colours.ts'
import { CliError, EXIT } from './errors.ts'
import { sayGaps } from './history.ts'
import { fromEach } from './merge.ts'
import { type GlobalOptions, serversFor } from './selection.ts'
import type { Server } from './servers.ts'
import { bytes, table } from './table.ts'
import { clearProgress, print, progress, say } from './terminal.ts'

export type ReindexOptions = GlobalOptions & {
  service?: string
  module?: string
  day?: string
  kafka: boolean
  json?: boolean
}

type End = Extract<ReindexEvent, { type: 'end' }>

const STEPS = { index: 'days of the index', kafka: 'records of Kafka', files: 'bytes of files' } as const

export async function reindex(options: ReindexOptions): Promise<void> {
  const { json, color } = options
  const servers = await serversFor(options)
  const answers = await fromEach(servers, (server) => mended(server, options))
  for (const { server, answer } of answers) sayGaps(server, answer.partial)
  await sayOthers(servers)
  const days = answers.flatMap(({ server, answer }) => answer.days.map((day) => ({ server: server.name, ...day })))
  if (json) await print(days.map((day) => `${JSON.stringify(day)}\n`).join(''))
  else {
    const shown = days.filter(({ changed, blank, damaged }) => changed || blank + damaged > 0)
    const rows = shown.map(({ server, day, blank, fromKafka, fromFiles, guessed, changed }) => [
      ...(servers.length > 1 ? [server] : []),
      ...[day, changed ? 'rebuilt' : 'as it was', ...[blank, fromKafka, fromFiles, guessed].map(bytes)],
    ])
    const head = [
      ...(servers.length > 1 ? ['consumer'] : []),
      'day',
      'index',
      'blank',
      'from Kafka',
      'from files',
      'guessed',
    ]
    const colours = useColours(color, process.stdout, process.env)
    if (rows.length > 0) await print(`${table(head, rows, head.length - 4, colours)}\n`)
    else say(`the index of ${days.length === 1 ? 'this day' : `all ${days.length} days`} is whole`)
  }
  const whole = days.every(({ blank, fromKafka }) => blank === fromKafka)
  process.exitCode ??= whole ? EXIT.GOOD : EXIT.BAD
}

/** Says whose index was not meant: each consumer has its own. */
async function sayOthers(servers: Server[]): Promise<void> {
  const answers = await fromEach(servers, (server) => ask<StatusAnswer>(server, 'api/v1/status'))
  const roots = new Set(answers.flatMap(({ answer }) => answer.consumers.map(({ root }) => root)))
  const others = roots.size - answers.length
  if (others > 0) say(`beside these there are ${others} more consumers, each with an index of its own: ask them, too`)
}

/** @throws CliError BROKEN_OFF where it does not come to its end */
async function mended(server: Server, { service, module, day, kafka }: ReindexOptions): Promise<End> {
  const body = { service, module, day, kafka }
  // It tells of its steps, not of each moment: a large index takes its time.
  for await (const events of stream<ReindexEvent>(server, 'api/v1/reindex', { method: 'POST', body, silence: 0 })) {
    for (const event of events) {
      if (event.type === 'end') {
        clearProgress()
        return event
      }
      const { step, done, total } = event
      progress(() => `${server.name}: ${done.toLocaleString('en')} of ${total.toLocaleString('en')} ${STEPS[step]}`)
    }
  }
  throw new CliError('BROKEN_OFF', `the answer of ${server.name} broke off; what is done by then is done, ask again`)
}
