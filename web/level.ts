/** How bad a line is by what it says: the level that a logger wrote into it, in JSON or in words. */

const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const
export type Level = (typeof LEVELS)[number]

/** A level is looked for no further into a line. */
const HEAD = 400

const NAMES: Record<string, Level> = {
  fatal: 'fatal',
  panic: 'fatal',
  emerg: 'fatal',
  emergency: 'fatal',
  alert: 'fatal',
  crit: 'fatal',
  critical: 'fatal',
  error: 'error',
  err: 'error',
  severe: 'error',
  exception: 'error',
  warn: 'warn',
  warning: 'warn',
  notice: 'info',
  info: 'info',
  information: 'info',
  debug: 'debug',
  verbose: 'debug',
  trace: 'trace',
}
const IN_JSON = /"(?:level|lvl|severity|loglevel|log\.level|levelname|@l)"\s*:\s*(?:"([A-Za-z]+)"|(\d{2}))/
const IN_LOGFMT = /\b(?:level|lvl|severity)=["']?([A-Za-z]+)/i
/** In capitals anywhere, or between brackets, or in front of a colon: what prose rarely has. */
const IN_WORDS =
  /\b(FATAL|PANIC|EMERG|ALERT|CRIT|CRITICAL|ERROR|ERR|SEVERE|WARN|WARNING|NOTICE|INFO|DEBUG|TRACE|VERBOSE)\b|[[<(](fatal|panic|emerg|alert|crit|critical|error|err|warn|warning|notice|info|debug|trace)[\])>]|\b(fatal|panic|critical|error|warn|warning|info|debug|trace)(?: error)?: /
const RAISED = /^(?:Traceback \(|panic: |Exception in thread |Uncaught |Unhandled |[\w.$]+(?:Error|Exception)\b)/

/** @returns undefined where it says none */
export function levelOf(text: string): Level | undefined {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are what is left out
  const head = (text.length > HEAD ? text.slice(0, HEAD) : text).replace(/\x1b\[[\d;]*m/g, '')
  const inJson = head.startsWith('{') ? IN_JSON.exec(head) : null
  if (inJson?.[1]) return NAMES[inJson[1].toLowerCase()]
  // pino's and bunyan's numbers.
  if (inJson?.[2]) return LEVELS[6 - Math.floor(Number(inJson[2]) / 10)]
  const inLogfmt = IN_LOGFMT.exec(head)
  if (inLogfmt && NAMES[inLogfmt[1]!.toLowerCase()]) return NAMES[inLogfmt[1]!.toLowerCase()]
  if (RAISED.test(head)) return head.startsWith('panic') ? 'fatal' : 'error'
  const inWords = IN_WORDS.exec(head)
  const word = inWords && (inWords[1] ?? inWords[2] ?? inWords[3])
  return word ? NAMES[word.toLowerCase()] : undefined
}

export const isError = (level: Level | undefined): boolean => level === 'error' || level === 'fatal'

/** The same for the server, in RE2's and ripgrep's syntax: what is not loaded is searched by it. */
export const ERROR_PATTERN =
  '"(?:level|lvl|severity|loglevel|levelname|@l)"\\s*:\\s*(?:"(?i:error|err|fatal|panic|crit|critical|severe)"|[56]0)|\\b(?:FATAL|PANIC|EMERG|ALERT|CRIT|CRITICAL|ERROR|ERR|SEVERE)\\b|[\\[<(](?:fatal|panic|crit|critical|error|err)[\\])>]|\\b(?:fatal|panic|critical|error): |(?i:level=["\']?(?:error|fatal|panic|crit))|^(?:Traceback \\(|panic: |Exception in thread |[\\w.$]+(?:Error|Exception)\\b)'
