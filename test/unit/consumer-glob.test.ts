import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { globMatcher } from '../../consumer/glob.ts'

describe('a glob', () => {
  it.each([
    [['shop'], 'shop', true],
    [['shop'], 'shops', false],
    [['shop', 'bank'], 'bank', true],
    [['sh*'], 'shop', true],
    [['*'], '', true],
    [[], 'shop', false],
    [['a/*'], 'a/b/c', true],
    [['sh?p'], 'sh🛒p', true],
    [['sh?p'], 'shp', false],
    [['[a-z]+.'], 'shop', false],
    [['[a-z]+.*'], '[a-z]+.x', true],
    [['*\n*'], 'a\nb', true],
  ])('%j of %j: %s', (globs, name, expected) => {
    expect(globMatcher(globs)(name)).toBe(expected)
  })

  it('matches what a regular expression of the same meaning does', () => {
    const text = (letters: string) => fc.string({ unit: fc.constantFrom(...letters), maxLength: 8 })
    fc.assert(
      fc.property(text('ab*?'), text('ab'), (glob, name) => {
        const regex = new RegExp(`^${glob.replaceAll('*', '.*').replaceAll('?', '.')}$`)
        expect(globMatcher([glob])(name)).toBe(regex.test(name))
      }),
    )
  })

  it('of a thousand stars is answered at once', () => {
    const before = process.cpuUsage()
    expect(globMatcher(['*a'.repeat(1000)])(`${'a'.repeat(999)}b`)).toBe(false)
    expect(process.cpuUsage(before).user).toBeLessThan(1_000_000)
  })
})
