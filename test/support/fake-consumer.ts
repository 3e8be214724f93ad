/** An HTTP server that answers as a test says: for what a real consumer cannot be made to do at the moment it matters. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Server } from '../../cli/servers.ts'

export type Answer = (query: URLSearchParams, reply: Reply, request: IncomingMessage) => void | Promise<void>

/** An answer that is being written. */
export class Reply {
  readonly response: ServerResponse
  constructor(response: ServerResponse) {
    this.response = response
  }

  /** Some events of a stream. */
  send(...events: object[]): void {
    this.response.write(events.map((event) => `${JSON.stringify(event)}\n`).join(''))
  }

  end(...events: object[]): void {
    this.send(...events)
    this.response.end()
  }

  json(status: number, body: unknown): void {
    this.response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  }

  /** Breaks the connection off once what was sent is on its way. */
  breakOff(): void {
    this.response.write('', () => this.response.destroy())
  }

  /** Whoever asked is gone. */
  get left(): Promise<unknown> {
    return this.response.closed ? Promise.resolve() : once(this.response, 'close')
  }
}

export class FakeConsumer {
  readonly server: Server
  /** What was asked, in order. */
  readonly asked: { path: string; query: URLSearchParams }[] = []
  #http: ReturnType<typeof createServer>

  /** @param answers by the path below `/api/v1/` */
  static async start(answers: Record<string, Answer>, name = 'fake'): Promise<FakeConsumer> {
    const asked: FakeConsumer['asked'] = []
    const http = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url!, 'http://fake')
      const path = pathname.replace('/api/v1/', '')
      asked.push({ path, query: searchParams })
      const answer = answers[path]
      const reply = new Reply(response)
      if (answer) void answer(searchParams, reply, request)
      else reply.json(404, { message: `Route GET:${pathname} not found`, error: 'Not Found', statusCode: 404 })
    })
    await once(http.listen(0, '127.0.0.1'), 'listening')
    return new FakeConsumer(http, asked, name)
  }

  private constructor(http: ReturnType<typeof createServer>, asked: FakeConsumer['asked'], name: string) {
    this.#http = http
    this.asked = asked
    this.server = { name, url: new URL(`http://127.0.0.1:${(http.address() as AddressInfo).port}/`) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#http.closeAllConnections()
    if (this.#http.listening) await once(this.#http.close(), 'close')
  }
}
