/**
 * Moments as they are written: how long ago (`15m`, `36h`, `7d`) or when (RFC 3339); and ranges of time between two of them.
 */

const UNITS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 } as const
const AGO = /^(\d{1,6})([smhdw])$/
const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/

/** Whether it can be read as a moment. */
export const isMoment = (text: string): boolean =>
  AGO.test(text) || (RFC_3339.test(text) && !Number.isNaN(Date.parse(text)))

/** ms since 1970. @param now ms since 1970 */
export function momentOf(text: string, now: number): number {
  const ago = AGO.exec(text)
  return ago ? now - Number(ago[1]) * UNITS[ago[2] as keyof typeof UNITS] : Date.parse(text)
}

/** As the API takes it. @param ms since 1970 */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString()

/** What somebody typed for a moment: `90m`, `14:30`, `2026-11-23`, `2026-11-23 14:30`, RFC 3339. @returns undefined if it is none */
export function readMoment(typed: string, now: number, utc: boolean): string | undefined {
  const text = typed.trim()
  if (isMoment(text)) return text
  const parts = /^(?:(\d{4})-(\d\d)-(\d\d))?(?:(?:^|[ T])(\d{1,2}):(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?)?$/.exec(text)
  if (!parts || text === '') return undefined
  const today = new Date(now)
  const [year, month, day] =
    parts[1] !== undefined
      ? [Number(parts[1]), Number(parts[2]) - 1, Number(parts[3])]
      : utc
        ? [today.getUTCFullYear(), today.getUTCMonth(), today.getUTCDate()]
        : [today.getFullYear(), today.getMonth(), today.getDate()]
  const [hour, minute, second] = [Number(parts[4] ?? 0), Number(parts[5] ?? 0), Number(parts[6] ?? 0)]
  if (month > 11 || day > 31 || day === 0 || hour > 23 || minute > 59 || second > 59) return undefined
  const ms = Number((parts[7] ?? '0').padEnd(3, '0'))
  const time = utc
    ? Date.UTC(year, month, day, hour, minute, second, ms)
    : new Date(year, month, day, hour, minute, second, ms).getTime()
  // The 30th of February.
  const back = new Date(time)
  if ((utc ? back.getUTCDate() : back.getDate()) !== day) return undefined
  return rfc3339(time)
}

/** `42 s`, `3 min`, `2 h`, `5 d`: how long a time is, roughly. */
export function roughly(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3_600)} h`
  return `${Math.floor(seconds / 86_400)} d`
}
