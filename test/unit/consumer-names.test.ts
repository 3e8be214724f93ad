import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { nameOf, pathComponent } from '../../consumer/names.ts'

describe('a name from the data as a folder', () => {
  it.each([
    ['api', 'api'],
    ['web-1.example_2', 'web-1.example_2'],
    ['../../etc', '%2E.%2F..%2Fetc'],
    ['.', '%2E'],
    ['..', '%2E.'],
    ['', '%'],
    ['a/b', 'a%2Fb'],
    ['a\0b', 'a%00b'],
    ['%', '%25'],
    ['kök', 'k%C3%B6k'],
    ['🐋', '%F0%9F%90%8B'],
    ['-rf', '-rf'],
  ])('%j is %s', (name, expected) => {
    expect(pathComponent(name)).toBe(expected)
    expect(nameOf(expected)).toBe(name)
  })

  it('any name is one component that a file system takes, and no two are the same', () => {
    const name = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string({ minLength: 150, maxLength: 400, unit: 'grapheme-ascii' }),
    )
    fc.assert(
      fc.property(name, name, (a, b) => {
        const component = pathComponent(a)
        expect(component).toMatch(/^[A-Za-z0-9_%~-][A-Za-z0-9._%~-]*$/)
        expect(component.length).toBeLessThanOrEqual(200)
        if (a.toWellFormed() !== b.toWellFormed()) expect(pathComponent(b)).not.toBe(component)
      }),
    )
  })

  it('names of 300 characters that differ at their end stay apart', () => {
    const cut = pathComponent(`${'x'.repeat(299)}a`)
    expect(nameOf(cut)).toBe(cut)
    expect(cut).not.toBe(pathComponent(`${'x'.repeat(299)}b`))
  })
})
