import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Intervals } from '../../consumer/intervals.ts'

const stretch = fc
  .tuple(fc.nat({ max: 40 }), fc.integer({ min: 1, max: 8 }))
  .map(([from, length]) => [from, from + length] as const)
const numbersOf = ([from, to]: readonly [number, number]) => Array.from({ length: to - from }, (_, i) => from + i)

it('intervals are a set of whole numbers, in order, and as few as there can be', () => {
  fc.assert(
    fc.property(fc.array(stretch, { maxLength: 12 }), stretch, (added, asked) => {
      const intervals = new Intervals()
      const set = new Set<number>()
      for (const each of added) {
        intervals.add(...each)
        for (const n of numbersOf(each)) set.add(n)
      }
      const sorted = [...set].sort((a, b) => a - b)
      expect(intervals.list.flatMap(numbersOf)).toEqual(sorted)
      expect(intervals.list).toHaveLength(sorted.filter((n) => !set.has(n - 1)).length)
      const numbers = numbersOf(asked)
      expect(intervals.touches(...asked)).toBe(numbers.some((n) => set.has(n)))
      expect(intervals.holds(...asked)).toBe(numbers.every((n) => set.has(n)))
      expect(intervals.without(...asked).flatMap(numbersOf)).toEqual(numbers.filter((n) => !set.has(n)))
    }),
    { numRuns: 500 },
  )
})
