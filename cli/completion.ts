/**
 * Completion in shells. A shell asks `tallyman complete-words -- WORD…`, the last of which is being typed, and gets a candidate a
 * line: what it would be, and after a tab what it means.
 *
 * Invariant
 * - No candidate has a character that any of the shells would take for more than itself: names come from whoever labels a container.
 */
import type { Argument, Command, Option } from 'commander'
import { modulesOf } from './picker.ts'
import { type GlobalOptions, serversFor } from './selection.ts'
import { print } from './terminal.ts'

type Candidate = { word: string; means?: string }

/** Whoever types does not wait longer for names. */
const LIVE_MS = 1_500
const HARMLESS = /^[\w@%+:,./-]+$/

const SCRIPTS: Record<string, string> = {
  bash: `_tallyman() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("\${line%%$'\\t'*}")
  done < <(tallyman complete-words -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _tallyman tallyman
`,
  zsh: `#compdef tallyman
_tallyman() {
  local line word
  local -a shown
  while IFS= read -r line; do
    word=\${line%%$'\\t'*}
    shown+=("\${word//:/\\\\:}:\${line#*$'\\t'}")
  done < <(tallyman complete-words -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  _describe tallyman shown
}
compdef _tallyman tallyman
`,
  fish: `function __tallyman_words
  set -l before (commandline -opc)
  set -l current (commandline -ct)
  tallyman complete-words -- $before[2..-1] "$current" 2>/dev/null
end
complete -c tallyman -f -a '(__tallyman_words)'
`,
}

/** Prints the script of a shell. */
export async function completion(shell: string): Promise<void> {
  await print(SCRIPTS[shell]!)
}

/** Prints the candidates for the last of the words. */
export async function completeWords(tallyman: Command, words: string[]): Promise<void> {
  const typed = words.at(-1) ?? ''
  const found = await candidates(tallyman, words.slice(0, -1), typed)
  const fit = found.filter(({ word }) => word.startsWith(typed) && HARMLESS.test(word))
  await print(fit.map(({ word, means }) => `${word}\t${(means ?? '').replaceAll(/\s+/g, ' ')}\n`).join(''))
  // A consumer that does not answer must not keep the shell waiting.
  process.exit(0)
}

async function candidates(tallyman: Command, before: string[], typed: string): Promise<Candidate[]> {
  const { command, given, open } = parse(tallyman, before)
  if (open) return valuesOf(open, before)
  if (command === undefined) return typed.startsWith('-') ? flags([tallyman]) : commands(tallyman)
  if (typed.startsWith('-')) return flags([command, tallyman])
  const argument = command.registeredArguments[Math.min(given, command.registeredArguments.length - 1)]
  return argument && (given < command.registeredArguments.length || argument.variadic) ? valuesOf(argument, before) : []
}

/** What the words before say: the command, how many arguments it has, and the option that waits for its value. */
function parse(tallyman: Command, before: string[]) {
  let command: Command | undefined
  let given = 0
  let open: Option | undefined
  for (const word of before) {
    if (open) open = undefined
    else if (word.startsWith('-')) {
      const option = [...(command?.options ?? []), ...tallyman.options].find(
        ({ short, long }) => word === short || word === long,
      )
      if (option?.required) open = option
      // What is looked for is said already.
      if (command?.name() === 'grep' && option?.long === '--regexp' && given === 0) given = 1
    } else if (command === undefined) command = tallyman.commands.find((one) => one.name() === word)
    else given++
  }
  return { command, given, open }
}

const commands = (tallyman: Command): Candidate[] =>
  tallyman
    .createHelp()
    .visibleCommands(tallyman)
    .map((command) => ({ word: command.name(), means: command.description() }))

const flags = (of: Command[]): Candidate[] =>
  of.flatMap((command) =>
    command
      .createHelp()
      .visibleOptions(command)
      .filter(({ long }) => long !== undefined)
      .map(({ long, description }) => ({ word: long!, means: description })),
  )

async function valuesOf(of: Option | Argument, before: string[]): Promise<Candidate[]> {
  if (of.argChoices) return of.argChoices.map((word) => ({ word }))
  const name = of.name()
  if (name === 'since' || name === 'until') {
    return ['5m', '1h', '24h', '7d', 'today', 'yesterday'].map((word) => ({ word, means: 'a time' }))
  }
  if (!['target', 'host', 'container', 'service', 'module', 'server'].includes(name)) return []
  try {
    return await live(name, before)
  } catch {
    return []
  }
}

async function live(name: string, before: string[]): Promise<Candidate[]> {
  const { configuredServers } = await import('./servers.ts')
  if (name === 'server') return (await configuredServers(process.env)).map((word) => ({ word }))
  setTimeout(() => process.exit(0), LIVE_MS)
  const server = before.flatMap((word, i) => (word === '--server' && before[i + 1] ? [before[i + 1]!] : []))
  const options: GlobalOptions = { server, color: 'never' }
  const modules = await modulesOf(await serversFor(options))
  const unique = (words: string[], means: string): Candidate[] =>
    [...new Set(words)].sort().map((word) => ({ word, means }))
  if (name === 'host')
    return unique(
      modules.flatMap(({ hosts }) => hosts),
      'a host',
    )
  if (name === 'container')
    return unique(
      modules.flatMap(({ containers }) => containers),
      'a container',
    )
  if (name === 'service')
    return unique(
      modules.map(({ service }) => service),
      'a service',
    )
  if (name === 'module')
    return unique(
      modules.map(({ module }) => module),
      'a module',
    )
  return [
    ...unique(
      modules.map(({ name }) => name),
      'a module',
    ),
    ...unique(
      modules.flatMap(({ containers }) => containers),
      'a container',
    ),
  ]
}
