import { describe, expect, it } from 'vitest'
import type { z } from 'zod'
import {
  histogramQuery as histogramShape,
  linesQuery as linesShape,
  searchQuery,
  tailQuery as tailShape,
} from '../../consumer/api-schema.ts'
import { commandOf } from '../../web/keys.ts'
import { levelOf } from '../../web/level.ts'
import { isMoment, momentOf, readMoment, roughly } from '../../web/moment.ts'
import { errorQuery, histogramQuery, historyQuery, linesQuery, literal, spanOf, tailQuery } from '../../web/queries.ts'
import { EMPTY, type View } from '../../web/view.ts'

const NOW = Date.parse('2026-11-23T12:00:00Z')
const VIEW: View = {
  ...EMPTY,
  ...{ targets: ['shop/*', 'billing/worker'], hosts: ['a'], containers: ['c-*'], sources: ['stderr'] },
  ...{ text: 'x.y', exclude: ['health', 'a+b'], word: true, since: '1h' },
}

/** What the server makes of a question; it throws where it would answer 400. */
function understood<T extends z.ZodType>(shape: T, query: URLSearchParams): z.infer<T> {
  const keys = [...new Set(query.keys())]
  return shape.parse(
    Object.fromEntries(keys.map((key) => [key, query.getAll(key).length > 1 ? query.getAll(key) : query.get(key)])),
  )
}

describe('what a view asks', () => {
  it('is understood by the server, whatever the question', () => {
    for (const view of [EMPTY, VIEW, { ...VIEW, regex: true, matchCase: true, invert: true, until: '30m' }]) {
      understood(tailShape, tailQuery(view, undefined))
      understood(tailShape, tailQuery(view, 'cursor'))
      understood(linesShape, linesQuery(view, { now: NOW, until: NOW, limit: 5 }))
      understood(searchQuery, historyQuery({ ...view, text: 'x' }, { now: NOW }).query)
      understood(linesShape, errorQuery(view, 'before', NOW))
      understood(histogramShape, histogramQuery(view, spanOf(view, NOW), 100))
    }
  })

  it('of a tail is its filters as regular expressions that mean what was typed', () => {
    const { include, exclude, ignoreCase, last } = understood(tailShape, tailQuery(VIEW, undefined))
    expect({ include, exclude, ignoreCase }).toEqual({
      include: ['\\b(?:x\\.y)\\b'],
      exclude: ['health', 'a\\+b'],
      ignoreCase: true,
    })
    expect(last).toBeGreaterThan(0)
    expect(understood(tailShape, tailQuery(VIEW, 'here')).last).toBe(0)
  })

  it('of history is a search where something is looked for, and lines where nothing is', () => {
    const { path, query } = historyQuery(VIEW, { now: NOW })
    expect(path).toBe('/search')
    expect(understood(searchQuery, query)).toMatchObject({
      ...{ pattern: 'x.y', fixed: true, ignoreCase: true, word: true, last: true, since: '2026-11-23T11:00:00.000Z' },
      exclude: ['health', 'a\\+b'],
    })
    expect(historyQuery({ ...VIEW, text: '' }, { now: NOW }).path).toBe('/lines')
  })

  it('takes text for what it says in a regular expression', () => {
    const text = '[a-z]+ (b|c)? $1.00 ^{2} \\d'
    expect(new RegExp(`^${literal(text)}$`).test(text)).toBe(true)
  })
})

describe('moments', () => {
  it.each([
    ['15m', '2026-11-23T11:45:00.000Z'],
    ['7d', '2026-11-16T12:00:00.000Z'],
    ['2026-11-23T09:00:00+01:00', '2026-11-23T08:00:00.000Z'],
  ])('%s is read', (text, time) => {
    expect(isMoment(text)).toBe(true)
    expect(new Date(momentOf(text, NOW)).toISOString()).toBe(time)
  })

  it.each([
    ['14:30', '2026-11-23T14:30:00.000Z'],
    ['2026-11-20', '2026-11-20T00:00:00.000Z'],
    ['2026-11-20 9:05:07.5', '2026-11-20T09:05:07.500Z'],
    [' 90m ', '90m'],
  ])('%j, typed, is %s', (typed, moment) => expect(readMoment(typed, NOW, true)).toBe(moment))

  it.each(['', 'yesterday', '25:00', '2026-13-01', '2026-02-30', '12', '2026-11-20T'])('%j, typed, is none', (typed) =>
    expect(readMoment(typed, NOW, true)).toBeUndefined(),
  )

  it('tells roughly how long ago something was', () => {
    expect([900, 61_000, 7_200_000, 3 * 86_400_000].map(roughly)).toEqual(['1 s', '1 min', '2 h', '3 d'])
  })
})

describe('levels', () => {
  it.each([
    ['{"level":"error","msg":"x"}', 'error'],
    ['{"time":1,"level":50,"msg":"x"}', 'error'],
    ['{"severity":"WARNING"}', 'warn'],
    ['level=debug msg="an error"', 'debug'],
    ['2026-11-23 08:24:41 ERROR shop - x', 'error'],
    ['[warn] x', 'warn'],
    ['\x1b[31merror\x1b[0m: x', 'error'],
    ['java.lang.IllegalStateException: x', 'error'],
    ['Traceback (most recent call last):', 'error'],
    ['panic: x', 'fatal'],
    ['I0423 12:00:00 INFO x', 'info'],
  ] as const)('%j is %s', (text, level) => expect(levelOf(text)).toBe(level))

  it.each(['GET /error 200', 'no errors were found', 'an error-free run', '{"msg":"ok"}', ''])('%j says none', (text) =>
    expect(levelOf(text)).toBeUndefined(),
  )
})

describe('keys', () => {
  it.each([
    [{ key: '?' }, 'help'],
    [{ key: 'k', ctrlKey: true }, 'picker'],
    [{ key: 'k' }, 'previous'],
    [{ key: 'E' }, 'previousError'],
    [{ key: 'c', ctrlKey: true }, undefined],
    [{ key: 'f', altKey: true }, undefined],
  ])('%j is %s', (key, command) => {
    expect(commandOf({ ctrlKey: false, metaKey: false, altKey: false, ...key })).toBe(command)
  })
})
