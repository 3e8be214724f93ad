/**
 * Moments, as people type and read them. What names no zone is in this machine's (`TZ`).
 */
import { CliError } from './errors.ts'

const UNITS: Record<string, number> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
}
const DAY = UNITS['d']!

const AGO = /^-?((?:\d+(?:\.\d+)?(?:ms|[smhdw]))+)$/
const CLOCK = /^(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?$/
const DATE = /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)(Z|[+-]\d{2}:?\d{2})?)?$/i

export const TIME_FORMS = '10m, 2h30m or 7d ago; 14:30; 2026-11-23; 2026-11-23T14:30:00Z; now, today, yesterday'

const wrong = (text: string): CliError => new CliError('USAGE', `'${text}' is no time. Times are: ${TIME_FORMS}`)

/** ms since midnight. @returns undefined where there is no such time of the day */
function clock(text: string): number | undefined {
  const [, h, m, s = '0', fraction = '0'] = CLOCK.exec(text) ?? []
  if (h === undefined || Number(h) > 23 || Number(m) > 59 || Number(s) > 59) return undefined
  return Number(h) * UNITS['h']! + Number(m) * UNITS['m']! + Number(s) * 1000 + Math.trunc(Number(fraction) * 1000)
}

/** The moment at which the clocks here show that, on a day that may be written past the month's end. */
const atClock = (year: number, month: number, day: number, ms: number): number =>
  new Date(year, month, day, 0, 0, 0, ms).getTime()

/**
 * `10m` (that long ago), `14:30` (the last time it was), a day, RFC 3339, `now`, `today`, `yesterday`.
 * @param now ms since 1970
 * @returns ms since 1970
 */
export function parseTime(text: string, now: number): number {
  const today = new Date(now)
  const midnight = (days: number) => atClock(today.getFullYear(), today.getMonth(), today.getDate() + days, 0)
  if (text === 'now') return now
  if (text === 'today') return midnight(0)
  if (text === 'yesterday') return midnight(-1)
  const ago = AGO.exec(text)
  if (ago) {
    const parts = ago[1]!.matchAll(/([\d.]+)(ms|[smhdw])/g)
    const moment = now - parts.reduce((sum, [, n, unit]) => sum + Number(n) * UNITS[unit!]!, 0)
    if (Math.abs(moment) > 8.64e15) throw wrong(text)
    return moment
  }
  const sinceMidnight = clock(text)
  if (sinceMidnight !== undefined) {
    const at = atClock(today.getFullYear(), today.getMonth(), today.getDate(), sinceMidnight)
    return at <= now ? at : atClock(today.getFullYear(), today.getMonth(), today.getDate() - 1, sinceMidnight)
  }
  const [, year, month, day, time = '00:00', zone] = DATE.exec(text) ?? []
  const ms = clock(time)
  if (year === undefined || ms === undefined) throw wrong(text)
  const utc = Date.UTC(Number(year), Number(month) - 1, Number(day))
  // Date takes 30 February for 2 March.
  if (new Date(utc).toISOString().slice(0, 10) !== `${year}-${month}-${day}`) throw wrong(text)
  if (zone === undefined) return atClock(Number(year), Number(month) - 1, Number(day), ms)
  return utc + ms - offsetOf(zone)
}

/** ms that a zone is ahead of UTC. */
function offsetOf(zone: string): number {
  if (zone.toUpperCase() === 'Z') return 0
  const [, sign, hours, minutes] = /^([+-])(\d{2}):?(\d{2})$/.exec(zone)!
  return (sign === '-' ? -1 : 1) * (Number(hours) * UNITS['h']! + Number(minutes) * UNITS['m']!)
}

/** An API's time as the clocks here show it, with their zone; RFC 3339 as before. Its digits stay. */
export function localTime(iso: string): string {
  const ms = Date.parse(iso)
  if (Number.isNaN(ms)) return iso
  const minutes = -new Date(ms).getTimezoneOffset()
  if (minutes === 0) return iso
  const shown = new Date(ms + minutes * 60_000).toISOString()
  const fraction = /\.\d+/.exec(iso)?.[0] ?? ''
  const zone = Math.abs(minutes)
  const digits = (n: number) => String(n).padStart(2, '0')
  return `${shown.slice(0, 19)}${fraction}${minutes < 0 ? '-' : '+'}${digits(Math.floor(zone / 60))}:${digits(zone % 60)}`
}

/** How long ago, in its largest unit: `12 s`, `3 min`, `5 h`, `2 d`. @param ms may be negative where clocks differ */
export function age(ms: number): string {
  if (ms < 60_000) return `${Math.max(0, Math.floor(ms / 1000))} s`
  if (ms < UNITS['h']!) return `${Math.floor(ms / 60_000)} min`
  if (ms < 2 * DAY) return `${Math.floor(ms / UNITS['h']!)} h`
  return `${Math.floor(ms / DAY)} d`
}
