/** A line that is a JSON object, unfolded for people: its level, its message, then what else it says as `key=value`. */
import { type Level, levelOf } from './level.ts'

const LEVEL_KEYS = ['level', 'severity', 'lvl', 'log.level', 'levelname', 'loglevel']
const MESSAGE_KEYS = ['msg', 'message', '@message', 'event', 'short_message']
/** The line has a stamp already. */
const TIME_KEYS = ['time', 'ts', 'timestamp', '@timestamp', 'datetime']

export type Unfolded = {
  level: { text: string; level: Level | undefined } | undefined
  message: string | undefined
  /** In the line's order, what is nested by its path. */
  fields: { key: string; value: string }[]
  /** What has lines of its own, such as a stack: shown below. */
  blocks: { key: string; lines: string[] }[]
}

type Json = Record<string, unknown>

/** @returns undefined for a line that is no JSON object */
export function unfold(line: string): Unfolded | undefined {
  const text = line.trim()
  if (!text.startsWith('{') || !text.endsWith('}')) return undefined
  let object: Json
  try {
    object = JSON.parse(text)
  } catch {
    return undefined
  }
  const levelKey = LEVEL_KEYS.find((key) => levelOf(object[key]) !== undefined)
  const messageKey = MESSAGE_KEYS.find((key) => typeof object[key] === 'string')
  const said = levelKey === undefined ? undefined : object[levelKey]
  const level = levelOf(said)
  const unfolded: Unfolded = {
    level:
      said === undefined
        ? undefined
        : { text: (typeof said === 'string' ? said : (level ?? String(said))).toUpperCase(), level },
    message: messageKey === undefined ? undefined : (object[messageKey] as string),
    fields: [],
    blocks: [],
  }
  for (const [key, value] of Object.entries(object)) {
    if (key !== levelKey && key !== messageKey && !TIME_KEYS.includes(key)) flatten(key, value, unfolded)
  }
  return unfolded
}

function flatten(key: string, value: unknown, into: Unfolded): void {
  if (typeof value === 'object' && value !== null) {
    const parts = Object.entries(value)
    if (parts.length === 0) into.fields.push({ key, value: Array.isArray(value) ? '[]' : '{}' })
    for (const [part, inside] of parts) flatten(`${key}.${part}`, inside, into)
  } else if (typeof value === 'string' && value.includes('\n')) {
    into.blocks.push({ key, lines: value.trimEnd().split('\n') })
  } else into.fields.push({ key, value: typeof value === 'string' ? quoted(value) : String(value) })
}

/** As logfmt has it: in quotes where it would not be one word. */
const quoted = (value: string): string => (/^[^\s"=]+$/.test(value) ? value : JSON.stringify(value))
