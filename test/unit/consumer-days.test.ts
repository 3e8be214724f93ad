import { describe, expect, it } from 'vitest'
import { Days } from '../../consumer/days.ts'

const ms = (text: string) => Date.parse(text)

describe('days', () => {
  it.each([
    ['UTC', '2026-11-23T23:59:59.999Z', '2026-11-23', '2026-11-24T00:00:00.000Z'],
    ['Europe/Berlin', '2026-11-23T22:59:59.999Z', '2026-11-23', '2026-11-23T23:00:00.000Z'],
    ['Europe/Berlin', '2026-03-29T21:59:59.999Z', '2026-03-29', '2026-03-29T22:00:00.000Z'],
    ['Europe/Berlin', '2026-10-25T22:59:59.999Z', '2026-10-25', '2026-10-25T23:00:00.000Z'],
    ['America/New_York', '2026-11-02T04:59:59.999Z', '2026-11-01', '2026-11-02T05:00:00.000Z'],
    ['Asia/Kolkata', '2026-06-30T18:29:59.999Z', '2026-06-30', '2026-06-30T18:30:00.000Z'],
    ['Pacific/Kiritimati', '2026-01-01T09:59:59.999Z', '2026-01-01', '2026-01-01T10:00:00.000Z'],
  ])('in %s, %s is the last ms of %s', (zone, last, name, next) => {
    const days = new Days(zone)
    const day = days.at(ms(last))
    expect(day.name).toBe(name)
    expect(new Date(day.end).toISOString()).toBe(next)
    expect(days.at(day.end).name > name).toBe(true)
    expect(days.at(day.end).start).toBe(day.end)
    expect(days.at(day.start - 1).end).toBe(day.start)
  })

  it('has 23, 24 or 25 hours a day through a year with daylight saving', () => {
    const days = new Days('Europe/Berlin')
    const hours = new Set<number>()
    let at = ms('2026-01-01T12:00:00Z')
    for (let i = 0; i < 365; i++) {
      const day = days.at(at)
      hours.add((day.end - day.start) / 3_600_000)
      expect(days.at(day.start)).toEqual(day)
      at = day.end + 1
    }
    expect([...hours].sort()).toEqual([23, 24, 25])
    expect(days.at(at).name).toBe('2027-01-01')
  })
})
