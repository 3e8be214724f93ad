/**
 * Measures, side by side with what Docker has itself where it has it: `make bench`, or `node bench/main.ts [ROW…]`. A table a row on
 * stdout, and all figures in results/latest.json.
 *
 * Rows that are measured alone take the place of their own figures there, and leave a commit of their own beside the others'.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { catchingUp } from './catching-up.ts'
import { keeping } from './keeping.ts'
import { live } from './live.ts'
import { manyContainers } from './many-containers.ts'
import { manyRuns } from './many-runs.ts'
import { oneContainer } from './one-container.ts'
import { outage } from './outage.ts'
import { origin, type Row, tableText, write } from './report.ts'
import { searching } from './searching.ts'

const ROWS: Record<string, Row> = {
  one_container: oneContainer,
  many_containers: manyContainers,
  outage,
  catching_up: catchingUp,
  many_runs: manyRuns,
  live,
  keeping,
  searching,
}

const tell = (progress: string) => console.error(`bench: ${progress}`)

const asked = process.argv.slice(2)
const unknown = asked.find((name) => !Object.hasOwn(ROWS, name))
if (unknown !== undefined) {
  console.error(`bench: there is no row ${unknown}; there are ${Object.keys(ROWS).join(', ')}`)
  process.exit(2)
}

const path = join(import.meta.dirname, 'results/latest.json')
const { commit, ...about } = origin()
const results: Record<string, string | number> =
  asked.length === 0 ? { commit: commit!, ...about } : JSON.parse(readFileSync(path, 'utf8'))
for (const name of asked.length === 0 ? Object.keys(ROWS) : asked) {
  const { table, figures } = await ROWS[name]!.measure(tell)
  Object.assign(results, figures, asked.length > 0 && { [`commit_${name}`]: commit, [`date_${name}`]: about['date'] })
  console.log(`\n${tableText(table)}\n`)
}
write(path, results)
console.log(`commit ${commit}, ${about['machine']}; all figures: ${path}`)
