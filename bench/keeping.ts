/**
 * Keeping: how long after its printing a line can be read while the consumer removes a day of 1,000 modules, and while it compresses one.
 * The whole way, as with `live`.
 *
 * The consumer is not started again between undisturbed and disturbed, since that costs more than what is measured here. It makes its
 * first pass of housekeeping at its start and the second a minute later: until then both days have to be in their files, and the
 * undisturbed lines measured. Where that was not so, the row ends with an error.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pino from 'pino'
import { removeContainers } from '../test/support/engine.ts'
import { type House, startHouse } from '../test/support/house.ts'
import { dayFiles } from '../test/support/oracle.ts'
import { until } from '../test/support/until.ts'
import { kafkaClient } from '../wire/kafka.ts'
import { Arrivals } from './arrivals.ts'
import { type Backlog, fill } from './backlog.ts'
import { figureOf } from './caught-up.ts'
import { startGenerator } from './generator.ts'
import { accessLog } from './lines.ts'
import { consumerProgram } from './program.ts'
import { type Row, rounded, type Table } from './report.ts'

const DAY_MS = 86_400_000
const MODULES = 1_000
const PARTITIONS = 3
const LINE_BYTES = 105
/** Of a module and a day: some 260 KB. */
const FILE_LINES = 2_000
const CHUNK_LINES = 1_000
const LINES = MODULES * FILE_LINES
/** Without their stamps: both days are longer than that with them, and one of them is not. */
const KEEP_BYTES = 2 * LINES * LINE_BYTES
const LIVE = 'live'
const LINES_PER_SECOND = 2_000
const UNDISTURBED_MS = 15_000
/** How long we wait for what starting and landing the days cost to be over. */
const SETTLE_MS = 3_000
const ASK_EVERY_MS = 100

export const keeping: Row = {
  async measure(tell) {
    const rows: Table['rows'] = []
    const figures: Record<string, number> = {}
    tell('starting Kafka, consumer and plugin')
    const settings = { COMPRESS: 'zst', COMPRESS_AFTER: '0s', KEEP_BYTES: String(KEEP_BYTES) }
    await using house = await startHouse('bench-keeping', { program: consumerProgram(), consumer: settings })
    const reached = async (name: string, count: number) => {
      await sleep(ASK_EVERY_MS)
      return (await figureOf(house.consumer, name)) >= count
    }
    tell(`storing two days of ${MODULES} modules`)
    await fillDays(house)
    await until('both days are in their files', () => reached('lines_written_total', 2 * LINES))
    await startGenerator(house, LIVE, 10, LINES_PER_SECOND / 10)
    const folder = join(house.root, house.id, LIVE)
    await until('the first line is in its file', () => dayFiles(folder).length > 0)
    const arrivals = new Arrivals(dayFiles(folder)[0]!)

    let undisturbed: number | undefined
    const report = (name: string, title: string, ms: number, latency: (quantile: number) => number) => {
      const [p50, p99] = [latency(0.5), latency(0.99)]
      undisturbed ??= p99
      tell(`${title}: ${(ms / 1000).toFixed(1)} s, p50 ${p50} ms, p99 ${p99} ms`)
      rows.push([title, ms / 1000, p50, p99, p99 - undisturbed])
      Object.assign(figures, { [`latency_p50_ms_${name}`]: p50, [`latency_p99_ms_${name}`]: p99 })
      if (name !== 'undisturbed') {
        figures[`latency_p99_more_ms_${name}`] = rounded(p99 - undisturbed)
        figures[`seconds_${name}`] = rounded(ms / 1000)
      }
    }
    await sleep(SETTLE_MS)
    arrivals.reset()
    await sleep(UNDISTURBED_MS)
    report('undisturbed', 'undisturbed', UNDISTURBED_MS, arrivals.take())
    if ((await reached('files_removed_total', 1)) || (await reached('files_compressed_total', 1)))
      throw new Error('the second pass of housekeeping began before the undisturbed lines were measured')

    await until('the first file is removed', () => {
      // The checkpoint is written before the first one goes: that counts, too.
      arrivals.reset(LINES_PER_SECOND)
      return reached('files_removed_total', 1)
    })
    const removing = performance.now()
    await until('a day is removed', () => reached('files_removed_total', MODULES))
    report('removing', `${MODULES} files are removed`, performance.now() - removing, arrivals.take())
    const compressing = performance.now()
    await until('a day is compressed', () => reached('files_compressed_total', MODULES), 200)
    report('compressing', `${MODULES} files are compressed`, performance.now() - compressing, await arrivals.stop())
    await removeContainers('generator')
    const { problems } = (await (await fetch(`${house.consumer.url}/api/v1/verify`)).json()) as { problems: unknown[] }
    if (problems.length > 0) throw new Error(`verify found ${JSON.stringify(problems[0])}`)
    const columns = ['seconds', 'p50 ms', 'p99 ms', 'p99 more ms']
    return { table: { title: 'Keeping, at 2,000 lines/s; from printing to reading.', columns, rows }, figures }
  },
}

/** The day before yesterday, for which KEEP_BYTES has no room, and yesterday, for which it has. */
async function fillDays(house: House): Promise<void> {
  const { brokers } = house.kafka
  const kafka = kafkaClient({ brokers, clientId: 'tallyman-bench', logger: pino({ level: 'silent' }) })
  const noon = Math.floor(Date.now() / DAY_MS) * DAY_MS + DAY_MS / 2
  const backlog: Backlog = {
    ...{ topic: house.topic, partitions: PARTITIONS, modules: MODULES, lines: LINES, chunkLines: CHUNK_LINES },
    ...{ text: accessLog(400_000, LINE_BYTES), lineBytes: LINE_BYTES },
  }
  for (const daysAgo of [2, 1]) await fill(kafka, { ...backlog, ended: noon - daysAgo * DAY_MS })
}
