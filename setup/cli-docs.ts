/** docs/cli.md and man/tallyman.1, as they follow from the command's own definitions. */
import type { Argument, Command, Option } from 'commander'
import type { z } from 'zod'
import { configSchema } from '../cli/config.ts'
import { ERRORS, EXIT } from '../cli/errors.ts'
import { examplesOf, program } from '../cli/program.ts'
import manifest from '../package.json' with { type: 'json' }

/** What an exit status means, by its number. */
const STATUS: Record<keyof typeof EXIT, string> = {
  GOOD: 'all is well; for grep: a line matches',
  BAD: 'it is not: something is lost or damaged, or there is nothing; for grep: no line matches',
  FAILED: 'the command was wrong, or not everybody who was asked has answered in full: stderr says what is missing',
  INTERRUPTED: 'Ctrl-C',
}

const ENVIRONMENT: [string, string][] = [
  [
    'TALLYMAN_URL',
    'where the consumer is, such as `https://logs.example:4680`; several with commas between are asked as one',
  ],
  ['TALLYMAN_TOKEN', 'the token, where one is needed and the configuration says none'],
  [
    'TALLYMAN_CONFIG',
    'the configuration file, where it is not `tallyman/config.json` or `tallyman/config.toml` below `XDG_CONFIG_HOME` (`~/.config`)',
  ],
  [
    'HTTP_ADDR',
    "asked where nothing else is said: within the consumer's container, its own address; `127.0.0.1:4680` otherwise",
  ],
  ['NO_COLOR', 'no colours at a terminal'],
  ['TZ', 'the time zone in which times are read and shown'],
  ['NODE_EXTRA_CA_CERTS', 'a PEM file with certificates that are trusted besides those that Node knows'],
]

const CONFIG = `default = ["prod"]

[servers.prod]
url = "https://logs.example:4680"
tokenFile = "~/.config/tallyman/prod.token"
`

/** How lines are told to and from each other, in words for both documents. */
const BEHAVIOUR = [
  'A target is `service/module`, each of them with `*` for any characters and `?` for one. Without a slash it is a service, or the name of a container. Several are merged by time. Where none is given, and somebody sits at a terminal, modules are picked from a list.',
  'In the layout `text` a line is its time, its module, its container, and what was printed; `!` behind the container is for stderr. The module is left out where exactly one was asked for, as grep leaves out the name of a single file: in UTC that is the layout of the files.',
  'At a terminal every control sequence but colours is left out of what an app printed, and colours too where `--color` or NO_COLOR says so: a line cannot move the cursor, set the title or fill the clipboard. Into pipes and files it goes as it was printed.',
  'A tail that loses its connection connects again, says so on stderr, and goes on behind the last line; none is lost or doubled. At a terminal `q` ends it, the space bar pauses and goes on, `/` looks for something in the lines that were shown and marks it from then on, and enter leaves a blank line.',
  'What an answer does not hold, because of a limit, a server that does not answer or a file that cannot be read, is always said on stderr. With several servers the others still answer.',
]

type Words = { code(text: string): string }

const flagsOf = (option: Option): string => option.flags

function meaning({ description, defaultValue, argChoices, required, optional }: Option, { code }: Words): string {
  const said = [description]
  if (argChoices) said.push(`one of ${argChoices.map(code).join(', ')}`)
  if (defaultValue !== undefined && (required || optional)) said.push(`default: ${code(String(defaultValue))}`)
  return said.join('; ')
}

const commandsOf = (tallyman: Command): Command[] =>
  [...tallyman.createHelp().visibleCommands(tallyman)].filter((command) => command.name() !== 'help')

const argumentOf = (argument: Argument): string => {
  const name = `${argument.name().toUpperCase()}${argument.variadic ? '…' : ''}`
  return argument.required ? name : `[${name}]`
}

const usageOf = (command: Command): string =>
  ['tallyman', command.name(), '[OPTION…]', ...command.registeredArguments.map(argumentOf)].join(' ')

const optionsOf = (command: Command): Option[] =>
  command
    .createHelp()
    .visibleOptions(command)
    .filter(({ long }) => long !== '--help')

const configKeys = (): [string, string][] => {
  const keys = (shape: Record<string, z.ZodType>, prefix: string): [string, string][] =>
    Object.entries(shape).map(([key, type]) => [prefix + key, type.description ?? ''])
  const { servers, ...top } = configSchema.shape
  const server = servers.unwrap().valueType
  return [...keys(top, ''), ...keys(server.shape, 'servers.NAME.')]
}

/** Markdown takes a star outside of code for emphasis. */
const prose = (text: string): string => text.replaceAll('*', '\\*')
/** A cell: `|` would end it. */
const cell = (text: string): string => text.replaceAll('|', '\\|')
const row = (...cells: string[]): string => `| ${cells.map(cell).join(' | ')} |`
const markdownTable = (head: string[], rows: string[][]): string =>
  [row(...head), row(...head.map(() => '---')), ...rows.map((cells) => row(...cells))].join('\n')

/** docs/cli.md */
export function cliDocs(): string {
  const words: Words = { code: (text) => `\`${text}\`` }
  const { code } = words
  const tallyman = program()
  const options = (command: Command): string =>
    markdownTable(
      ['option', 'meaning'],
      optionsOf(command).map((option) => [code(flagsOf(option)), prose(meaning(option, words))]),
    )
  const section = (command: Command): string =>
    [
      `## tallyman ${command.name()}`,
      command.description(),
      `    ${usageOf(command)}`,
      ...command.registeredArguments.map(
        (argument) => `${code(argumentOf(argument))}: ${prose(argument.description)}.`,
      ),
      ...(optionsOf(command).length > 0 ? [options(command)] : []),
      ...examplesOf(command).map(({ command, does }) => `- ${code(command)}: ${does}`),
    ]
      .join('\n\n')
      .replaceAll(/\n\n- /g, '\n- ')
      .replace(/\n- /, '\n\n- ')
  return `# The command

${tallyman.description()} It asks the [consumer](operate.md#the-consumer) over HTTP, and needs nothing but Node 20 or newer:

    make cli && npm install -g ./dist/tallyman-${manifest.version}.tgz

It is in the consumer's image as well: \`docker exec -it tallyman-consumer tallyman tail 'shop/*'\`.

${BEHAVIOUR.join('\n\n')}

## Every command

${options(tallyman)}

${commandsOf(tallyman).map(section).join('\n\n')}

## Exit status

${markdownTable(
  ['status', 'meaning'],
  Object.entries(EXIT).map(([name, status]) => [code(String(status)), STATUS[name as keyof typeof EXIT]]),
)}

## Environment

${markdownTable(
  ['variable', 'meaning'],
  ENVIRONMENT.map(([name, means]) => [code(name), means]),
)}

## Configuration file

${code('~/.config/tallyman/config.toml')}, or ${code('config.json')} with the same keys:

${CONFIG.replaceAll(/^(?=.)/gm, '    ')}
${markdownTable(
  ['key', 'meaning'],
  configKeys().map(([key, means]) => [code(key), means]),
)}

## Errors

The code stands behind the message.

${markdownTable(
  ['code', 'who must act', 'meaning'],
  Object.entries(ERRORS).map(([name, { acts, means }]) => [code(name), acts, means]),
)}
`
}

/** As roff wants a text: nothing at a line's begin or in it is taken for a request or an escape. */
const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('…', '...')
    .replaceAll(/`([^`]*)`/g, '\\fB$1\\fR')
    .replaceAll(/^\./gm, '\\&.')

/** man/tallyman.1 */
export function manPage(): string {
  const words: Words = { code: (text) => `\`${text}\`` }
  const tallyman = program()
  const entry = (term: string, text: string): string => `.TP\n\\fB${roff(term)}\\fR\n${roff(text)}`
  const option = (of: Option): string => entry(flagsOf(of), `${meaning(of, words)}.`)
  const section = (command: Command): string =>
    [
      `.SS ${roff(usageOf(command))}`,
      roff(command.description()),
      ...command.registeredArguments.map((argument) => entry(argumentOf(argument), `${argument.description}.`)),
      ...optionsOf(command).map(option),
      ...examplesOf(command).map(({ command, does }) => `.PP\n.EX\n${roff(command)}\n.EE\n${roff(does)}`),
    ].join('\n')
  return `.\\" Written by setup/docs.ts from the command's own definitions.
.TH TALLYMAN 1 "" "tallyman ${manifest.version}" "tallyman"
.SH NAME
tallyman \\- ${roff('reads the lines that containers print, over all hosts')}
.SH SYNOPSIS
${commandsOf(tallyman)
  .map((command) => `.B ${roff(usageOf(command))}`)
  .join('\n.br\n')}
.SH DESCRIPTION
${roff(tallyman.description())}
${BEHAVIOUR.map((text) => `.PP\n${roff(text)}`).join('\n')}
.SH OPTIONS
${optionsOf(tallyman).map(option).join('\n')}
.SH COMMANDS
${commandsOf(tallyman).map(section).join('\n')}
.SH EXIT STATUS
${Object.entries(EXIT)
  .map(([name, status]) => entry(String(status), `${STATUS[name as keyof typeof EXIT]}.`))
  .join('\n')}
.SH ENVIRONMENT
${ENVIRONMENT.map(([name, means]) => entry(name, `${means}.`)).join('\n')}
.SH FILES
${roff('`~/.config/tallyman/config.toml`, or `config.json` with the same keys:')}
.PP
.EX
${roff(CONFIG.trimEnd())}
.EE
${configKeys()
  .map(([key, means]) => entry(key, means))
  .join('\n')}
.SH DIAGNOSTICS
${Object.entries(ERRORS)
  .map(([name, { acts, means }]) => entry(name, `${means} Who must act: ${acts}.`))
  .join('\n')}
`
}
