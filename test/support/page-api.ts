/**
 * A stand-in for a consumer that misbehaves: it speaks the API's shapes over made-up lines, and breaks off, refuses, dawdles or
 * floods where a test wants that of it. Where a consumer behaves, tests use a real one.
 *
 *   node test/support/page-api.ts [PORT]      serves it for looking at the page by hand
 */
import { existsSync, readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify'
import type {
  ContextAnswer,
  HistogramAnswer,
  LedgerAnswer,
  Line,
  LineCount,
  ServicesAnswer,
  SessionAnswer,
  StatusAnswer,
} from '../../consumer/api-schema.ts'

const DIST = join(import.meta.dirname, '../../dist/web')
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
}
/** As the consumer sends it. */
const POLICY =
  "default-src 'none';script-src 'self';style-src 'self';font-src 'self';img-src 'self' data:;connect-src 'self';base-uri 'none';form-action 'self';frame-ancestors 'none'"

/** What goes wrong. */
export type Faults = {
  /** This token is needed. */
  token?: string
  /** Lines a second of a tail. */
  rate?: number
  /** A tail ends after so many lines, the first time. */
  tailBreaksAfter?: number
  /** A search takes so long, ms. */
  searchMs?: number
  /** A search ends without `end`. */
  searchBreaks?: boolean
  /** Lines of a tail that the server leaves out. */
  missed?: number
  /** Every question but the session's is answered so. */
  refuse?: { status: number; error: string; message: string }
}

type Made = { service: string; module: string; host: string; container: string; texts: ((i: number) => string)[] }

const pick = <T>(from: readonly T[], i: number): T => from[((i * 2_654_435_761) >>> 8) % from.length]!
const PATHS = ['/api/cart', '/api/orders/4711', '/static/app.css', '/checkout', '/api/search?q=boots', '/healthz']

const MADE: Made[] = [
  {
    ...{ service: 'shop', module: 'web', host: 'host-a', container: 'shop-web-1' },
    texts: [
      (i) => `10.0.3.${i % 250} - - "GET ${pick(PATHS, i)} HTTP/1.1" 200 ${(i * 37) % 20_000} ${(i * 7) % 90}ms`,
      (i) => `\x1b[32minfo\x1b[0m: rendered ${pick(PATHS, i + 3)} in \x1b[1m${(i * 13) % 200} ms\x1b[0m`,
      (i) =>
        `10.0.3.${i % 250} - - "POST /checkout HTTP/1.1" ${i % 5 === 0 ? 502 : 201} ${(i * 11) % 900} ${i % 900}ms`,
    ],
  },
  {
    ...{ service: 'shop', module: 'api', host: 'host-b', container: 'shop-api-1' },
    texts: [
      (i) =>
        JSON.stringify({
          level: i % 17 === 0 ? 'error' : i % 6 === 0 ? 'warn' : 'info',
          msg: i % 17 === 0 ? 'payment was refused' : 'order stored',
          order: { id: 4000 + (i % 999), items: [{ sku: 'boot-42', n: 1 + (i % 3) }], total: (i % 400) + 0.95 },
          user: `user-${i % 77}@example.org`,
          took_ms: (i * 7) % 450,
        }),
      (i) => `INFO  c.s.OrderService - order ${4000 + (i % 999)} picked by worker-${i % 4}`,
    ],
  },
  {
    ...{ service: 'billing', module: 'worker', host: 'host-b', container: 'billing-worker-1' },
    texts: [
      (i) => `level=info ts=${i} msg="invoice sent" invoice=${9000 + i} customer=${i % 300}`,
      (i) =>
        i % 9 === 0
          ? `ERROR o.b.Invoices - could not send invoice ${9000 + i}: java.io.IOException: connection reset by peer`
          : `DEBUG o.b.Invoices - queue holds ${i % 40} invoices`,
    ],
  },
  {
    ...{ service: 'warehouse', module: 'sensor', host: 'host-c', container: 'warehouse-sensor-1' },
    texts: [(i) => `temp=${(18 + (i % 50) / 10).toFixed(1)} humidity=${40 + (i % 20)} rack=R${i % 12}`],
  },
]
const TRACE = [
  'java.lang.IllegalStateException: cart 4711 is closed',
  '\tat shop.cart.Cart.add(Cart.java:42)',
  '\tat shop.cart.CartService.put(CartService.java:118)',
  '\tat java.base/java.lang.Thread.run(Thread.java:1583)',
  'Caused by: java.sql.SQLException: deadlock found when trying to get lock',
  '\tat org.mariadb.jdbc.Statement.execute(Statement.java:77)',
  '\t... 12 more',
]

function lineOf(i: number, time: number, made: Made, text: string, source: 'stdout' | 'stderr' = 'stdout'): Line {
  const { service, module, host, container } = made
  const file = `${service}/${module}/${new Date(time).toISOString().slice(0, 10)}.log`
  const at = `${file}:${i * 100}`
  return {
    ...{ type: 'line', at, file, position: i * 100, time: new Date(time).toISOString() },
    ...{ service, module, host, container, source, line: text },
  }
}

/** Made-up lines up to `end`, ms since 1970, `step` ms apart. */
function makeLines(count: number, end: number, step: number, from = 0): Line[] {
  const lines: Line[] = []
  for (let i = from; lines.length < count; i++) {
    const time = end - (count - lines.length) * step
    const made = pick(MADE, i)
    if (i % 211 === 0) {
      TRACE.forEach((text, n) => {
        lines.push(lineOf(i * 10 + n + 1, time, MADE[1]!, text, 'stderr'))
      })
    } else lines.push(lineOf(i * 10, time, made, pick(made.texts, i * 3)(i)))
  }
  return lines
}

const globbed = (globs: string[], value: string): boolean =>
  globs.length === 0 ||
  globs.some((glob) => new RegExp(`^${glob.replace(/[.+^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`).test(value))
const listOf = (value: unknown): string[] => (value === undefined ? [] : [value].flat().map(String))

export class PageApi {
  readonly server: FastifyInstance
  readonly faults: Faults
  /** Questions that were asked: path and query. */
  readonly asked: string[] = []
  /** Streams whose reader left before they ended. */
  left = 0
  #lines: Line[]
  #tails = 0

  constructor(faults: Faults = {}, lines?: Line[]) {
    this.faults = faults
    this.#lines = lines ?? makeLines(20_000, Date.now(), 4_000)
    this.server = Fastify({ forceCloseConnections: true })
    this.#routes()
  }

  async listen(port = 0): Promise<string> {
    return this.server.listen({ port, host: '127.0.0.1' })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.close()
  }

  #chosen(query: Record<string, unknown>): Line[] {
    const since = query['since'] ? Date.parse(String(query['since'])) : 0
    const until = query['until'] ? Date.parse(String(query['until'])) : Number.POSITIVE_INFINITY
    return this.#lines.filter(
      (line) => this.#fits(line, query) && Date.parse(line.time) >= since && Date.parse(line.time) < until,
    )
  }

  #fits(line: Line, query: Record<string, unknown>): boolean {
    const targets = listOf(query['target'])
    const flags = query['ignoreCase'] === 'true' ? 'i' : ''
    const some = (key: string) => listOf(query[key]).map((pattern) => new RegExp(pattern, flags))
    return (
      (globbed(targets, `${line.service}/${line.module}`) || globbed(targets, line.service)) &&
      globbed(listOf(query['host']), line.host) &&
      globbed(listOf(query['source']), line.source) &&
      (some('include').length === 0 || some('include').some((pattern) => pattern.test(line.line))) &&
      !some('exclude').some((pattern) => pattern.test(line.line))
    )
  }

  #routes(): void {
    const { server, faults } = this
    server.addHook('onRequest', async (request, reply) => {
      if (!request.url.startsWith('/api/')) return
      this.asked.push(request.url)
      if (request.url.startsWith('/api/v1/session')) return
      if (faults.refuse) return reply.code(faults.refuse.status).send(faults.refuse)
      if (faults.token && request.headers.cookie !== 'session=ok') {
        return reply.code(401).send({ error: 'TOKEN_MISSING', message: 'A token is needed.' })
      }
    })
    server.get('/api/v1/session', async (request): Promise<SessionAnswer> => {
      const known = !faults.token || request.headers.cookie === 'session=ok'
      return {
        required: Boolean(faults.token),
        ...(known && faults.token && { name: 'somebody' }),
        services: known ? ['*'] : [],
      }
    })
    server.post('/api/v1/session', async (request, reply): Promise<SessionAnswer> => {
      if ((request.body as { token: string }).token !== faults.token) {
        return reply.code(401).send({ error: 'TOKEN_INVALID', message: 'This token is not known here.' }) as never
      }
      reply.header('set-cookie', 'session=ok; HttpOnly; SameSite=Strict; Path=/')
      return { required: true, name: 'somebody', services: ['*'] }
    })
    server.delete('/api/v1/session', async (_request, reply) => {
      reply.header('set-cookie', 'session=; Max-Age=0; Path=/')
      return { required: true, services: [] }
    })
    server.get('/api/v1/services', async (): Promise<ServicesAnswer> => {
      const now = Date.now()
      return {
        partial: [],
        modules: MADE.map(({ service, module, host, container }, m) => {
          const lines = this.#lines.filter((line) => line.module === module)
          const rate = Array<number>(60).fill(0)
          for (const line of lines) {
            const minute = 59 - Math.floor((now - Date.parse(line.time)) / 60_000)
            if (minute >= 0 && minute < 60) rate[minute]!++
          }
          return {
            ...{ service, module, days: 2, files: 3, lines: lines.length * 40, bytes: lines.length * 40 * 130 },
            lost: m === 2 ? 19 : 0,
            first: lines[0]?.time ?? '',
            last: lines.at(-1)?.time ?? '',
            rate,
            hosts: [host],
            containers: [container],
          }
        }),
      }
    })
    server.get(
      '/api/v1/status',
      async (): Promise<StatusAnswer> => ({
        partial: [],
        consumers: [
          {
            ...{ name: 'here', root: '2a7c4f1e-9f6a-4a0e-8a43-0a3f4f6f2f11', version: '0.1.0', ready: true, lag: 12 },
            ...{ timeZone: 'UTC', lineFormat: 'text', keepDays: 30, disk: { free: 41e9, size: 120e9 } },
          },
        ],
      }),
    )
    server.get('/api/v1/ledger', async (): Promise<LedgerAnswer> => {
      const of = (lines: number, lostBy: Record<string, number>): LineCount => {
        const lost = Object.values(lostBy).reduce((sum, n) => sum + n, 0)
        return { lines, written: lines - lost, lost, lostBy, claimed: 0, doubled: 0, ratio: lines ? lost / lines : 0 }
      }
      const rows = MADE.map(({ service, module }, m) => ({
        ...{ service, module, last: new Date().toISOString() },
        ...of(200_000 + m, m === 2 ? { 'journal-full': 12, gap: 7 } : {}),
      }))
      return { total: of(800_006, { 'journal-full': 12, gap: 7 }), rows, partial: [] }
    })
    server.get('/api/v1/histogram', async ({ query }): Promise<HistogramAnswer> => {
      const asked = query as Record<string, string>
      const [since, until] = [Date.parse(asked['since']!), Date.parse(asked['until']!)]
      const buckets = Number(asked['buckets'])
      const step = (until - since) / buckets
      const series = new Map<string, number[]>()
      for (const line of this.#chosen(asked)) {
        const by = asked['by'] ?? 'module'
        const key =
          by === 'module'
            ? `${line.service}/${line.module}`
            : by === 'total'
              ? 'total'
              : line[by as 'service' | 'host' | 'source']
        const counts = series.get(key) ?? Array<number>(buckets).fill(0)
        series.set(key, counts)
        counts[Math.min(buckets - 1, Math.floor((Date.parse(line.time) - since) / step))]!++
      }
      return {
        ...{ since: asked['since']!, until: asked['until']!, step, partial: [] },
        series: [...series].map(([key, lines]) => ({ key, lines, bytes: lines.map((n) => n * 130) })),
      }
    })
    server.get('/api/v1/context', async ({ query }, reply): Promise<ContextAnswer> => {
      const { at, before = '20', after = '20' } = query as Record<string, string>
      const line = this.#lines.find((one) => one.at === at)
      if (!line) return reply.code(404).send({ error: 'LINE_UNKNOWN', message: `there is no line at ${at}` }) as never
      const inFile = this.#lines.filter(({ file }) => file === line.file)
      const index = inFile.indexOf(line)
      const from = Math.max(0, index - Number(before))
      return { lines: inFile.slice(from, index + Number(after) + 1), index: index - from, partial: [] }
    })
    server.get('/api/v1/lines', async ({ query }, reply) => {
      const asked = query as Record<string, string>
      const all = this.#chosen(asked)
      const limit = Number(asked['limit'] ?? 1_000)
      const lines = asked['last'] === 'true' ? all.slice(-limit) : all.slice(0, limit)
      await this.#stream(reply, async function* () {
        yield* lines
        yield { type: 'end', lines: lines.length, limited: all.length > limit, partial: [] }
      })
    })
    server.get('/api/v1/search', async ({ query }, reply) => {
      const asked = query as Record<string, string>
      const text = asked['pattern']!
      // ripgrep's (?i:…) is not known to every engine, and this only has to find what is searched for here.
      const pattern = new RegExp(
        asked['fixed'] === 'true' ? text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&') : text.replaceAll('(?i:', '(?:'),
        asked['ignoreCase'] === 'true' ? 'gi' : 'g',
      )
      const all = this.#chosen(asked).filter((line) => line.line.search(pattern) !== -1)
      const limit = Number(asked['limit'] ?? 1_000)
      const lines = asked['last'] === 'true' ? all.slice(-limit) : all.slice(0, limit)
      const steps = 20
      await this.#stream(reply, async function* () {
        for (let i = 0; i < steps; i++) {
          if (faults.searchMs) await sleep(faults.searchMs / steps)
          const part = lines.slice((i * lines.length) / steps, ((i + 1) * lines.length) / steps)
          for (const line of part) {
            yield { ...line, matches: [...line.line.matchAll(pattern)].map((m) => [m.index, m.index + m[0].length]) }
          }
          const done = i + 1
          yield {
            type: 'progress',
            files: done,
            filesTotal: steps,
            bytes: done * 5e7,
            bytesTotal: steps * 5e7,
            matched: part.length,
          }
        }
        if (!faults.searchBreaks) yield { type: 'end', lines: lines.length, limited: all.length > limit, partial: [] }
      })
    })
    server.get('/api/v1/tail', async ({ query }, reply) => {
      const asked = query as Record<string, string>
      const breaksAfter = this.#tails++ === 0 ? faults.tailBreaksAfter : undefined
      const rate = faults.rate ?? 10
      const history = this.#chosen(asked).slice(-Number(asked['last'] ?? 0))
      const fits = (line: Line) => this.#fits(line, asked)
      let next = Number(asked['cursor'] ?? 1_000_000)
      await this.#stream(reply, async function* () {
        yield { type: 'window', ms: 2_000 }
        if (asked['last'] && Number(asked['last']) > 0) yield* history
        const begun = Date.now()
        let sent = 0
        for (;;) {
          const due = Math.floor(((Date.now() - begun) / 1_000) * rate)
          if (due === sent) yield { type: 'heartbeat', time: new Date().toISOString() }
          for (const line of makeLines(due - sent, Date.now(), 0, next)) if (fits(line)) yield line
          next += due - sent
          sent = due
          if (faults.missed) yield { type: 'missed', lines: faults.missed }
          yield { type: 'cursor', cursor: String(next) }
          if (breaksAfter !== undefined && sent >= breaksAfter) return
          await sleep(50)
        }
      })
    })
    server.get('/*', async (request, reply) => {
      const name = new URL(request.url, 'http://page').pathname.slice(1) || 'index.html'
      const file = join(DIST, name)
      if (!file.startsWith(DIST) || !existsSync(file)) return reply.code(404).send()
      reply.header('content-security-policy', POLICY)
      return reply.type(TYPES[extname(name)] ?? 'application/octet-stream').send(readFileSync(file))
    })
  }

  async #stream(reply: FastifyReply, events: () => AsyncGenerator<object>): Promise<void> {
    reply.hijack()
    const { raw } = reply
    raw.writeHead(200, { 'content-type': 'application/x-ndjson' })
    let text = ''
    for await (const event of events()) {
      if (raw.destroyed) break
      text += `${JSON.stringify(event)}\n`
      const pauses = 'type' in event && event.type !== 'line'
      if (text.length < 65_536 && !pauses) continue
      const drained = raw.write(text)
      text = ''
      if (!drained)
        await Promise.race([
          new Promise((resolve) => raw.once('drain', resolve)),
          new Promise((resolve) => raw.once('close', resolve)),
        ])
    }
    if (raw.destroyed) this.left++
    else raw.end(text)
  }
}

if (process.argv[1] === import.meta.filename) {
  const faults = JSON.parse(process.env['FAULTS'] ?? '{}') as Faults
  console.log(await new PageApi(faults).listen(Number(process.argv[2] ?? 4681)))
}
