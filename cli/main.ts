/**
 * The command `tallyman`: asks a consumer over HTTP and prints what it says.
 *
 * Exit status: 0 all is well, 1 it is not (something is lost or damaged), 2 the command was wrong or nobody answered.
 */
import Table from 'cli-table3'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { LedgerAnswer, LedgerRow, LineCount, VerifyAnswer } from '../consumer/api-schema.ts'

const EXIT_BAD = 1
const EXIT_FAILED = 2
/** As many losses and problems are listed; how many more there are is said. */
const LISTED = 50
const DEFAULT_URL = 'http://127.0.0.1:4680'

/** Within the consumer's container its own HTTP_ADDR says where it listens. */
const { TALLYMAN_URL, HTTP_ADDR } = process.env
const url = TALLYMAN_URL ?? (HTTP_ADDR ? `http://${HTTP_ADDR}` : DEFAULT_URL)

function fail(message: string): never {
  console.error(`tallyman: ${message}`)
  process.exit(EXIT_FAILED)
}

/** The answer to a question; ends the program where there is none. */
async function ask<T>(path: string, query: Record<string, string | undefined>): Promise<T> {
  const given = Object.entries(query).filter((pair): pair is [string, string] => pair[1] !== undefined)
  let answer: Response
  try {
    answer = await fetch(new URL(`${path}?${new URLSearchParams(given)}`, url))
  } catch (error) {
    const { message, cause } = error as Error
    fail(
      `no consumer answers at ${url}: ${(cause as Error | undefined)?.message ?? message}. Say where it is with TALLYMAN_URL`,
    )
  }
  const body = (await answer.json()) as T & { message?: string }
  if (!answer.ok) fail(body.message ?? `${url} answered with ${answer.status}`)
  return body
}

const sides = ['top', 'bottom', 'left', 'right', 'mid']
const corners = ['mid', 'left', 'right'].flatMap((end) => ['top', 'bottom'].map((side) => `${side}-${end}`))
/** No lines around and between: two blanks keep columns apart. */
const chars = {
  ...Object.fromEntries([...sides, ...corners, 'left-mid', 'mid-mid', 'right-mid'].map((part) => [part, ''])),
  middle: '  ',
}

/** @param numeric columns from this one on are numbers */
function table(head: string[], rows: string[][], numeric: number): string {
  const colAligns = head.map((_, i) => (i < numeric ? ('left' as const) : ('right' as const)))
  const style = { 'padding-left': 0, 'padding-right': 0, head: [], border: [] }
  const text = new Table({ head, colAligns, chars, style })
  text.push(...rows)
  return text.toString()
}

const number = (n: number): string => n.toLocaleString('en')

const reasons = (lostBy: Record<string, number>): string =>
  Object.entries(lostBy)
    .map(([reason, lines]) => `${reason} ${number(lines)}`)
    .join(', ')

const cells = ({ lines, written, lost, doubled, ratio }: LineCount): string[] => [
  ...[lines, written, lost, doubled].map(number),
  ratio.toExponential(1),
]

const COUNTS = ['lines', 'written', 'lost', 'doubled', 'ratio']

function ratio(text: string): number {
  const value = Number(text)
  if (!(value >= 0 && value <= 1)) throw new InvalidArgumentError('It is a share of all lines, from 0 to 1.')
  return value
}

const program = new Command('tallyman')
  .description('What became of the lines that containers print.')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : EXIT_FAILED))

program
  .command('ledger')
  .description('Lines by where they are from: how many there were, are written, lost and were dropped as copies.')
  .addOption(
    new Option('--by <what>', 'what to sum up by').choices(['service', 'module', 'day', 'host']).default('module'),
  )
  .option('--service <name>', 'of this service alone')
  .option('--module <name>', 'of this module alone')
  .option('--host <name>', 'of this host alone')
  .option('--since <day>', 'from this day on, such as 2026-11-23')
  .option('--json', 'as the consumer says it')
  .action(async ({ json, ...query }: Record<string, string | undefined>) => {
    const answer = await ask<LedgerAnswer & { rows: LedgerRow[] }>('/api/v1/ledger', query)
    if (json) return console.log(JSON.stringify(answer, undefined, 2))
    const names = (['service', 'module', 'day', 'host'] as const).filter((name) => answer.rows[0]?.[name] !== undefined)
    const rows = answer.rows.map((row) => [...names.map((name) => row[name]!), ...cells(row)])
    console.log(table([...names, ...COUNTS], rows, names.length))
  })

program
  .command('verify')
  .description(
    'Holds the files against the ledger, and says what was lost. Exits with 1 where something is not as it should be.',
  )
  .option('--service <name>', 'of this service alone')
  .option('--module <name>', 'of this module alone')
  .option('--since <day>', 'from this day on, such as 2026-11-23')
  .option('--max-loss <ratio>', 'lost lines by all lines; more are too many', ratio, 0.0001)
  .option('--json', 'as the consumer says it')
  .action(async ({ json, maxLoss, ...query }: { json?: boolean; maxLoss: number } & Record<string, string>) => {
    const found = await ask<VerifyAnswer>('/api/v1/verify', query)
    const { total, problems } = found
    const bad = problems.length > 0 || total.ratio > maxLoss
    if (json) console.log(JSON.stringify(found, undefined, 2))
    else report(found, maxLoss)
    process.exitCode = bad ? EXIT_BAD : 0
  })

function report({ files, bytes, total, problems, losses }: VerifyAnswer, maxLoss: number): void {
  console.log(`${number(files)} files, ${number(bytes)} bytes read\n`)
  console.log(table(COUNTS, [cells(total)], 0))
  if (losses.length > 0) {
    const rows = losses
      .slice(0, LISTED)
      .map(({ service, module, host, container, run, source, from, to, reason }) => [
        ...[`${service}/${module}`, host, container, run, source, reason],
        ...[from, to, to - from + 1].map(number),
      ])
    const head = ['lost of', 'host', 'container', 'run', 'source', 'reason', 'from', 'to', 'lines']
    console.log(`\n${table(head, rows, 6)}`)
    if (losses.length > LISTED) console.log(`and ${number(losses.length - LISTED)} more; --json lists them all`)
  }
  if (problems.length > 0) {
    const rows = problems.slice(0, LISTED).map(({ file, what, run, numbers, lines, message }) => {
      const range = numbers?.map(([from, to]) => (from === 0 ? '' : `${number(from)}–${number(to)}`)) ?? []
      return [file, what, run ?? '', range.filter(Boolean).join(' '), message, number(lines)]
    })
    console.log(`\n${table(['file', 'is', 'run', 'from', 'how', 'lines'], rows, 5)}`)
    if (problems.length > LISTED) console.log(`and ${number(problems.length - LISTED)} more; --json lists them all`)
  }
  const lost = `${number(total.lost)} of ${number(total.lines)} lines lost${total.lost > 0 ? ` (${reasons(total.lostBy)})` : ''}`
  const limit = total.ratio > maxLoss ? `more than ${maxLoss} of them` : `no more than ${maxLoss} of them`
  console.log(`\n${lost}, ${limit}; ${number(problems.length)} files are not as they were written`)
}

await program.parseAsync()
