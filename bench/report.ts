/** What a benchmark hands over, and how it is told: a table for people, flat JSON for programs. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { dirname } from 'node:path'

export type Table = { title: string; columns: string[]; rows: [name: string, ...cells: (number | undefined)[]][] }

/** One row of the benchmark: something measured side by side. */
export type Row = {
  /** @param tell says how far it is */
  measure(tell: (progress: string) => void): Promise<{ table: Table; figures: Record<string, number> }>
}

/** @throws Error without values: a median of nothing would be a figure made up */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  if (low === undefined || high === undefined) throw new Error('there is no median of no values')
  return (low + high) / 2
}

/** To three digits behind the point: nothing here is measured more exactly. */
export const rounded = (value: number): number => Math.round(value * 1000) / 1000

export function tableText({ title, columns, rows }: Table): string {
  const cells = [
    ['', ...columns],
    ...rows.map(([name, ...values]) => [name, ...values.map((value) => value?.toFixed(2) ?? '–')]),
  ]
  const widths = columns.map((_, i) => Math.max(...cells.map((row) => row[i + 1]!.length)))
  const nameWidth = Math.max(...cells.map(([name]) => name!.length))
  const lines = cells.map(([name, ...values]) =>
    [name!.padEnd(nameWidth), ...values.map((value, i) => value.padStart(widths[i]!))].join('   ').trimEnd(),
  )
  return [title, '', ...lines].join('\n')
}

const said = (file: string, ...args: string[]): string =>
  execFileSync(file, args, { cwd: import.meta.dirname, encoding: 'utf8' }).trim()

/** What the figures are of: commit (`+` when the checkout differs from it), date and machine. */
export function origin(): Record<string, string> {
  const dirty = said('git', 'status', '--porcelain', '--untracked-files=no', '--', ':/', ':!/bench/results') !== ''
  const [cpu] = cpus()
  return {
    commit: said('git', 'rev-parse', '--short', 'HEAD') + (dirty ? '+' : ''),
    date: new Date().toISOString(),
    machine: `${cpus().length} × ${cpu?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`,
    docker: said('docker', 'version', '--format', '{{.Server.Version}}'),
    node: process.version,
  }
}

export function write(path: string, results: Record<string, string | number>): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, `${JSON.stringify(results, undefined, 2)}\n`)
}
