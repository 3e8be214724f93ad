/**
 * The consumer's API, as a client has it.
 *
 * Invariants
 * - A request that is aborted, or whose stream is no longer read, is closed at once: that ends the consumer's work.
 * - A stream is not read faster than it is taken: what waits for a slow reader waits in the consumer.
 * - Every failure is a CliError that says who did not answer, and who must act.
 */
import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { pipeline } from 'node:stream'
import { text as textOf } from 'node:stream/consumers'
import type { TLSSocket } from 'node:tls'
import { createGunzip } from 'node:zlib'
import type { ApiError } from '../consumer/api-schema.ts'
import { BATCHES, EventDecoder } from '../consumer/event-decoder.ts'
import { CliError, type ErrorCode } from './errors.ts'
import type { Server } from './servers.ts'
import { KNOWS_ZSTD, unpackZstd } from './zstd.ts'

export type Query = Record<string, string | number | boolean | readonly string[] | undefined>

export type Asked = {
  query?: Query
  method?: 'GET' | 'POST' | 'DELETE'
  body?: unknown
  signal?: AbortSignal | undefined
  /** ms without a byte after which the connection counts as broken; 0 is never. */
  silence?: number
}

/** To be connected. */
const CONNECT_MS = 10_000
/** For an answer that is not a stream. */
const SILENCE_MS = 60_000
/** In a stream heartbeats come each 10 to 20 s. */
const STREAM_SILENCE_MS = 35_000

function address({ url }: Server, path: string, query: Query): URL {
  const address = new URL(path, url)
  for (const [key, value] of Object.entries(query)) {
    for (const one of [value].flat())
      if (one !== undefined && one !== false) address.searchParams.append(key, String(one))
  }
  return address
}

const CODES: Record<number, ErrorCode> = {
  400: 'QUERY_REFUSED',
  401: 'TOKEN_REFUSED',
  403: 'TOKEN_REFUSED',
  404: 'NOT_FOUND',
  414: 'QUERY_REFUSED',
  429: 'BUSY',
  431: 'QUERY_REFUSED',
  503: 'BUSY',
}

const TELL_TOKEN = 'Say it with TALLYMAN_TOKEN, or as token or tokenFile of the server in the configuration'

/** Why a connection did not come about, or ended. */
function unreachable({ name, url }: Server, error: NodeJS.ErrnoException): CliError {
  const where = url.href.replace(/\/$/, '')
  const at = name === url.host ? where : `${name} (${where})`
  const reason = error.message || error.code || String(error)
  if (/certificate|self.signed|SELF_SIGNED|UNABLE_TO/i.test(`${error.code} ${reason}`)) {
    return new CliError(
      'UNREACHABLE',
      `the certificate of ${at} is not trusted: ${reason}. Say who signed it with caFile in the configuration, or NODE_EXTRA_CA_CERTS`,
    )
  }
  return new CliError('UNREACHABLE', `no consumer answers at ${at}: ${reason}. Say where it is with TALLYMAN_URL`)
}

/** @throws CliError; the signal's reason where it is aborted */
async function request(server: Server, path: string, asked: Asked): Promise<IncomingMessage> {
  const { query = {}, method = 'GET', body, signal, silence } = asked
  const url = address(server, path, query)
  const { request } = url.protocol === 'https:' ? await import('node:https') : await import('node:http')
  signal?.throwIfAborted()
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const sent = request(
      url,
      {
        method,
        agent: false,
        headers: {
          accept: `${BATCHES}, application/x-ndjson, application/json`,
          'accept-encoding': KNOWS_ZSTD ? 'zstd, gzip' : 'gzip',
          ...(server.token !== undefined && { authorization: `Bearer ${server.token}` }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(server.ca !== undefined && { ca: server.ca }),
        ...(server.certificate !== undefined && { rejectUnauthorized: false }),
        ...(signal && { signal }),
      },
      resolve,
    )
    const late = setTimeout(() => sent.destroy(new Error(`not connected within ${CONNECT_MS / 1000} s`)), CONNECT_MS)
    sent.on('socket', (socket) => {
      socket.once(url.protocol === 'https:' ? 'secureConnect' : 'connect', () => {
        clearTimeout(late)
        if (server.certificate === undefined) return
        // The token goes to nobody else.
        if (shows(socket as TLSSocket, server.certificate)) send()
        else sent.destroy(new Error('it shows another certificate than TLS_CERT_FILE holds'))
      })
      if (silence) socket.setTimeout(silence, () => socket.destroy(silent(silence)))
    })
    sent.on('error', (error) => {
      clearTimeout(late)
      reject(signal?.aborted ? signal.reason : unreachable(server, error))
    })
    const send = () => sent.end(body === undefined ? undefined : JSON.stringify(body))
    if (server.certificate === undefined) send()
  })
  // An error that comes while nobody reads is told by the reader's next step; without a listener it would end the process.
  answer.on('error', () => {})
  if (answer.statusCode! >= 300) throw await refused(server, answer)
  return answer
}

const silent = (ms: number): Error => new Error(`nothing came for ${ms / 1000} s`)

function shows(socket: TLSSocket, pem: string): boolean {
  return socket.getPeerX509Certificate()?.fingerprint256 === new X509Certificate(pem).fingerprint256
}

async function refused(server: Server, answer: IncomingMessage): Promise<CliError> {
  const status = answer.statusCode!
  let said: Partial<ApiError> = {}
  try {
    said = JSON.parse(await textOf(unpacked(answer)))
  } catch {}
  const code = CODES[status] ?? (status < 500 && said.error === undefined ? 'NO_CONSUMER' : 'SERVER_FAILED')
  const what =
    status >= 300 && status < 400
      ? `it moved to ${answer.headers.location}; say that address`
      : (said.message ?? `${answer.statusCode} ${answer.statusMessage ?? ''}`.trim())
  // A route that is missing is not a thing that is missing.
  if (status === 404 && !/^[A-Z_]+$/.test(said.error ?? '')) {
    return new CliError(
      'NO_CONSUMER',
      `${server.name} does not know this question: ${what}. It is no consumer, or an older one`,
    )
  }
  return new CliError(code, `${server.name}: ${what}${code === 'TOKEN_REFUSED' ? `. ${TELL_TOKEN}` : ''}`)
}

/** What was sent, unpacked where it is packed. */
function unpacked(answer: IncomingMessage): AsyncIterable<Buffer> {
  const coding = answer.headers['content-encoding']
  if (coding === 'zstd') return unpackZstd(answer)
  return coding === 'gzip' ? pipeline(answer, createGunzip(), () => {}) : answer
}

const brokenOff = ({ name }: Server, error?: unknown): CliError =>
  new CliError(
    'BROKEN_OFF',
    `the answer of ${name} broke off${error instanceof Error && error.message ? `: ${error.message}` : ''}`,
  )

/** An answer that is one JSON value. */
export async function ask<T>(server: Server, path: string, asked: Asked = {}): Promise<T> {
  const answer = await request(server, path, { silence: SILENCE_MS, ...asked })
  let text: string
  try {
    text = await textOf(unpacked(answer))
  } catch (error) {
    throw asked.signal?.aborted ? asked.signal.reason : brokenOff(server, error)
  }
  if (text === '') return undefined as T
  try {
    return JSON.parse(text)
  } catch {
    throw new CliError('NO_CONSUMER', `${server.name} does not answer as a consumer does`)
  }
}

/**
 * An answer that is a stream of NDJSON, some events at a time, as they come.
 * @throws CliError BROKEN_OFF where the connection ends in the middle of an event, or otherwise than in good order
 */
export async function* stream<E extends { type: string }>(
  server: Server,
  path: string,
  asked: Asked,
): AsyncGenerator<E[], void, void> {
  const { silence = STREAM_SILENCE_MS } = asked
  const answer = await request(server, path, { ...asked, silence })
  // From here on it may be we who do not read.
  answer.socket.setTimeout(0)
  const chunks: AsyncIterator<Buffer> = unpacked(answer)[Symbol.asyncIterator]()
  const decoder = new EventDecoder<E>()
  try {
    for (;;) {
      const late = silence > 0 ? setTimeout(() => answer.destroy(silent(silence)), silence) : undefined
      const { done, value } = await chunks.next().finally(() => clearTimeout(late))
      if (done) break
      const events: E[] = []
      for (const some of decoder.decode(value)) for (const event of some) events.push(event)
      if (events.length > 0) yield events
    }
  } catch (error) {
    if (asked.signal?.aborted) throw asked.signal.reason
    if (error instanceof SyntaxError)
      throw new CliError('NO_CONSUMER', `${server.name} does not answer as a consumer does`)
    throw brokenOff(server, error)
  } finally {
    answer.destroy()
  }
  if (decoder.rest !== '') throw brokenOff(server)
}
