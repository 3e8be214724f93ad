/**
 * `tallyman reindex`: the index of days made whole again.
 *
 * Exit status: 0 all is as it was written; 1 some of it could only be made of the files; 2 something could not be read.
 */
import type { ReindexEvent } from '../consumer/api-schema.ts'
import { stream } from './api.ts'
import { useColours } from './colours.ts'
import { CliError, EXIT } from './errors.ts'
import { sayGaps } from './history.ts'
import { apart, fromEach } from './merge.ts'
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
  const servers = await apart(await serversFor(options))
  const answers = await fromEach(servers, (server) => mended(server, options))
  for (const { server, answer } of answers) sayGaps(server, answer.partial)
  const days = answers.flatMap(({ server, answer }) =>
    answer.days.map((day) => ({ ...day, consumer: day.consumer ?? server.name })),
  )
  const several = new Set(days.map(({ consumer }) => consumer)).size > 1
  if (json) await print(days.map((day) => `${JSON.stringify(day)}\n`).join(''))
  else {
    const shown = days.filter(({ changed, blank, damaged }) => changed || blank + damaged > 0)
    const rows = shown.map(({ consumer, day, blank, fromKafka, fromFiles, guessed, changed }) => [
      ...(several ? [consumer] : []),
      ...[day, changed ? 'rebuilt' : 'as it was', ...[blank, fromKafka, fromFiles, guessed].map(bytes)],
    ])
    const head = [...(several ? ['consumer'] : []), 'day', 'index', 'blank', 'from Kafka', 'from files', 'guessed']
    const colours = useColours(color, process.stdout, process.env)
    if (rows.length > 0) await print(`${table(head, rows, head.length - 4, colours)}\n`)
    else say(`the index of ${days.length === 1 ? 'this day' : `all ${days.length} days`} is whole`)
  }
  const whole = days.every(({ blank, fromKafka }) => blank === fromKafka)
  process.exitCode ??= whole ? EXIT.GOOD : EXIT.BAD
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
      const { consumer = server.name, step, done, total } = event
      progress(() => `${consumer}: ${done.toLocaleString('en')} of ${total.toLocaleString('en')} ${STEPS[step]}`)
    }
  }
  throw new CliError('BROKEN_OFF', `the answer of ${server.name} broke off; what is done by then is done, ask again`)
}
