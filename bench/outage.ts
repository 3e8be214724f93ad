/**
 * An outage: how much memory the driver takes while Kafka is away and containers print on, and until all of it is shipped. Figures are
 * of the driver alone.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { BASE_IMAGE, docker, LABEL, removeContainers } from '../test/support/engine.ts'
import { startHouse } from '../test/support/house.ts'
import { until } from '../test/support/until.ts'
import { Meter } from './meter.ts'
import { type Row, rounded } from './report.ts'

const CONTAINERS = 10
const LINES_PER_SECOND = 5_000
const AWAY_SECONDS = 30
/** How long containers print before Kafka goes: what starting costs is over by then. */
const BEFORE_MS = 10_000
/** For everything that waited to be shipped. */
const SHIPPED_SECONDS = 300

/** Prints lines of 105 bytes, a hundredth of so many a second at once, until it is stopped. */
const PRINT = `$| = 1; my $some = ("x" x 105 . "\\n") x ($ARGV[0] / 100); for (;;) { print $some; select undef, undef, undef, 0.01 }`

export const outage: Row = {
  async measure(tell) {
    tell('starting Kafka, consumer and plugin')
    await using house = await startHouse('bench-outage')
    const sample = async (name: string) => (await house.samples())[`tallyman_driver_${name}`]!
    for (let i = 0; i < CONTAINERS; i++) {
      const container = await docker.createContainer({
        name: `${house.id}-${i}`,
        Image: BASE_IMAGE,
        Cmd: ['perl', '-e', PRINT, String(LINES_PER_SECOND)],
        Labels: { [LABEL]: 'generator' },
        HostConfig: {
          NetworkMode: 'none',
          LogConfig: { Type: house.plugin.name, Config: { service: house.id, module: String(i) } },
        },
      })
      await container.start()
    }
    await sleep(BEFORE_MS)
    const meter = new Meter({ driver: [house.plugin.pid] })
    await house.kafka.stop()
    await sleep(AWAY_SECONDS * 1000)
    const away = meter.read().peakMegabytes.driver
    const waiting = await sample('journal_unshipped_bytes')
    tell(`${(waiting / 1e6).toFixed(0)} MB wait in the journal, ${away.toFixed(0)} MB are resident`)
    await removeContainers('generator')
    await house.kafka.start()
    const lost = async () => {
      const samples = Object.entries(await house.samples())
      return samples.filter(([name]) => name.startsWith('tallyman_driver_lines_lost_total')).map(([, lines]) => lines)
    }
    await until('all of it is shipped', async () => (await sample('journal_unshipped_bytes')) === 0, SHIPPED_SECONDS)
    const afterwards = meter.read().peakMegabytes.driver
    if ((await lost()).some((lines) => lines > 0))
      throw new Error('lines were lost: the outage was too long for the journal')
    tell(`${afterwards.toFixed(0)} MB at most until it was shipped`)
    return {
      table: {
        title: `Kafka away for ${AWAY_SECONDS} s, ${CONTAINERS} containers at ${LINES_PER_SECOND.toLocaleString('en')} lines/s each: the driver's peak RSS.`,
        columns: ['journal MB', 'while away MB', 'until shipped MB'],
        rows: [['tallyman', waiting / 1e6, away, afterwards]],
      },
      figures: {
        outage_journal_mb: rounded(waiting / 1e6),
        driver_peak_rss_mb_outage: rounded(away),
        driver_peak_rss_mb_outage_until_shipped: rounded(afterwards),
      },
    }
  },
}
