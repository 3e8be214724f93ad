/** The picker of modules: typed letters narrow it down, tab marks several, enter takes them. It is drawn on stderr. */
import { AutocompletePrompt, isCancel } from '@clack/core'
import UFuzzy from '@leeoniya/ufuzzy'
import type { ModuleOverview, ServicesAnswer } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { dim, inColour, moduleColour, STYLES } from './colours.ts'
import { harmless } from './control-sequences.ts'
import { CliError, EXIT } from './errors.ts'
import { fromEach } from './merge.ts'
import type { Server } from './servers.ts'
import { age } from './time.ts'

/** Rows at most. */
const ROWS = 12

type Choice = { value: string; about: string }

/** Modules by name, the one that said something last first. */
export async function modulesOf(servers: readonly Server[]): Promise<(ModuleOverview & { name: string })[]> {
  const answers = await fromEach(servers, (server) => ask<ServicesAnswer>(server, 'api/v1/services'))
  const all = answers.flatMap(({ answer }) => answer.modules)
  return all
    .map((module) => ({ ...module, name: `${module.service}/${module.module}` }))
    .sort((a, b) => (a.last < b.last ? 1 : -1))
}

/** What of `names` is meant by the letters typed, the best first. */
export function ranked(names: string[], typed: string): string[] {
  if (typed.trim() === '') return names
  // Anything may stand between two letters, as fzf has it: `sapi` is shop/api.
  const fuzzy = new UFuzzy({ intraMode: 0, intraIns: Number.POSITIVE_INFINITY, intraChars: '.' })
  const [found, , order] = fuzzy.search(names, typed, 1)
  if (found === null) return []
  return (order?.map((i) => found[i]!) ?? found).map((i) => names[i]!)
}

/** @param many whether several may be taken. Exits as Ctrl-C does where nothing is taken. @throws CliError where there is none */
export async function pick(servers: readonly Server[], many: boolean): Promise<string[]> {
  const modules = await modulesOf(servers)
  const choices = new Map<string, Choice>(
    modules.map(({ name, lines, last }) => [
      name,
      { value: name, about: `${lines.toLocaleString('en')} lines, the last ${age(Date.now() - Date.parse(last))} ago` },
    ]),
  )
  if (choices.size === 0) throw new CliError('NOT_FOUND', 'there are no modules yet: nobody has printed a line')
  const prompt = new AutocompletePrompt<Choice>({
    multiple: many,
    output: process.stderr,
    options() {
      return ranked([...choices.keys()], this.userInput).map((name) => choices.get(name)!)
    },
    filter: () => true,
    render() {
      return this.state === 'submit' || this.state === 'cancel' ? '' : draw(this, many)
    },
  })
  const answer = await prompt.prompt()
  if (isCancel(answer)) process.exit(EXIT.INTERRUPTED)
  const taken = prompt.selectedValues.length > 0 ? prompt.selectedValues : [prompt.focusedValue]
  const names = taken.filter((name) => name !== undefined)
  if (names.length === 0) process.exit(EXIT.INTERRUPTED)
  return names
}

function draw(
  prompt: Pick<AutocompletePrompt<Choice>, 'filteredOptions' | 'selectedValues' | 'cursor' | 'userInputWithCursor'>,
  many: boolean,
): string {
  const { filteredOptions, selectedValues, cursor } = prompt
  const top = Math.max(0, Math.min(cursor - Math.floor(ROWS / 2), filteredOptions.length - ROWS))
  const rows = filteredOptions.slice(top, top + ROWS).map(({ value, about }, i) => {
    const name = inColour(moduleColour(value), harmless(value, false))
    const marked = selectedValues.includes(value)
    const box = many ? (marked ? inColour(STYLES.info, '◉') : '○') : ' '
    return `${top + i === cursor ? inColour(STYLES.key, '❯') : ' '} ${box} ${name}  ${dim(about)}`
  })
  const help = many ? 'letters narrow it down, tab marks several, enter takes' : 'letters narrow it down, enter takes'
  const left = `${filteredOptions.length} of them`
  return [`Whose lines? ${dim(`${help}; ${left}`)}`, `> ${prompt.userInputWithCursor}`, ...rows].join('\n')
}
