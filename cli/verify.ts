/** `tallyman verify`: files against the ledger. */
import type { VerifyAnswer } from '../consumer/api-schema.ts'
import { ask } from './api.ts'
import { EXIT } from './errors.ts'
import { sayGaps } from './history.ts'
import { asJson, COUNTS, cells } from './ledger.ts'
import { apart, fromEach } from './merge.ts'
import { type GlobalOptions, serversFor } from './selection.ts'
import { number, table } from './table.ts'
import { print } from './terminal.ts'

export type VerifyOptions = GlobalOptions & {
  service?: string
  module?: string
  since?: string
  maxLoss: number
  json?: boolean
}

/** As many losses and problems are listed; how many more there are is said. */
const LISTED = 50

export async function verify(options: VerifyOptions): Promise<void> {
  const { service, module, since, maxLoss, json } = options
  const servers = await apart(await serversFor(options))
  const answers = await fromEach(servers, (server) =>
    // It reads every file before it answers.
    ask<VerifyAnswer>(server, 'api/v1/verify', { query: { service, module, since }, silence: 0 }),
  )
  for (const { server, answer } of answers) sayGaps(server, answer.partial)
  if (json) await print(asJson(servers.length, answers))
  else {
    for (const { server, answer } of answers) {
      if (servers.length > 1) await print(`${server.name}\n`)
      await print(`${report(answer, maxLoss)}\n`)
    }
  }
  const bad = answers.some(({ answer: { total, problems } }) => problems.length > 0 || total.ratio > maxLoss)
  process.exitCode ??= bad ? EXIT.BAD : EXIT.GOOD
}

const reasons = (lostBy: Record<string, number>): string =>
  Object.entries(lostBy)
    .map(([reason, lines]) => `${reason} ${number(lines)}`)
    .join(', ')

function report({ files, bytes, rebuilt, total, removed, problems, losses }: VerifyAnswer, maxLoss: number): string {
  const parts = [`${number(files)} files, ${number(bytes)} bytes read`, table(COUNTS, [cells(total)], 0)]
  const more = (of: unknown[]): string =>
    of.length > LISTED ? `\nand ${number(of.length - LISTED)} more; --json lists them all` : ''
  if (losses.length > 0) {
    const rows = losses
      .slice(0, LISTED)
      .map(({ service, module, host, container, run, source, from, to, reason }) => [
        ...[`${service}/${module}`, host, container, run, source, reason],
        ...[from, to, to - from + 1].map(number),
      ])
    const head = ['lost of', 'host', 'container', 'run', 'source', 'reason', 'from', 'to', 'lines']
    parts.push(table(head, rows, 6) + more(losses))
  }
  if (problems.length > 0) {
    const rows = problems.slice(0, LISTED).map(({ file, what, run, numbers, lines, message }) => {
      const range = numbers?.map(([from, to]) => (from === 0 ? '' : `${number(from)}–${number(to)}`)) ?? []
      return [file, what, run ?? '', range.filter(Boolean).join(' '), message, number(lines)]
    })
    parts.push(table(['file', 'is', 'run', 'from', 'how', 'lines'], rows, 5) + more(problems))
  }
  const lost = `${number(total.lost)} of ${number(total.lines)} lines lost${total.lost > 0 ? ` (${reasons(total.lostBy)})` : ''}`
  const limit = total.ratio > maxLoss ? `more than ${maxLoss} of them` : `no more than ${maxLoss} of them`
  if (total.claimed > 0) {
    parts.push(`${number(total.claimed)} lines are another root's to write, which is away: tallyman disown tells which`)
  }
  if (rebuilt > 0) parts.push(`${number(rebuilt)} bytes have a checksum that was made anew when the index was mended`)
  if (removed > 0) parts.push(`${number(removed)} more were written to days that are not kept any more`)
  parts.push(`${lost}, ${limit}; ${number(problems.length)} files are not as they were written`)
  return parts.join('\n\n')
}
