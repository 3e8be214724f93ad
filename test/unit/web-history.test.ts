import { expect, it } from 'vitest'
import type { Line, SearchEvent } from '../../consumer/api-schema.ts'
import type { Api } from '../../web/api.ts'
import { Feed } from '../../web/feed.ts'
import { History } from '../../web/history.ts'
import { viewOf } from '../../web/view.ts'

const NOW = 1_700_000_100_000

const line = (n: number): Line => ({
  ...{ type: 'line', at: `f:${n}`, file: 'f', position: n, time: new Date(1_700_000_000_000 + n).toISOString() },
  ...{ service: 's', module: 'm', host: 'h', container: 'c', source: 'stdout', line: `line ${n}` },
})

/** An API whose answers are given by the test, piece by piece. */
function questioned() {
  type Asked = { query: URLSearchParams; take: (events: SearchEvent[]) => void; end: () => void }
  const asked: Asked[] = []
  const api = {
    stream: (_path: string, query: URLSearchParams, _signal: AbortSignal, take: Asked['take']) =>
      new Promise<void>((end) => asked.push({ query, take, end })),
  } as Pick<Api, 'stream'> as Api
  return { api, asked }
}

const end = (limited: boolean): SearchEvent => ({ type: 'end', limited, partial: [] }) as unknown as SearchEvent

it('the page before is asked for while one still comes in: it is read after that, once', async () => {
  const { api, asked } = questioned()
  const feed = new Feed((draw) => draw(), 1_000)
  const history = new History(api, viewOf('?target=s/m&since=1h'), feed, NOW)
  const running = history.run()
  asked[0]!.take([line(20), line(21)])
  void history.older()
  void history.older()
  expect(asked.length).toBe(1)
  asked[0]!.take([end(true)])
  asked[0]!.end()
  await expect.poll(() => asked.length).toBe(2)
  expect(Date.parse(asked[1]!.query.get('until')!)).toBe(Date.parse(line(20).time) + 1)
  asked[1]!.take([line(10), end(false)])
  asked[1]!.end()
  await running
  expect(asked.length).toBe(2)
  expect([...feed].map((row) => row.line.line)).toEqual(['line 10', 'line 20', 'line 21'])
})

it('the page before is asked for while the first one comes in, which is all there is: nothing more is read', async () => {
  const { api, asked } = questioned()
  const history = new History(api, viewOf('?target=s/m&since=1h'), new Feed((draw) => draw(), 1_000), NOW)
  const running = history.run()
  void history.older()
  asked[0]!.take([line(1), end(false)])
  asked[0]!.end()
  await running
  expect(asked.length).toBe(1)
})
