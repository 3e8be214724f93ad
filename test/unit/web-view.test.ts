import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BYS, EMPTY, sameLines, searchOf, type View, viewOf } from '../../web/view.ts'

const text = fc.string({ unit: 'binary', maxLength: 40 }).filter((value) => value.isWellFormed() && value !== '')
const list = fc.uniqueArray(text, { maxLength: 4 })
const view = fc
  .record({
    targets: list,
    hosts: list,
    containers: list,
    exclude: list,
    sources: fc.constantFrom<View['sources']>([], ['stdout'], ['stderr']),
    text: fc.oneof(fc.constant(''), text),
    regex: fc.boolean(),
    matchCase: fc.boolean(),
    word: fc.boolean(),
    invert: fc.boolean(),
    by: fc.constantFrom(...BYS),
    range: fc.constantFrom(
      {},
      { since: '15m' },
      { since: '2026-11-23T08:24:41.123Z', until: '2026-11-23T09:00:00+01:00' },
    ),
    opened: fc.oneof(
      fc.constant({}),
      text.map((at) => ({ at })),
    ),
  })
  .map(({ range, opened, ...rest }): View => ({ page: 'lines', ...rest, ...range, ...opened }))

describe('a view in the address bar', () => {
  it('comes back as it was, whatever it holds', () => {
    fc.assert(
      fc.property(view, (given) => {
        expect(viewOf(searchOf(given))).toEqual(given)
      }),
    )
  })

  it('is short and read easily where it says little', () => {
    expect(searchOf({ ...EMPTY, page: 'overview' })).toBe('')
    expect(searchOf(EMPTY)).toBe('?page=lines')
    expect(searchOf({ ...EMPTY, targets: ['shop/*'], text: 'a b' })).toBe('?target=shop/*&q=a+b')
  })

  it.each([
    '?since=yesterday&by=colour&source=stdin&page=shop',
    '?until=1h&regex=false&target=&not=',
    '?since=2026-02-30&source=stdout&source=stderr',
  ])('%s, written by hand, is a view without what is not understood', (search) => {
    expect(viewOf(search)).toEqual(EMPTY)
  })

  it('asks for the same lines whatever is opened and however it is counted', () => {
    const one: View = { ...EMPTY, text: 'x', since: '1h' }
    expect(sameLines(one, { ...one, at: 'y', by: 'host' })).toBe(true)
    expect(sameLines(one, { ...one, word: true })).toBe(false)
    expect(sameLines(one, { ...one, since: '2h' })).toBe(false)
  })
})
