import { describe, expect, it } from 'vitest'
import type { Line } from '../../consumer/api-schema.ts'
import { Feed } from '../../web/feed.ts'
import { Ring } from '../../web/ring.ts'

const line = (n: number, text = `line ${n}`, over: Partial<Line> = {}): Line => ({
  ...{ type: 'line', at: `f:${n}`, file: 'f', position: n, time: new Date(1_700_000_000_000 + n).toISOString() },
  ...{ service: 's', module: 'm', host: 'h', container: 'c', source: 'stdout', line: text },
  ...over,
})
const lines = (from: number, to: number): Line[] => Array.from({ length: to - from }, (_, i) => line(from + i))

/** A feed whose frames are drawn when the test says so. */
function feedOf(capacity?: number) {
  let drawing: (() => void)[] = []
  const feed = new Feed((flush) => void drawing.push(flush), capacity)
  const draw = (): void => {
    const now = drawing
    drawing = []
    for (const flush of now) flush()
  }
  return { feed, draw, frames: () => drawing.length, texts: () => [...feed].map((row) => row.line.line) }
}

describe('ring', () => {
  it('holds the newest, in order, and counts what it let go of', () => {
    const ring = new Ring<number>(3)
    expect([1, 2, 3, 4, 5].map((n) => ring.push(n))).toEqual([undefined, undefined, undefined, 1, 2])
    expect([...ring]).toEqual([3, 4, 5])
    expect([ring.at(0), ring.at(-1), ring.at(3), ring.dropped]).toEqual([3, 5, undefined, 2])
  })
})

describe('a live feed', () => {
  it('changes once a frame, however often lines come', () => {
    const { feed, draw, frames } = feedOf()
    for (let i = 0; i < 100; i++) feed.append(lines(i * 10, i * 10 + 10))
    expect(frames()).toBe(1)
    expect(feed.length).toBe(0)
    draw()
    expect(feed.version.value).toBe(1)
    expect(feed.length).toBe(1_000)
  })

  it('lets go of the oldest, and says how many', () => {
    const { feed, draw, texts } = feedOf(10)
    feed.append(lines(0, 8))
    draw()
    feed.append(lines(8, 15))
    draw()
    expect(texts()).toEqual(lines(5, 15).map(({ line }) => line))
    expect(feed.dropped.value).toBe(5)
    feed.append(lines(15, 40))
    draw()
    expect(feed.length).toBe(10)
    expect(feed.dropped.value).toBe(30)
  })

  it('stays as it is while it is held, counts what waits, and takes it in when it is released', () => {
    const { feed, draw, texts } = feedOf(10)
    feed.append(lines(0, 5))
    draw()
    feed.hold()
    feed.append(lines(5, 12))
    draw()
    expect(texts()).toEqual(lines(0, 5).map(({ line }) => line))
    expect(feed.waiting.value).toBe(7)
    feed.append(lines(12, 20))
    draw()
    expect(feed.waiting.value).toBe(10)
    expect(feed.dropped.value).toBe(5)
    feed.release()
    expect(feed.waiting.value).toBe(0)
    expect(texts()).toEqual(lines(10, 20).map(({ line }) => line))
    expect(feed.dropped.value).toBe(10)
  })
})

describe('a feed of history', () => {
  it('shows all that came before it is said to be all', () => {
    const { feed } = feedOf()
    feed.merge(lines(0, 3))
    feed.flush()
    expect(feed.length).toBe(3)
  })

  it('shows a page that comes while it is held', () => {
    const { feed, draw } = feedOf()
    feed.hold()
    feed.merge(lines(0, 3))
    draw()
    expect([feed.length, feed.version.value]).toEqual([3, 1])
  })

  it('puts pages into the order of time and takes no line twice', () => {
    const { feed, draw, texts } = feedOf()
    expect(feed.merge(lines(50, 100))).toBe(50)
    draw()
    expect(feed.merge(lines(0, 60))).toBe(50)
    draw()
    expect(texts()).toEqual(lines(0, 100).map(({ line }) => line))
  })
})

const JAVA = [
  'java.lang.IllegalStateException: cart 4711 is closed',
  '\tat shop.cart.Cart.add(Cart.java:42)',
  'Caused by: java.sql.SQLException: deadlock',
  '\t... 12 more',
]
const PYTHON = [
  'Traceback (most recent call last):',
  '  File "cart.py", line 42, in add',
  '    raise ValueError("closed")',
  'ValueError: closed',
]
const GO = ['panic: closed', '', 'goroutine 1 [running]:', 'main.main()', '\t/src/main.go:42 +0x1d', 'exit status 2']
const NODE = [
  'TypeError: x is not a function',
  '    at Cart.add (cart.js:42:7)',
  '    at process.emit (node:events:518:28)',
]

describe('stack traces', () => {
  it.each([
    ['Java', JAVA, 1],
    ['Python', PYTHON, 1],
    ['Go', GO, 2],
    ['Node', NODE, 1],
  ])('%s: one row, folded under its first line', (_runtime, trace, rows) => {
    const { feed, draw } = feedOf()
    feed.append(trace.map((text, i) => line(i, text)))
    draw()
    expect(feed.length).toBe(rows)
    expect(feed.at(0)!.frames.map(({ line }) => line)).toEqual(trace.slice(1, trace.length + 1 - rows))
  })

  it('stay together though another container prints in between, and do not swallow its lines', () => {
    const { feed, draw, texts } = feedOf()
    feed.append(JAVA.flatMap((text, i) => [line(2 * i, text), line(2 * i + 1, `other ${i}`, { container: 'd' })]))
    draw()
    expect(texts()).toEqual([JAVA[0], 'other 0', 'other 1', 'other 2', 'other 3'])
  })

  it.each(['INFO started', '2026-11-23 08:24:41 GET /', '{"level":"info"}', 'main: ready', 'at last'])(
    'do not swallow %j',
    (text) => {
      const { feed, draw } = feedOf()
      feed.append([line(0, JAVA[0]), line(1, text)])
      draw()
      expect(feed.length).toBe(2)
    },
  )

  it('end after two seconds of silence', () => {
    const { feed, draw } = feedOf()
    feed.append([line(0, JAVA[0]), line(3_000, JAVA[1]!)])
    draw()
    expect(feed.length).toBe(2)
  })
})
