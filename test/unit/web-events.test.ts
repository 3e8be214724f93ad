import { describe, expect, it } from 'vitest'
import { huesOf, ownHue } from '../../web/color.ts'
import { readEvents } from '../../web/events.ts'
import { fieldsOf, summaryOf } from '../../web/json.ts'

type Event = { n: number; text?: string }

/** A stream that brings these chunks, all at once. */
const streamOf = (...chunks: Uint8Array[]): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk)
      controller.close()
    },
  })
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

async function eventsOf(body: ReadableStream<Uint8Array>, now?: () => number): Promise<Event[][]> {
  const taken: Event[][] = []
  await readEvents<Event>(body, (events) => void taken.push(events), now)
  return taken
}

describe('events from the network', () => {
  it('are whole wherever the network cuts them, within a letter too', async () => {
    const text = bytes('{"n":1,"text":"äöü €"}\n{"n":2}\n')
    for (let at = 1; at < text.length; at++) {
      const taken = await eventsOf(streamOf(text.subarray(0, at), text.subarray(at)))
      expect(taken.flat()).toEqual([{ n: 1, text: 'äöü €' }, { n: 2 }])
    }
  })

  it('need no newline behind the last one, and none where a heartbeat is empty', async () => {
    expect((await eventsOf(streamOf(bytes('\n{"n":1}\n\n{"n":2}')))).flat()).toEqual([{ n: 1 }, { n: 2 }])
  })

  it('are handed over in slices, and the browser has its turn in between, though all is there at once', async () => {
    const line = '{"n":1}\n'
    let clock = 0
    let turns = 0
    const timer = setInterval(() => turns++, 0)
    // Each look at the clock costs a ms: a slice is some twelve events.
    const taken = await eventsOf(streamOf(bytes(line.repeat(1_000))), () => clock++)
    clearInterval(timer)
    expect(taken.flat()).toHaveLength(1_000)
    expect(Math.max(...taken.map(({ length }) => length))).toBeLessThan(20)
    expect(turns).toBeGreaterThan(5)
  })

  it('that are no JSON are a broken stream', async () => {
    await expect(eventsOf(streamOf(bytes('{"n":1}\n<html>\n')))).rejects.toThrow(SyntaxError)
  })
})

describe('a line that is JSON', () => {
  it('is told as its message and its other fields, without what the row shows anyway', () => {
    const fields = fieldsOf('{"level":"info","time":1,"msg":"stored","id":7,"deep":{"a":[1]}}')!
    expect(summaryOf(fields)).toEqual({
      message: 'stored',
      fields: [
        ['id', '7'],
        ['deep', '{"a":[1]}'],
      ],
    })
  })

  it.each(['', 'text', '[1,2]', '"text"', '{broken', 'null'])('is not %j', (text) =>
    expect(fieldsOf(text)).toBeUndefined(),
  )

  it('brings nothing into the summary that acts', () => {
    expect(summaryOf({ msg: 'x', '\x1b[2Jkey': '\u202evalue' }).fields).toEqual([['key', 'value']])
  })
})

describe('colours of modules', () => {
  it('are their own, and differ as long as there are hues', () => {
    const names = Array.from({ length: 12 }, (_, i) => `shop/module-${i}`)
    const hues = huesOf(names)
    expect(new Set(hues.values()).size).toBe(12)
    expect(huesOf([...names, ...names].reverse())).toEqual(hues)
    expect(huesOf(['shop/web']).get('shop/web')).toBe(ownHue('shop/web'))
    expect(huesOf(Array.from({ length: 100 }, (_, i) => String(i))).size).toBe(100)
  })
})
