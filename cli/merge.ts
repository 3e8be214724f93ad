/** Answers of several servers as one, in the order of time. */
import type { Line, StatusAnswer } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { CliError } from './errors.ts'
import { isShared, Seen } from './seen.ts'
import type { Server } from './servers.ts'
import { incomplete } from './terminal.ts'

/** Errors of the question itself: every server would say the same. */
const ASKED_WRONGLY = ['USAGE', 'QUERY_REFUSED']

/**
 * What each server answers; one that fails is said and left out.
 * @throws CliError where none answers, or the question is wrong
 */
export async function fromEach<T>(
  servers: readonly Server[],
  ask: (server: Server) => Promise<T>,
): Promise<{ server: Server; answer: T }[]> {
  const failures: CliError[] = []
  const answers = await Promise.all(
    servers.map(async (server) => {
      try {
        return { server, answer: await ask(server) }
      } catch (error) {
        failures.push(failureOf(error))
        return undefined
      }
    }),
  )
  const good = answers.filter((answer) => answer !== undefined)
  if (good.length === 0) throw failures[0]!
  for (const { message } of failures) incomplete(message)
  return good
}

function failureOf(error: unknown): CliError {
  if (!(error instanceof CliError) || ASKED_WRONGLY.includes(error.code)) throw error
  return error
}

/**
 * Batches of each source as batches of all, by time. What a source has in a wrong order stays in it.
 * A source that fails is said and left out from there on. @throws CliError where every one fails
 */
export async function* mergeByTime<T>(
  sources: readonly AsyncGenerator<T[], void, void>[],
  timeOf: (item: T) => string,
): AsyncGenerator<T[], void, void> {
  if (sources.length === 1) return yield* sources[0]!
  const heads = sources.map((source) => ({ source, batch: [] as T[], next: 0, time: 0, ended: false }))
  type Head = (typeof heads)[number]
  let failed = 0
  const fill = async (head: Head): Promise<void> => {
    try {
      while (head.next === head.batch.length && !head.ended) {
        const { done, value } = await head.source.next()
        if (done) head.ended = true
        else Object.assign(head, { batch: value, next: 0 })
      }
    } catch (error) {
      const failure = failureOf(error)
      if (++failed === sources.length) throw failure
      incomplete(failure.message)
      head.ended = true
    }
    if (!head.ended) head.time = Date.parse(timeOf(head.batch[head.next]!))
  }
  try {
    await Promise.all(heads.map(fill))
    for (;;) {
      const live = heads.filter(({ ended }) => !ended)
      if (live.length === 0) return
      const out: T[] = []
      let first: Head
      do {
        first = live.reduce((a, b) => (b.time < a.time ? b : a))
        out.push(first.batch[first.next++]!)
        if (first.next < first.batch.length) first.time = Date.parse(timeOf(first.batch[first.next]!))
      } while (first.next < first.batch.length)
      yield out
      await fill(first)
    }
  } finally {
    await Promise.all(heads.map(({ source }) => source.return()))
  }
}

/** Lets each line pass once, where servers that are asked side by side also ask each other. */
export function once(servers: readonly Server[]): (lines: Line[]) => Line[] {
  if (servers.length === 1) return (lines) => lines
  const seen = new Seen()
  return (lines) => lines.filter((line) => !isShared(line) || seen.add(line))
}

/**
 * Servers whose answers can be added up: consumers that ask each other all answer for all, and one of them is enough.
 * One that does not answer is said and left out.
 */
export async function apart(servers: readonly Server[]): Promise<Server[]> {
  if (servers.length === 1) return [...servers]
  const answers = await fromEach(servers, (server) => ask<StatusAnswer>(server, 'api/v1/status'))
  const roots = new Set<string>()
  return answers
    .filter(({ answer }) => {
      const news = answer.consumers.filter(({ root }) => !roots.has(root))
      for (const { root } of news) roots.add(root)
      return news.length > 0
    })
    .map(({ server }) => server)
}
