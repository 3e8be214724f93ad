/** The plugin's process: settings, the driver, and the socket that dockerd talks to. */
import { rmSync } from 'node:fs'
import { hostname } from 'node:os'
import { parseArgs } from 'node:util'
import pino from 'pino'
import { readSettings, SettingsError } from '../wire/settings.ts'
import { Driver } from './driver.ts'
import { DriverError } from './errors.ts'
import { pluginApi } from './plugin-api.ts'
import { type Settings, settingsSchema } from './settings.ts'

const { values: paths } = parseArgs({
  options: {
    socket: { type: 'string', default: '/run/docker/plugins/tallyman.sock' },
    journal: { type: 'string', default: '/run/docker/logging' },
  },
})

function settingsOrExit(): Settings {
  try {
    return readSettings(settingsSchema, process.env)
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    process.stderr.write(`tallyman: ${error.message}\nmend them with: docker plugin set tallyman NAME=VALUE\n`)
    process.exit(78)
  }
}

const settings = settingsOrExit()
const log = pino({ level: settings.LOG_LEVEL, base: { thread: 'main' } })

try {
  const driver = new Driver({ journal: paths.journal, host: hostname(), settings, log })
  await driver.reopen()
  const api = pluginApi(driver, log)
  // A driver that was killed leaves its socket file, and listening on it would fail.
  rmSync(paths.socket, { force: true })
  await api.listen({ path: paths.socket })
  driver.recover()
  log.info(
    { brokers: settings.KAFKA_BROKERS, topic: settings.KAFKA_TOPIC, journal: paths.journal },
    'tallyman driver is up',
  )

  const stop = async (signal: string): Promise<void> => {
    log.info({ signal }, 'stopping; what is not shipped yet stays in the journal and in the pipes')
    await Promise.all([api.close(), driver.stop()])
    process.exit(0)
  }
  process.once('SIGTERM', stop)
  process.once('SIGINT', stop)
} catch (error) {
  log.fatal({ err: error, code: error instanceof DriverError ? error.code : undefined }, 'the driver could not start')
  process.exit(1)
}
