/**
 * The command's words: every command with its arguments, options and examples. Help, the completion of shells, the man page and
 * docs/cli.md follow from it.
 *
 * Invariant
 * - What a command does is loaded when it is run, and not before: a tail's first line does not wait for tables and pickers.
 */
import { Command, InvalidArgumentError, Option } from 'commander'
import manifest from '../package.json' with { type: 'json' }
import { EXIT } from './errors.ts'

/** MAX_LINES of the API. */
const MOST_LINES = 100_000
/** Lines around another, at most, of the API. */
const MOST_CONTEXT = 1_000

export type Example = { command: string; does: string }
const examples = new WeakMap<Command, Example[]>()
export const examplesOf = (command: Command): Example[] => examples.get(command) ?? []

const whole =
  (least: number, most: number) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
    if (value >= least && value <= most) return value
    throw new InvalidArgumentError(`It is a number from ${least} to ${most.toLocaleString('en')}.`)
  }

const ratio = (text: string): number => {
  const value = Number(text)
  if (text.trim() !== '' && value >= 0 && value <= 1) return value
  throw new InvalidArgumentError('It is a share of all lines, from 0 to 1.')
}

const several = (value: string, before: string[] = []): string[] => [...before, value]

/** An option that may be given several times. */
const list = (flags: string, description: string): Option =>
  new Option(flags, `${description}; may be repeated`).argParser(several)

const number = (flags: string, description: string, least: number, most: number): Option =>
  new Option(flags, description).argParser(whole(least, most))

const since = (): Option => new Option('--since <time>', 'from then on: 10m (ago), 14:30, a day, RFC 3339')
const until = (): Option => new Option('--until <time>', 'up to then, which is left out')
const json = (): Option => new Option('--json', 'as JSON')

/** Which lines, and how they are printed. */
function withLines(command: Command): Command {
  return command
    .addOption(since())
    .addOption(until())
    .option('--stderr', 'what went to stderr alone')
    .option('--stdout', 'what went to stdout alone')
    .addOption(list('--host <glob>', 'of these hosts alone'))
    .addOption(list('--container <glob>', 'of these containers alone'))
}

function withLayout(command: Command, short = '-o, '): Command {
  return command
    .addOption(
      new Option(
        `${short}--output <layout>`,
        'text: time, module, container, line; raw: the line alone; json: an object a line',
      )
        .choices(['text', 'raw', 'json'])
        .default('text'),
    )
    .option('--json', 'unfold lines that are JSON: level, message, then key=value')
    .addOption(list('--highlight <regex>', 'mark what matches; a regular expression of JavaScript'))
}

const withContext = (command: Command, fallback: string): Command =>
  command
    .addOption(number('-A, --after-context <n>', 'lines behind it', 0, MOST_CONTEXT))
    .addOption(number('-B, --before-context <n>', 'lines before it', 0, MOST_CONTEXT))
    .addOption(number('-C, --context <n>', `lines on both sides${fallback}`, 0, MOST_CONTEXT))

const TARGETS = "shop/api, 'shop/*', '*/api', a service, or a container's name; none at a terminal: a picker"

/** A command's action: its module is loaded, then run with its arguments and all options. */
const run =
  (load: () => Promise<(...args: never[]) => Promise<void>>) =>
  async (...given: unknown[]): Promise<void> => {
    const command = given.at(-1) as Command
    const act = (await load()) as (...args: unknown[]) => Promise<void>
    await act(...given.slice(0, -2), command.optsWithGlobals())
  }

/** The whole command, not yet parsed. */
export function program(): Command {
  const tallyman = new Command('tallyman')
    .description('Reads the lines that containers print, over all hosts, and says what became of them.')
    .addOption(list('--server <name>', 'ask this server of the configuration file'))
    .addOption(
      new Option('--color <when>', 'colours: auto is a terminal without NO_COLOR')
        .choices(['auto', 'always', 'never'])
        .default('auto'),
    )
    .option('--utc', 'show and read times in UTC; otherwise as TZ and this machine have them')
    .version(manifest.version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help of a command')
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError('(--help tells more)')
    .exitOverride((error) => process.exit(error.exitCode === 0 ? EXIT.GOOD : EXIT.FAILED))
    .hook('preAction', (_, command) => {
      if (command.optsWithGlobals()['utc']) process.env['TZ'] = 'UTC'
    })

  const add = (name: string, description: string, shown: Example[]): Command => {
    const command = tallyman.command(name).description(description)
    examples.set(command, shown)
    const text = shown.map(({ command, does }) => `  ${command}\n      ${does}`).join('\n')
    return shown.length > 0 ? command.addHelpText('after', `\nExamples:\n${text}`) : command
  }

  withLayout(
    withLines(
      add('tail', 'The last lines of modules, and those that come, merged by time.', [
        {
          command: 'tallyman tail shop/api',
          does: 'the last lines, then what comes; q ends, space pauses, / searches',
        },
        {
          command: "tallyman tail 'shop/*' -e healthz --stderr",
          does: 'stderr of all of shop, without lines that say healthz',
        },
        {
          command: 'tallyman tail web-1 --since 10m --json',
          does: 'what a container said in the last ten minutes, JSON unfolded',
        },
      ]).argument('[target...]', TARGETS),
    )
      .option('-f, --follow', 'go on with what comes (default: at a terminal, without --until)')
      .option('--no-follow', 'end with the last line there is')
      .addOption(
        number(
          '-n, --lines <n>',
          'as many of the last lines (default: 10, or all with --since or --until)',
          0,
          MOST_LINES,
        ),
      )
      .addOption(list('-i, --include <regex>', 'lines that match'))
      .addOption(list('-e, --exclude <regex>', 'no lines that match'))
      .option('--ignore-case', 'upper and lower case are the same in both'),
  ).action(run(async () => (await import('./tail.ts')).tail))

  withLayout(
    withContext(
      withLines(
        add('grep', 'Searches all lines that there are, on the servers, by a regular expression.', [
          { command: "tallyman grep -i 'timeout|refused' 'shop/*' --since 1h", does: 'of the last hour' },
          {
            command: 'tallyman grep -C 3 panic',
            does: 'with three lines on both sides; at a terminal the modules are picked',
          },
          { command: "tallyman grep -c ' 500 ' '*/web' --since today", does: 'how many, a number for each module' },
        ])
          .argument('[pattern]', "a regular expression of Rust's syntax, as rg takes it; not given where -e is")
          .argument('[target...]', TARGETS),
      )
        .addOption(list('-e, --regexp <pattern>', 'look for this, where it begins with a hyphen or is one of several'))
        .option('-i, --ignore-case', 'upper and lower case are the same')
        .option('-v, --invert-match', 'lines that do not match')
        .option('-w, --word-regexp', 'whole words alone')
        .option('-F, --fixed-strings', 'the pattern is a text')
        .option('-c, --count', 'only how many lines match, a number for each module')
        .option('-l, --files-with-matches', 'only the names of the files that have such lines')
        .addOption(
          number(
            '-m, --max-count <n>',
            `as many lines at most (default: ${MOST_LINES.toLocaleString('en')})`,
            0,
            MOST_LINES,
          ),
        )
        .option('--last', 'with -m: the last lines that match, and not the first')
        .option('--no-sort', 'as they are found, which is sooner: file by file, and not by time')
        .option('-o, --only-matching', 'only what matched, each on a line of its own')
        .option('-q, --quiet', 'print nothing; the exit status says whether a line matches')
        .addOption(list('--exclude <regex>', 'no lines that match this')),
      '',
    ),
    '',
  ).action(
    run(async () => {
      const { grep } = await import('./grep.ts')
      return (pattern: string | undefined, targets: string[], options: never) =>
        grep([...(pattern === undefined ? [] : [pattern]), ...targets], options)
    }),
  )

  withLayout(
    withLines(
      add('cat', 'All lines of modules, the oldest first, merged by time.', [
        {
          command: 'tallyman cat shop/api --since yesterday --until today -o raw',
          does: 'what it said yesterday, as it said it',
        },
        { command: "tallyman cat '*' --since 14:30 --until 14:35 | less -R", does: 'everything of five minutes' },
      ]).argument('[target...]', TARGETS),
    ),
  ).action(run(async () => (await import('./cat.ts')).cat))

  add('ls', 'Modules, or days of them: sizes, lines, losses, and how old the last line is.', [
    { command: 'tallyman ls', does: 'all modules' },
    { command: 'tallyman ls shop/api', does: 'its days' },
  ])
    .argument('[target...]', "shop/api, 'shop/*', '*/api', a service; none is all")
    .option('-d, --days', 'a row for each day (default: where one module is asked for)')
    .addOption(since())
    .addOption(until())
    .addOption(json())
    .action(run(async () => (await import('./ls.ts')).ls))

  withLines(
    add(
      'stats',
      'Lines and bytes by module and over time, with bars; of the last 24 hours where nothing else is said.',
      [
        { command: 'tallyman stats', does: 'all modules, hour by hour' },
        { command: "tallyman stats 'shop/*' --by host --since 7d", does: 'which host says most' },
      ],
    ).argument('[target...]', "shop/api, 'shop/*', '*/api', a service, a container's name; none is all"),
  )
    .addOption(
      new Option('--by <what>', 'sum up by this alone; hours are days where there are more than 72').choices([
        'service',
        'module',
        'host',
        'source',
        'hour',
      ]),
    )
    .addOption(json())
    .action(run(async () => (await import('./stats.ts')).stats))

  withLayout(
    withContext(
      add('context', 'A line and those around it in its file.', [
        { command: 'tallyman context "$(tallyman grep -m 1 --output json panic shop/api)"', does: 'what led there' },
      ]).argument('<line>', "a line's cursor, 'at', or the whole line as --output json prints it"),
      ' (default: 20)',
    ),
  ).action(run(async () => (await import('./context.ts')).context))

  add(
    'verify',
    'Holds the files against the ledger, and says what was lost. Exits with 1 where something is not as it should be.',
    [{ command: 'tallyman verify --since 2026-11-23', does: 'the files of that day and later' }],
  )
    .option('--service <name>', 'of this service alone')
    .option('--module <name>', 'of this module alone')
    .option('--since <day>', 'from this day on, such as 2026-11-23')
    .addOption(
      new Option('--max-loss <ratio>', 'lost lines by all lines; more are too many').argParser(ratio).default(0.0001),
    )
    .option('--json', 'as the consumer says it')
    .action(run(async () => (await import('./verify.ts')).verify))

  add('ledger', 'Lines by where they are from: how many there were, are written, lost and were dropped as copies.', [
    { command: 'tallyman ledger --by host', does: 'which host loses lines' },
  ])
    .addOption(
      new Option('--by <what>', 'what to sum up by').choices(['service', 'module', 'day', 'host']).default('module'),
    )
    .option('--service <name>', 'of this service alone')
    .option('--module <name>', 'of this module alone')
    .option('--host <name>', 'of this host alone')
    .option('--since <day>', 'from this day on, such as 2026-11-23')
    .option('--json', 'as the consumer says it')
    .action(run(async () => (await import('./ledger.ts')).ledger))

  add('dead-letters', 'Records that could not be decoded: which there are, what one says, and a second try.', [
    { command: 'tallyman dead-letters', does: 'which there are, and why' },
    { command: 'tallyman dead-letters NAME --value > record', does: 'what was in one' },
    { command: 'tallyman dead-letters --replay', does: 'puts those that can be decoded by now back into Kafka' },
  ])
    .argument('[name...]', 'these letters; none is all')
    .option('--replay', 'put them back into Kafka, from where their lines land, and away here')
    .option('--value', "only the record's value, as it came")
    .addOption(json())
    .action(run(async () => (await import('./dead-letters.ts')).deadLetters))

  add(
    'reindex',
    'Makes the index of days whole again: from Kafka, as long as it holds the lines, and from the files.',
    [
      {
        command: 'tallyman reindex',
        does: 'all days of which something is missing; a second time it finds nothing to do',
      },
      { command: 'tallyman reindex --day 2026-11-23 --no-kafka', does: 'a day, from its files alone' },
    ],
  )
    .option('--service <name>', 'from Kafka for this service alone')
    .option('--module <name>', 'from Kafka for this module alone')
    .option('--day <day>', 'of this day alone, such as 2026-11-23')
    .option('--no-kafka', 'from the files alone, which do not know runs and numbers')
    .addOption(json())
    .action(run(async () => (await import('./reindex.ts')).reindex))

  add('disown', 'Roots that are away with lines they have claimed; gives one up whose disk is gone.', [
    { command: 'tallyman disown', does: 'which there are' },
    { command: 'tallyman disown ROOT', does: 'counts its lines as lost: they are not waited for any more' },
  ])
    .argument('[root]', "a root's UUID; none lists them")
    .option('-y, --yes', 'do not ask')
    .addOption(json())
    .action(run(async () => (await import('./disown.ts')).disown))

  add('token', "A new token, and the line for the consumer's TOKENS_FILE that lets it in.", [
    {
      command: "tallyman token ci shop 'bank-*' >> tokens.jsonl",
      does: 'may read shop and the banks; the token itself is told on stderr',
    },
  ])
    .argument('<name>', 'whose token it is')
    .argument('[service...]', 'services that it may read, globs allowed; none is all')
    .action(run(async () => (await import('./token.ts')).token))

  add(
    'completion',
    'Prints what makes a shell complete commands, options, and live names of services, hosts and containers.',
    [
      { command: 'source <(tallyman completion bash)', does: 'in ~/.bashrc' },
      { command: 'source <(tallyman completion zsh)', does: 'in ~/.zshrc, behind compinit' },
      { command: 'tallyman completion fish > ~/.config/fish/completions/tallyman.fish', does: 'once' },
    ],
  )
    .addArgument(tallyman.createArgument('<shell>', 'which one').choices(['bash', 'zsh', 'fish']))
    .action(run(async () => (await import('./completion.ts')).completion))

  tallyman
    .command('complete-words', { hidden: true })
    .allowUnknownOption()
    .helpOption(false)
    .argument('[word...]')
    .action(async (words: string[]) => (await import('./completion.ts')).completeWords(program(), words))

  return tallyman
}
