import { describe, expect, it } from 'vitest'
import { Calendar } from '../../consumer/calendar.ts'
import { Days } from '../../consumer/days.ts'

const NOON = Date.parse('2026-11-23T12:00:00.000Z')
const HOUR_MS = 3_600_000

/** A calendar whose clocks and records are the test's to move. */
function calendarOf(earlier: number, zone = 'UTC') {
  const time = { now: NOON, passed: 5_000, newest: 0 }
  const clocks = { now: () => time.now, passed: () => time.passed }
  return { time, calendar: new Calendar(new Days(zone), () => time.newest, earlier, clocks) }
}

describe('the calendar', () => {
  it('goes on from the newest record with the time that passes, whatever the clock says', () => {
    const { time, calendar } = calendarOf(0)
    time.newest = NOON
    time.now = NOON + 400 * 24 * HOUR_MS
    expect(calendar.now).toBe(NOON)
    time.passed += 13 * HOUR_MS
    expect(calendar.today).toBe('2026-11-24')
    time.newest = NOON + HOUR_MS
    expect(calendar.now).toBe(NOON + 13 * HOUR_MS)
    time.newest = NOON + 14 * HOUR_MS
    expect(calendar.now).toBe(NOON + 14 * HOUR_MS)
  })

  it('is not later than the clock, and after a restart not earlier than what an earlier daemon knew', () => {
    const { time, calendar } = calendarOf(NOON - 30 * HOUR_MS)
    expect(calendar.today).toBe('2026-11-22')
    time.newest = NOON + HOUR_MS
    expect(calendar.now).toBe(NOON)
  })

  it('knows no day while nothing tells: nothing is old then', () => {
    expect(calendarOf(0).calendar.today).toBe('1970-01-01')
  })

  it('knows when a day is over in the zone of the files', () => {
    const { time, calendar } = calendarOf(NOON, 'Pacific/Kiritimati')
    expect(calendar.today).toBe('2026-11-24')
    expect(calendar.over('2026-11-23', 2 * HOUR_MS)).toBe(true)
    expect(calendar.over('2026-11-23', 2 * HOUR_MS + 1)).toBe(false)
    expect(calendar.over('2026-11-24', 0)).toBe(false)
    time.now += 22 * HOUR_MS
    time.passed += 22 * HOUR_MS
    expect(calendar.over('2026-11-24', 0)).toBe(true)
  })
})
