/** How bad a line is, by what it says of itself. */

export type Level = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal'

const WORDS: Record<string, Level> = {
  trace: 'trace',
  trc: 'trace',
  verbose: 'trace',
  debug: 'debug',
  dbg: 'debug',
  info: 'info',
  inf: 'info',
  information: 'info',
  notice: 'info',
  warn: 'warn',
  wrn: 'warn',
  warning: 'warn',
  error: 'error',
  err: 'error',
  severe: 'error',
  fatal: 'fatal',
  ftl: 'fatal',
  critical: 'fatal',
  crit: 'fatal',
  panic: 'fatal',
  alert: 'fatal',
  emerg: 'fatal',
  emergency: 'fatal',
}

/** Said as a field: `"level":"warn"`, `level=warn`, pino's and bunyan's `"level":50`. */
const FIELD = /"?\b(?:level|lvl|severity|log\.level)"?\s*[=:]\s*"?([a-z]{3,11}|\d{2})\b/i
/** Said as a word of its own, where a line's head may be: in capitals, or in brackets. */
const WORD =
  /\b(TRACE|TRC|VERBOSE|DEBUG|DBG|INFO|INF|NOTICE|WARN|WRN|WARNING|ERROR|ERR|SEVERE|FATAL|FTL|CRITICAL|CRIT|PANIC|EMERG|ALERT)\b|[[<](trace|debug|info|notice|warn|warning|error|err|fatal|critical|crit|panic|alert|emerg)[\]>]/
/** Nothing behind this is looked at. */
const HEAD = 256

/** Numbers as pino and bunyan have them. */
const byNumber = (n: number): Level | undefined =>
  n < 10 || n > 69 ? undefined : (['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const)[Math.floor(n / 10) - 1]

/** @param value of a field that says a level */
export const levelOf = (value: unknown): Level | undefined =>
  typeof value === 'number' ? byNumber(value) : typeof value === 'string' ? WORDS[value.toLowerCase()] : undefined

/** Where a line says its level, and which. */
export function findLevel(line: string): { level: Level; from: number; to: number } | undefined {
  const head = line.slice(0, HEAD)
  const field = FIELD.exec(head)
  const found = field ?? WORD.exec(head)
  const said = field?.[1] ?? found?.[1] ?? found?.[2]
  if (!found || said === undefined) return undefined
  const level = /^\d/.test(said) ? byNumber(Number(said)) : WORDS[said.toLowerCase()]
  const from = found.index + found[0].lastIndexOf(said)
  return level && { level, from, to: from + said.length }
}
