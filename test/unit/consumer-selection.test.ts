import fc from 'fast-check'
import { RE2JS } from 're2js'
import { describe, expect, it } from 'vitest'
import { selectorOf, textFilter } from '../../consumer/selection.ts'

const nothing = { target: [], service: [], module: [], host: [], container: [], source: [] }
const names = { service: 'shop', module: 'web', host: 'h1', container: 'shop-web-1' }
const all = () => true

describe('a selection', () => {
  it.each([
    [{}, true],
    [{ target: ['shop'] }, true],
    [{ target: ['web'] }, false],
    [{ target: ['shop/web'] }, true],
    [{ target: ['shop/*', 'x'] }, true],
    [{ target: ['shop/d*'] }, false],
    [{ target: ['shop-web-?'] }, true],
    [{ target: ['x/y', 'shop-web-1'] }, true],
    [{ service: ['s*'], module: ['db', 'web'] }, true],
    [{ service: ['s*'], module: ['db'] }, false],
    [{ host: ['h2'] }, false],
    [{ host: ['h?'], container: ['*-1'] }, true],
    [{ target: ['shop'], container: ['other'] }, false],
  ])('%j', (given, expected) => {
    expect(selectorOf({ ...nothing, ...given }, all).names(names)).toBe(expected)
    expect(selectorOf({ ...nothing, ...given }, () => false).names(names)).toBe(false)
  })
})

describe('a filter', () => {
  const text = fc.stringMatching(/^[a-cA-CkK\u212a\u017fs|. ]{0,12}$/)

  it('of plain words is what RE2 makes of them', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-ckKsS\u212a |/-]{1,8}$/), text, fc.boolean(), (pattern, line, ignoreCase) => {
        const filter = textFilter({ include: [pattern], exclude: [], ignoreCase })!
        const expected = RE2JS.compile(pattern, ignoreCase ? RE2JS.CASE_INSENSITIVE : 0).test(line)
        expect([pattern, line, filter.passes(line)]).toEqual([pattern, line, expected])
      }),
      { numRuns: 2000 },
    )
  })

  it('takes linear time for a pattern that keeps a backtracking engine busy for ever', () => {
    const filter = textFilter({ include: ['(a+)+$'], exclude: ['(a|aa)+$'], ignoreCase: false })!
    const began = process.cpuUsage()
    expect(filter.passes(`${'a'.repeat(5_000)}b`)).toBe(false)
    expect(process.cpuUsage(began).user).toBeLessThan(5_000_000)
  })

  it.each(['(', 'a**', '(?=x)', '[', '\\'])('of %j, which is no regular expression of RE2, is refused', (pattern) => {
    expect(() => textFilter({ include: [], exclude: [pattern], ignoreCase: false })).toThrow(/is not understood/)
  })

  it('takes linear time to mark a line with a pattern that matches nothing at each of its places', () => {
    const filter = textFilter({ include: ['(a.*b)?'], exclude: [], ignoreCase: false })!
    const began = process.cpuUsage()
    expect(filter.spans('a'.repeat(20_000))).toEqual([])
    expect(process.cpuUsage(began).user).toBeLessThan(5_000_000)
  })
})
