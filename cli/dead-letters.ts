/** `tallyman dead-letters`: records that could not be decoded: which there are, what one says, and their second try. */
import type { DeadLetterAnswer, DeadLettersAnswer, ReplayAnswer } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { useColours } from './colours.ts'
import { harmless } from './control-sequences.ts'
import { CliError, EXIT } from './errors.ts'
import { sayGaps } from './history.ts'
import { apart, fromEach } from './merge.ts'
import { type GlobalOptions, serversFor } from './selection.ts'
import type { Server } from './servers.ts'
import { bytes, number, table } from './table.ts'
import { incomplete, print, printBytes, say } from './terminal.ts'
import { localTime } from './time.ts'

export type DeadLettersOptions = GlobalOptions & { replay?: boolean; value?: boolean; json?: boolean }

/** Letters in one answer at most. */
const MOST = 10_000

export async function deadLetters(names: string[], options: DeadLettersOptions): Promise<void> {
  const servers = await apart(await serversFor(options))
  if (options.replay) await replay(servers, names, options)
  else if (names.length > 0) for (const name of names) await show(servers, name, options)
  else await list(servers, options)
}

async function list(servers: Server[], { json, color }: DeadLettersOptions): Promise<void> {
  const answers = await fromEach(servers, (server) =>
    ask<DeadLettersAnswer>(server, 'api/v1/dead-letters', { query: { limit: MOST } }),
  )
  for (const { server, answer } of answers) {
    sayGaps(server, answer.partial)
    if (answer.limited) say(`${server.name}: there are more than these ${number(MOST)}`)
    for (const { partition, records, from, to } of answer.dropped) {
      say(
        `${server.name}: ${number(records)} records of partition ${partition}, offsets ${from} to ${to}, were not kept: there was no room`,
      )
    }
  }
  const letters = answers.flatMap(({ answer }) => answer.letters)
  if (json) return print(letters.map((letter) => `${JSON.stringify(letter)}\n`).join(''))
  if (letters.length === 0) return say('there are none: every record could be decoded')
  const shown = (text: string): string => harmless(text, false)
  const rows = letters.map(({ name, time, reason, key, bytes: size, message }) =>
    [name, localTime(time), key, reason, message, bytes(size)].map(shown),
  )
  const colours = useColours(color, process.stdout, process.env)
  await print(`${table(['name', 'time', 'key', 'reason', 'message', 'size'], rows, 5, colours)}\n`)
}

async function show(servers: Server[], name: string, { value: raw }: DeadLettersOptions): Promise<void> {
  const { value, ...about } = await letter(servers, name)
  if (raw) await printBytes(Buffer.from(value, 'base64'))
  else await print(`${JSON.stringify(about, undefined, 2)}\n`)
}

/** Names are of one root alone: the first server that knows it. */
async function letter(servers: Server[], name: string): Promise<DeadLetterAnswer> {
  const failures: unknown[] = []
  for (const server of servers) {
    try {
      return await ask<DeadLetterAnswer>(server, `api/v1/dead-letters/${encodeURIComponent(name)}`)
    } catch (error) {
      if (!(error instanceof CliError)) throw error
      failures.push(error)
    }
  }
  throw failures[0]
}

async function replay(servers: Server[], names: string[], { json }: DeadLettersOptions): Promise<void> {
  const body = names.length > 0 ? { names } : {}
  const answers = await fromEach(servers, (server) =>
    ask<ReplayAnswer>(server, 'api/v1/dead-letters/replay', { method: 'POST', body, silence: 0 }),
  )
  const replayed = answers.flatMap(({ answer }) => answer.replayed)
  const failed = answers.flatMap(({ answer }) => answer.failed)
  if (json) await print(`${JSON.stringify({ replayed, failed }, undefined, 2)}\n`)
  else await print(replayed.map(({ name, lines }) => `${name}: ${number(lines)} lines are on their way\n`).join(''))
  for (const { name, message } of failed) incomplete(`${name} stays: ${message}`)
  if (replayed.length + failed.length === 0) say('there are none: every record could be decoded')
  process.exitCode ??= EXIT.GOOD
}
