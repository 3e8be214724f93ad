import fc from 'fast-check'
import { RE2JS } from 're2js'
import { describe, expect, it } from 'vitest'
import { MAX_STEPS, stepsOf } from '../../consumer/pattern-size.ts'
import { textFilter } from '../../consumer/selection.ts'

describe('the size of a regular expression', () => {
  it.each([
    ['timeout', 7],
    ['a{3}', 6],
    ['(ab){10}', 50],
    ['\\{3}', 3],
    ['[a-z{9}]{2}', 4],
    ['\\pL{2}\\p{Greek}', 5],
    ['\\x{1000}', 1],
    ['x*', 2],
    ['\\Qa.b\\E', 7],
  ])('of %s is %i steps', (pattern, most) => {
    expect(stepsOf(pattern)).toBeGreaterThan(0)
    expect(stepsOf(pattern)).toBeLessThanOrEqual(most)
  })

  it.each([
    'x{0,1000}'.repeat(300),
    '[a-z]{1000}'.repeat(370),
    '\\pL{1000}'.repeat(400),
    '(((((a{10}){10}){10})))'.repeat(10),
    `(${'a'.repeat(3_000)}){500}`,
    `(?:${'(?i:a|b)'.repeat(50)}){100}`,
    '(a|b|c){1,500}(x*)*'.repeat(20),
    `(?P<name>${'x{1000}'.repeat(20)})`,
    `(?i)${'x{1000}'.repeat(20)}`,
    `(?:\\Q${'a'.repeat(3_000)}\\E){500}`,
    `(?:${'a'.repeat(3_000)})\\Q\\E{500}`,
  ])('that costs seconds is told in no time: %#', (pattern) => {
    expect(stepsOf(pattern)).toBeGreaterThan(MAX_STEPS)
  })

  it.each([
    '(?i)\\b(error|warn(ing)?|fatal)\\b.{0,200}timeout',
    '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}',
    '^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}(\\.\\d{1,9})?(Z|[+-]\\d{2}:\\d{2}) ',
    '((25[0-5]|2[0-4]\\d|1?\\d{1,2})\\.){3}(25[0-5]|2[0-4]\\d|1?\\d{1,2})',
    'x'.repeat(4_000),
  ])('that people write is small: %s', (pattern) => {
    expect(stepsOf(pattern)).toBeLessThan(MAX_STEPS)
  })

  it('is never far below what it turns out to be', () => {
    const { pattern } = fc.letrec<{ pattern: string; atom: string }>((tie) => ({
      pattern: fc.array(tie('atom'), { minLength: 1, maxLength: 4 }).map((atoms) => atoms.join('')),
      atom: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(
          'a',
          '.',
          '[a-z]',
          '[^]x]',
          '[[:alpha:]_]',
          '\\d',
          '\\pL',
          '\\x{41}',
          '\\Qa{9}\\E',
          `\\Q${'a'.repeat(40)}\\E`,
          '^',
          '$',
          '\\b',
        ),
        fc.constantFrom('a{7}', '[a-z]{3,}', '\\d{2,4}', '.{9}'),
        tie('pattern').map((inner) => `(${inner})`),
        tie('pattern').map((inner) => `(?i:${inner}|b)`),
        fc
          .tuple(tie('pattern'), fc.constantFrom('{3}', '{2,5}', '{4,}', '{0,6}', '*', '+?', '?'))
          .map(([inner, times]) => `(?:${inner})${times}`),
      ),
    }))
    fc.assert(
      fc.property(pattern, (pattern) => {
        expect(RE2JS.compile(pattern).programSize()).toBeLessThanOrEqual(3 * stepsOf(pattern) + 8)
      }),
    )
  })

  it('is held to a bound, over all patterns of a question', () => {
    const filter = (...include: string[]) => textFilter({ include, exclude: ['b{1000}'], ignoreCase: false })
    expect(filter('a{1000}')?.passes('a'.repeat(1000))).toBe(true)
    expect(() => filter(...Array.from({ length: 5 }, () => 'a{1000}'))).toThrow(/regular expressions are too large/)
  })
})
