/** Numbers and times as they are read. */
import { zone } from './preferences.ts'

const number = new Intl.NumberFormat('en')
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

/** `1,234,567` */
export const exact = (value: number): string => number.format(value)
/** `1.2M` */
export const brief = (value: number): string => short.format(value)
/** `1 line`, `2 lines` */
export const counted = (value: number, noun: string): string => `${exact(value)} ${noun}${value === 1 ? '' : 's'}`

/** `1.2 GB` */
export function bytes(value: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB', 'PB']
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3))
  const scaled = value / 1_000 ** power
  return `${power === 0 ? scaled : scaled.toFixed(scaled < 10 ? 1 : 0)} ${units[power]}`
}

/** What may be lost at most: one line in so many. */
export const ALLOWED_ONE_IN = 10_000

/** A ratio of lost lines: `none`, `1 in 54,321`, `2.5 %`. */
export function lossRatio(ratio: number): string {
  if (ratio === 0) return 'none'
  return ratio > 0.01 ? `${(ratio * 100).toFixed(1)} %` : `1 in ${exact(Math.round(1 / ratio))}`
}

const pad = (value: number, digits = 2): string => String(value).padStart(digits, '0')
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** A time's parts in the zone that is preferred. */
function parts(time: Date) {
  return zone.value === 'utc'
    ? {
        ...{ year: time.getUTCFullYear(), month: time.getUTCMonth(), day: time.getUTCDate() },
        ...{ hour: time.getUTCHours(), minute: time.getUTCMinutes(), second: time.getUTCSeconds() },
        ms: time.getUTCMilliseconds(),
      }
    : {
        ...{ year: time.getFullYear(), month: time.getMonth(), day: time.getDate() },
        ...{ hour: time.getHours(), minute: time.getMinutes(), second: time.getSeconds() },
        ms: time.getMilliseconds(),
      }
}

/** `08:24:41.123` */
export function clock(time: Date): string {
  const { hour, minute, second, ms } = parts(time)
  return `${pad(hour)}:${pad(minute)}:${pad(second)}.${pad(ms, 3)}`
}
/** `Nov 23` */
export function date(time: Date): string {
  const { month, day } = parts(time)
  return `${MONTHS[month]} ${day}`
}
/** `2026-11-23 08:24:41.123`, as it may be typed into the range as well. */
export function stamp(time: Date, withMs = true): string {
  const { year, month, day, hour, minute, second, ms } = parts(time)
  return `${year}-${pad(month + 1)}-${pad(day)} ${pad(hour)}:${pad(minute)}:${pad(second)}${withMs ? `.${pad(ms, 3)}` : ''}`
}
/** `Nov 23 08:24` */
export function minuteOf(time: Date): string {
  const { hour, minute } = parts(time)
  return `${date(time)} ${pad(hour)}:${pad(minute)}`
}
/** `UTC`, or the browser's zone. */
export const zoneName = (): string => (zone.value === 'utc' ? 'UTC' : Intl.DateTimeFormat().resolvedOptions().timeZone)
