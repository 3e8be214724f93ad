/** A line that is JSON: read once, and told in short as a message and its fields. */
import { plain } from './printable.ts'

type Fields = Record<string, unknown>

/** A longer line is not read as JSON for its row, but where it is opened. */
const LONGEST = 64 * 1024

const MESSAGES = ['msg', 'message', '@m', 'event', 'text']
const QUIET = new Set([
  ...[
    'level',
    'lvl',
    'severity',
    'loglevel',
    'levelname',
    '@l',
    'time',
    'ts',
    'timestamp',
    '@timestamp',
    '@t',
    'v',
    'pid',
  ],
  'hostname',
])

/** @returns undefined where it is no JSON object */
export function fieldsOf(text: string, longest = LONGEST): Fields | undefined {
  const from = text.search(/\S/)
  if (from === -1 || text[from] !== '{' || text.length > longest) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : undefined
  } catch {
    return undefined
  }
}

type Summary = { message: string; fields: [key: string, value: string][] }

/** Its message, and what else it says but for what the row shows anyway. */
export function summaryOf(fields: Fields): Summary {
  const key = MESSAGES.find((name) => typeof fields[name] === 'string')
  const rest = Object.entries(fields).filter(([name]) => name !== key && !QUIET.has(name))
  return {
    message: key === undefined ? '' : (fields[key] as string),
    fields: rest.map(([name, value]) => [plain(name), shortly(value)]),
  }
}

function shortly(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
  return plain(text.length > 200 ? `${text.slice(0, 200)}…` : text)
}
