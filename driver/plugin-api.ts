/**
 * Docker's logging-driver protocol over HTTP on the plugin's socket (docs.docker.com/engine/extend/plugins_logging).
 *
 * What dockerd really sends: POST without a Content-Type, often without a body; after a request that our own death cut off,
 * the same request again with an empty body. So every body is parsed here, whatever it claims to be.
 * - StartLogging without a body is refused: a container would run unlogged.
 * - StopLogging is always answered without an error: any error leaks dockerd's descriptor and keeps the plugin in use.
 * - ReadLogs is answered with a stream, whose headers go at once: a quiet follow has nothing else to send for hours.
 * - Connections are closed after each answer: an idle one races with dockerd's pool when the plugin restarts.
 */
import type { Server } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import type { Logger } from 'pino'
import * as z from 'zod'
import { type ContainerInfo, containerInfo } from './container.ts'
import { DriverError, ERRORS } from './errors.ts'
import { moment, type ReadConfig } from './read-logs.ts'

/** What answers stand behind the protocol. */
export type LogDriver = {
  startLogging(file: string, info: ContainerInfo): Promise<void>
  stopLogging(file: string): void
  readLogs(info: ContainerInfo, config: ReadConfig, gone: AbortSignal): Promise<AsyncIterable<Buffer>>
}

/** Info carries the container's environment and labels: large ones are real. */
const BODY_LIMIT = 16 * 1024 * 1024

const startRequest = z.object({ File: z.string().min(1), Info: containerInfo })
const stopRequest = z.object({ File: z.string().min(1) })
const readRequest = z.object({
  Info: containerInfo,
  Config: z.object({
    Since: z.string().default('').transform(moment),
    Until: z.string().default('').transform(moment),
    Tail: z.int().default(-1),
    Follow: z.boolean().default(false),
  }),
})

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json'

/** A body as JSON, whatever there is of one. */
function json(body: unknown): unknown {
  try {
    return JSON.parse(String(body))
  } catch {
    return undefined
  }
}

function parse<T>(schema: z.ZodType<T>, body: unknown, endpoint: string): T {
  const result = schema.safeParse(json(body))
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const where = issue?.path.length ? issue.path.join('.') : 'the body'
  throw new DriverError(
    'REQUEST_INVALID',
    `${endpoint}: ${where}: ${issue?.message ?? 'is not what the protocol says'}`,
  )
}

/** The API, to be answered on `server` once it is ready. */
export function pluginApi(driver: LogDriver, log: Logger, server: Server): FastifyInstance {
  const api = Fastify({
    bodyLimit: BODY_LIMIT,
    forceCloseConnections: true,
    serverFactory: (handler) => server.on('request', handler),
  })
  api.removeAllContentTypeParsers()
  api.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body))
  api.addHook('onRequest', async (_request, reply) => {
    reply.header('Connection', 'close').type(CONTENT_TYPE)
  })

  api.post('/Plugin.Activate', async () => ({ Implements: ['LogDriver'] }))
  api.post('/LogDriver.Capabilities', async () => ({ Cap: { ReadLogs: true } }))
  api.post('/LogDriver.StartLogging', async (request) => {
    const { File, Info } = parse(startRequest, request.body, 'StartLogging')
    await driver.startLogging(File, Info)
    return { Err: '' }
  })
  api.post('/LogDriver.StopLogging', async (request) => {
    const stop = stopRequest.safeParse(json(request.body))
    if (stop.success) driver.stopLogging(stop.data.File)
    return { Err: '' }
  })
  api.post('/LogDriver.ReadLogs', async (request, reply) => {
    const { Info, Config } = parse(readRequest, request.body, 'ReadLogs')
    const { Since: since, Until: until, Tail: tail, Follow: follow } = Config
    const gone = new AbortController()
    const answer = reply.raw
    answer.once('close', () => gone.abort())
    const entries = await driver.readLogs(Info, { since, until, tail, follow }, gone.signal)
    reply.hijack()
    answer.writeHead(200, { Connection: 'close', 'Content-Type': 'application/octet-stream' })
    answer.flushHeaders()
    try {
      await pipeline(Readable.from(entries, { objectMode: false, highWaterMark: 1 }), answer)
    } catch (error) {
      // A client that goes away ends it like this as well; that is nobody's fault.
      if ((error as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE')
        log.warn({ code: 'READ_LOGS_BROKEN', err: error }, 'docker logs was broken off')
    }
  })

  api.setNotFoundHandler((request, reply) =>
    reply.code(404).send({ Err: `tallyman has no ${request.method} ${request.url}` }),
  )
  api.setErrorHandler((error: Error & { statusCode?: number }, request, reply) => {
    const known = error instanceof DriverError
    log[known ? 'warn' : 'error'](
      {
        code: known ? error.code : 'REQUEST_INVALID',
        acts: known ? error.acts : ERRORS.REQUEST_INVALID,
        url: request.url,
        err: known ? undefined : error,
      },
      error.message,
    )
    return reply.code(known ? 400 : (error.statusCode ?? 500)).send({ Err: error.message })
  })
  return api
}
