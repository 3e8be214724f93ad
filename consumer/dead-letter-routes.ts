/** Routes of dead letters: which there are, what one says, and their replay. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import type { Access } from './access.ts'
import {
  type DeadLetterRow,
  deadLetterAnswer,
  deadLetterParams,
  deadLettersAnswer,
  deadLettersQuery,
  replayAnswer,
  replayBody,
} from './api-schema.ts'
import type { DeadLetter } from './dead-letters.ts'
import { ConsumerError } from './errors.ts'
import { linesOf, type ReplayOptions, replay } from './replay.ts'

/** A record that does not say of which service it is may be seen by whoever may see all. */
const allowed =
  ({ may }: Access) =>
  ({ headers }: DeadLetter): boolean => {
    const service = headers['service']
    return may(typeof service === 'string' ? service : '')
  }

const row = ({
  name,
  topic,
  partition,
  offset,
  timestamp,
  reason,
  message,
  key,
  headers,
  bytes,
}: DeadLetter): DeadLetterRow => ({
  ...{ name, topic, partition, offset: Number(offset), time: new Date(Number(timestamp)).toISOString() },
  ...{ reason, message, key: key ?? '', bytes },
  headers: Object.fromEntries(Object.entries(headers).map(([key, value]) => [key, String(value)])),
})

export const deadLetterRoutes =
  (options: ReplayOptions): FastifyPluginAsyncZod =>
  async (api) => {
    const { letters } = options
    const readAllowed = async (name: string, access: Access) => {
      const found = await letters.read(name)
      return found && allowed(access)(found.letter) ? found : undefined
    }
    api.get(
      '/dead-letters',
      {
        schema: {
          summary: 'Records that could not be decoded.',
          querystring: deadLettersQuery,
          response: { 200: deadLettersAnswer },
        },
      },
      async ({ query: { limit }, access }) => {
        const rows: DeadLetterRow[] = []
        let limited = false
        for (const name of letters.names) {
          const letter = await letters.about(name)
          if (!letter || !allowed(access)(letter)) continue
          limited = rows.length === limit
          if (limited) break
          rows.push(row(letter))
        }
        const { bytes } = letters.kept
        return {
          letters: rows,
          limited,
          dropped: access.may('') ? letters.dropped : [],
          bytes,
          max: letters.max,
          partial: [],
        }
      },
    )
    api.get(
      '/dead-letters/:name',
      {
        config: { audit: 'dead-letter' },
        schema: { summary: 'One of them, whole.', params: deadLetterParams, response: { 200: deadLetterAnswer } },
      },
      async ({ params: { name }, access }) => {
        const found = await readAllowed(name, access)
        if (!found) throw new ConsumerError('NOT_FOUND', `there is no dead letter ${name}`)
        const decoded = linesOf(found.letter, found.value)
        return {
          ...row(found.letter),
          value: found.value.toString('base64'),
          ...('lines' in decoded ? { lines: decoded.lines } : { refused: decoded }),
        }
      },
    )
    api.post(
      '/dead-letters/replay',
      {
        config: { audit: 'replay' },
        schema: { summary: 'Put dead letters back into Kafka.', body: replayBody, response: { 200: replayAnswer } },
      },
      async ({ body: { names = letters.names }, access }) => replay(options, names, allowed(access)),
    )
  }
