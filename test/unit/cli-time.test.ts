import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { age, localTime, parseTime } from '../../cli/time.ts'

const now = Date.parse('2026-11-24T10:15:30.500Z')
const parsed = (text: string): string => new Date(parseTime(text, now)).toISOString()

let zone: string | undefined
beforeEach(() => {
  zone = process.env['TZ']
})
afterEach(() => {
  if (zone === undefined) delete process.env['TZ']
  else process.env['TZ'] = zone
})

describe('a time that somebody types', () => {
  it.each([
    ['10m', '2026-11-24T10:05:30.500Z'],
    ['-3h', '2026-11-24T07:15:30.500Z'],
    ['1h30m', '2026-11-24T08:45:30.500Z'],
    ['1.5h', '2026-11-24T08:45:30.500Z'],
    ['2w', '2026-11-10T10:15:30.500Z'],
    ['250ms', '2026-11-24T10:15:30.250Z'],
    ['now', '2026-11-24T10:15:30.500Z'],
    ['today', '2026-11-24T00:00:00.000Z'],
    ['yesterday', '2026-11-23T00:00:00.000Z'],
    ['10:15', '2026-11-24T10:15:00.000Z'],
    ['10:15:31', '2026-11-23T10:15:31.000Z'],
    ['2026-11-23', '2026-11-23T00:00:00.000Z'],
    ['2026-11-23 14:30', '2026-11-23T14:30:00.000Z'],
    ['2026-11-23T14:30:00.123456Z', '2026-11-23T14:30:00.123Z'],
    ['2026-11-23t14:30:00+02:00', '2026-11-23T12:30:00.000Z'],
    ['2026-11-23T14:30:00-0530', '2026-11-23T20:00:00.000Z'],
  ])('%s is %s', (text, expected) => {
    process.env['TZ'] = 'UTC'
    expect(parsed(text)).toBe(expected)
  })

  it.each(['', 'soon', '10', '25:00', '10:60', '2026-02-30', '2026-13-01', '99999999999w', '10m5', 'm'])(
    'is refused where it is %j, with the forms that there are',
    (text) => {
      expect(() => parseTime(text, now)).toThrow(/is no time\. Times are: 10m/)
    },
  )

  it('without a zone is in that of this machine, over a change of the clocks too', () => {
    process.env['TZ'] = 'Europe/Berlin'
    expect(parsed('2026-11-23 14:30')).toBe('2026-11-23T13:30:00.000Z')
    expect(parsed('2026-07-01')).toBe('2026-06-30T22:00:00.000Z')
    expect(parsed('today')).toBe('2026-11-23T23:00:00.000Z')
    expect(parsed('11:15')).toBe('2026-11-24T10:15:00.000Z')
  })
})

describe('a time that is shown', () => {
  it.each([
    ['UTC', '2026-11-24T10:15:30.5Z', '2026-11-24T10:15:30.5Z'],
    ['Europe/Berlin', '2026-11-24T23:15:30.123456Z', '2026-11-25T00:15:30.123456+01:00'],
    ['America/St_Johns', '2026-11-24T10:15:30.500Z', '2026-11-24T06:45:30.500-03:30'],
    ['Europe/Berlin', 'whenever', 'whenever'],
  ])('in %s: %s as %s', (zone, iso, shown) => {
    process.env['TZ'] = zone
    expect(localTime(iso)).toBe(shown)
    if (iso !== 'whenever') expect(Date.parse(localTime(iso))).toBe(Date.parse(iso))
  })

  it('long ago is said in its largest unit', () => {
    expect([-5, 0, 59_999, 60_000, 3_600_000, 47 * 3_600_000, 49 * 3_600_000].map(age)).toEqual([
      ...['0 s', '0 s', '59 s', '1 min', '1 h', '47 h', '2 d'],
    ])
  })
})
