/** `docker plugin install` from a registry, as an operator does it on a real host. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { command } from '../support/engine.ts'
import { type House, startHouse } from '../support/house.ts'
import { Plugin } from '../support/plugin.ts'
import { numberedLines, printed } from '../support/printed.ts'

const REGISTRY = 'tallyman-test-registry'
const ALIAS = 'tallyman-installed:latest'

let house: House
let address: string
beforeAll(async () => {
  house = await startHouse('install')
  await removePlugin(ALIAS)
  address = (await command('setup/registry.sh', 'start', REGISTRY)).split('\n').at(-1)!
})
afterAll(async () => {
  await house?.[Symbol.asyncDispose]()
  await removePlugin(ALIAS)
  await command('setup/registry.sh', 'stop', REGISTRY)
})

async function removePlugin(name: string): Promise<void> {
  if (await Plugin.find(name)) await command('docker', 'plugin', 'rm', '--force', name)
}

it('a plugin that is pushed, installed under an alias and set by its arguments logs a container', async () => {
  const reference = `${address}/team/tallyman:${randomBytes(3).toString('hex')}`
  await command('setup/plugin.sh', reference, 'LOG_LEVEL=error')
  await command('docker', 'plugin', 'disable', '--force', reference)
  await command('docker', 'plugin', 'push', reference)
  await command('docker', 'plugin', 'rm', reference)

  const settings = [`KAFKA_BROKERS=${house.kafka.brokers.join()}`, `KAFKA_TOPIC=${house.topic}`]
  await command('docker', 'plugin', 'install', '--grant-all-permissions', '--alias', ALIAS, reference, ...settings)
  const container = await house.run({ print: printed(numberedLines(10_000, 105)), logDriver: ALIAS })
  await house.landed(container)

  await house.forget(container)
  await command('docker', 'plugin', 'disable', '--force', ALIAS)
  await command('docker', 'plugin', 'rm', ALIAS)
  expect(await Plugin.find(ALIAS)).toBeUndefined()
})
