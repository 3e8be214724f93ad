/** Starts the driver behind a socket that is listened on already: settings, threads, plugin API, and how it ends. */
import { existsSync } from 'node:fs'
import type { Server } from 'node:http'
import { hostname } from 'node:os'
import pino from 'pino'
import { readSettings, SettingsError } from '../wire/settings.ts'
import { Driver } from './driver.ts'
import { runsFolder } from './journal.ts'
import { metricsApi } from './metrics.ts'
import { pluginApi } from './plugin-api.ts'
import { type Settings, settingsSchema } from './settings.ts'
import { giveBackStartMemory } from './start-memory.ts'

export type StartOptions = {
  journal: string
  /** FIFOs that are held open, by file. */
  fifos: Map<string, number>
  server: Server
}

/** By then all that starting does is done, the threads' part of it too. */
const STARTED_MS = 5_000

/** EX_CONFIG of sysexits.h. */
const EXIT_SETTINGS = 78

/**
 * A file that can't be read is told to who enables the plugin for the first time. Later, when containers print into it, Docker would
 * disable a plugin that ends here: then it is as if Kafka were away, until the file is there.
 */
function settingsOrExit(journal: string): Settings {
  try {
    return readSettings(settingsSchema, process.env, [], existsSync(runsFolder(journal)) ? 'later' : 'now')
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    process.stderr.write(`tallyman: ${error.message}\nmend them with: docker plugin set tallyman NAME=VALUE\n`)
    process.exit(EXIT_SETTINGS)
  }
}

/** Resolves once requests are answered. A mistake in the settings ends the process, with words on stderr. */
export async function start({ journal, fifos, server }: StartOptions): Promise<void> {
  const settings = settingsOrExit(journal)
  const log = pino({ level: settings.LOG_LEVEL, base: { thread: 'main' } })
  const driver = new Driver({ journal, host: settings.HOST_NAME || hostname(), settings, log })
  await driver.recover(fifos)
  const api = pluginApi(driver, log, server)
  await api.ready()
  const metrics =
    settings.METRICS_ADDR &&
    metricsApi({
      runs: () => driver.runs,
      bytesIn: () => driver.bytesIn,
      longestTurn: () => driver.takeLongestTurn(),
      shipping: () => driver.shipping(),
    })
  metrics?.listen(settings.METRICS_ADDR!).catch((error: Error) => {
    log.warn(
      { code: 'METRICS_REFUSED', address: settings.METRICS_ADDR, error: error.message },
      'metrics are not served, all else goes on; free the address, or set METRICS_ADDR to another one or to off',
    )
  })
  log.info({ brokers: settings.KAFKA_BROKERS, topic: settings.KAFKA_TOPIC, journal }, 'tallyman driver is up')

  setTimeout(giveBackStartMemory, STARTED_MS).unref()

  const stop = async (signal: string): Promise<void> => {
    log.info({ signal }, 'stopping; what is not shipped yet stays in the journal and in the pipes')
    await Promise.all([api.close(), metrics?.close(), driver.stop()])
    process.exit(0)
  }
  process.once('SIGTERM', stop)
  process.once('SIGINT', stop)
}
