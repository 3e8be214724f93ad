import { describe, expect, it } from 'vitest'
import { NOON, type Said } from '../support/landing.ts'
import { Reading } from '../support/reading.ts'
import { until } from '../support/until.ts'

const say = (run: number, first: number, count: number, more: Partial<Said> = {}): Said => ({
  ...{ partition: 0, module: `m${run}`, run, first, count, ms: NOON + first },
  ...more,
})
const numbers = (lines: readonly { line: string }[]) => lines.map(({ line }) => Number.parseInt(line, 10))
const upTo = (count: number, from = 1) => Array.from({ length: count }, (_, i) => from + i)

describe('tail', () => {
  it('says its window first, then what lands, once', async () => {
    await using reading = await Reading.create()
    await reading.land([say(1, 1, 5)])
    await using tail = await reading.follow('tail', { window: 50 })
    await until('it follows', () => tail.cursor !== undefined)
    await reading.land([say(1, 6, 5)])
    await until('the lines are there', () => tail.lines.length >= 5)
    expect(tail.events[0]).toEqual({ type: 'window', ms: 50 })
    expect(numbers(tail.lines)).toEqual(upTo(5, 6))
    expect(tail.lines[0]).toMatchObject({ service: 's', module: 'm1', host: 'h', container: 'c1', source: 'stdout' })
  })

  it('begins with history, and goes on without a gap or a double while lines land', async () => {
    await using reading = await Reading.create()
    let next = 1
    const land = async () => {
      await reading.land([say(1, next, 10)])
      next += 10
    }
    for (let i = 0; i < 5; i++) await land()
    const tails = []
    for (let i = 0; i < 10; i++) {
      const tail = await reading.follow('tail', { last: 1000, window: 20, ...(i % 2 && { include: '.' }) })
      tails.push(tail)
      await land()
    }
    for (const tail of tails) {
      await until('all lines are there', () => tail.lines.length >= next - 1)
      expect(numbers(tail.lines)).toEqual(upTo(next - 1))
      await tail[Symbol.asyncDispose]()
    }
    await until('nobody follows', () => reading.hub.readers === 0)
  })

  it('a reader that comes back with a cursor gets every line that landed behind it', async () => {
    await using reading = await Reading.create()
    await reading.land([say(1, 1, 5)])
    let cursor: string | undefined
    {
      await using tail = await reading.follow('tail', { window: 0 })
      await until('it follows', () => tail.cursor !== undefined)
      await reading.land([say(1, 6, 5)])
      await until('the lines are there', () => tail.lines.length === 5)
      await until('a cursor behind them', () => tail.events.at(-1)!.type === 'cursor')
      cursor = tail.cursor!
    }
    await reading.land([say(1, 11, 5), say(2, 1, 3)])
    await using again = await reading.follow('tail', { cursor, window: 0 })
    await until('it follows', () => again.cursor !== undefined)
    await reading.land([say(1, 16, 3)])
    await until('the last line is there', () => numbers(again.lines).includes(18))
    const ofFirst = numbers(again.lines.filter(({ module }) => module === 'm1'))
    expect(new Set(ofFirst)).toEqual(new Set(upTo(ofFirst.length > 8 ? 13 : 8, ofFirst.length > 8 ? 6 : 11)))
    expect(numbers(again.lines.filter(({ module }) => module === 'm2'))).toEqual([1, 2, 3])
  })
})
