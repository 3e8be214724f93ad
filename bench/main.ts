/** Measures side by side with what Docker has itself: `make bench`. A table on stdout, all figures in results/latest.json. */
import { join } from 'node:path'
import { manyContainers } from './many-containers.ts'
import { oneContainer } from './one-container.ts'
import { origin, type Row, tableText, write } from './report.ts'

const ROWS: Row[] = [oneContainer, manyContainers]

const tell = (progress: string) => console.error(`bench: ${progress}`)

const results: Record<string, string | number> = origin()
for (const row of ROWS) {
  const { table, figures } = await row.measure(tell)
  Object.assign(results, figures)
  console.log(`\n${tableText(table)}\n`)
}
const path = join(import.meta.dirname, 'results/latest.json')
write(path, results)
console.log(`commit ${results['commit']}, ${results['machine']}; all figures: ${path}`)
