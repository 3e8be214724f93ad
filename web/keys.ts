/** What keys do. One table: the page acts by it, and the help shows it. */

export type Command =
  | 'help'
  | 'picker'
  | 'search'
  | 'exclude'
  | 'overview'
  | 'lines'
  | 'live'
  | 'pause'
  | 'next'
  | 'previous'
  | 'start'
  | 'end'
  | 'open'
  | 'unfold'
  | 'nextError'
  | 'previousError'
  | 'copyLine'
  | 'copyLink'
  | 'download'
  | 'wrap'
  | 'zone'
  | 'density'
  | 'theme'
  | 'fields'
  | 'chart'
  | 'sidebar'
  | 'close'

type Binding = { command: Command; keys: string[]; says: string; group: 'Go' | 'Lines' | 'Look' }

export const BINDINGS: readonly Binding[] = [
  { group: 'Go', command: 'help', keys: ['?'], says: 'Show these keys' },
  { group: 'Go', command: 'picker', keys: ['Ctrl+k', 'Meta+k', 'p'], says: 'Pick services, modules, hosts' },
  { group: 'Go', command: 'search', keys: ['/'], says: 'Search' },
  { group: 'Go', command: 'exclude', keys: ['-'], says: 'Leave lines out' },
  { group: 'Go', command: 'overview', keys: ['o'], says: 'Overview' },
  { group: 'Go', command: 'lines', keys: ['l'], says: 'Lines' },
  { group: 'Go', command: 'live', keys: ['f'], says: 'Follow: live, at the end' },
  { group: 'Go', command: 'close', keys: ['Escape'], says: 'Close, or cancel a search' },
  { group: 'Lines', command: 'pause', keys: [' '], says: 'Pause and go on' },
  { group: 'Lines', command: 'next', keys: ['j', 'n', 'ArrowDown'], says: 'Next line' },
  { group: 'Lines', command: 'previous', keys: ['k', 'N', 'ArrowUp'], says: 'Previous line' },
  { group: 'Lines', command: 'nextError', keys: ['e'], says: 'Next error' },
  { group: 'Lines', command: 'previousError', keys: ['E'], says: 'Previous error' },
  { group: 'Lines', command: 'start', keys: ['g', 'Home'], says: 'First line' },
  { group: 'Lines', command: 'end', keys: ['G', 'End'], says: 'Last line' },
  { group: 'Lines', command: 'open', keys: ['Enter'], says: 'Open the line and what stands around it' },
  { group: 'Lines', command: 'unfold', keys: ['x'], says: 'Unfold a trace or JSON' },
  { group: 'Lines', command: 'copyLine', keys: ['c'], says: 'Copy the line' },
  { group: 'Lines', command: 'copyLink', keys: ['y'], says: 'Copy a link to the line, or to the view' },
  { group: 'Lines', command: 'download', keys: ['D'], says: 'Download what is filtered' },
  { group: 'Look', command: 'wrap', keys: ['w'], says: 'Wrap long lines' },
  { group: 'Look', command: 'fields', keys: ['J'], says: 'JSON as message and fields' },
  { group: 'Look', command: 'zone', keys: ['z'], says: 'Local time or UTC' },
  { group: 'Look', command: 'density', keys: ['d'], says: 'Cosy or compact' },
  { group: 'Look', command: 'theme', keys: ['t'], says: 'Light, dark, or as the system' },
  { group: 'Look', command: 'chart', keys: ['h'], says: 'Histogram' },
  { group: 'Look', command: 'sidebar', keys: ['s'], says: 'Sidebar' },
]

/** A key that was pressed, as the browser tells it. */
type Pressed = { key: string; ctrlKey: boolean; metaKey: boolean; altKey: boolean }

/** @returns undefined where the key means nothing to the page */
export function commandOf({ key, ctrlKey, metaKey, altKey }: Pressed): Command | undefined {
  if (altKey) return undefined
  const pressed = `${ctrlKey ? 'Ctrl+' : ''}${metaKey ? 'Meta+' : ''}${key}`
  return BINDINGS.find(({ keys }) => keys.includes(pressed))?.command
}

const NAMES: Record<string, string> = {
  ' ': 'Space',
  ArrowDown: '↓',
  ArrowUp: '↑',
  Escape: 'Esc',
  'Ctrl+k': 'Ctrl K',
  'Meta+k': '⌘ K',
}
/** A key as it is printed on a keyboard. */
export const keyName = (key: string): string => NAMES[key] ?? key
