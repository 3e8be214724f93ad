/**
 * Plugin and consumer over SASL_SSL, by every mechanism, with a password from a file in the plugin's mount or from the environment; a
 * wrong one, and how it is mended; and brokers that ask for a certificate of ours.
 */
import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { delay, MOST_DELAY } from '../support/delays.ts'
import { CERTS_IN_PLUGIN, type House, startHouse } from '../support/house.ts'
import { USER } from '../support/kafka.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { addScramUser } from '../support/scram.ts'
import { until } from '../support/until.ts'

let house: House
beforeAll(async () => {
  house = await startHouse('security', { secured: true })
})
afterAll(() => house?.[Symbol.asyncDispose]())

it('lines land', async () => {
  const container = await house.run({ print: printed(numberedLines(10_000, 105)) })
  await house.landed(container)
})

it('with a wrong password containers start and stop as ever, and once it is mended all lines land', async () => {
  await house.plugin.disable()
  writeFileSync(house.passwordFile, 'wrong')
  await house.plugin.enable()
  await house.plugin.answers()
  const container = await house.run({ print: printed(numberedLines(1_000, 105)) })
  expect(await container.ended()).toBe(0)
  await until(
    'the driver says that Kafka is away',
    async () => (await fetch(`${house.metrics}/healthz`)).status === 503,
  )
  expect(await delay(house)).toBeLessThan(MOST_DELAY)
  writeFileSync(house.passwordFile, USER.password)
  await house.landed()
})

/** Sets the plugin anew. */
async function set(settings: Record<string, string>): Promise<void> {
  await house.plugin.disable()
  await house.plugin.set(settings)
  await house.plugin.enable()
  await house.plugin.answers()
}

it('brokers that ask for a certificate take no lines without one, and all of them with it', async () => {
  await set({ KAFKA_BROKERS: house.kafka.mutual.join() })
  const container = await house.run({ print: printed(numberedLines(1_000, 105)) })
  expect(await container.ended()).toBe(0)
  await until(
    'the driver says that Kafka is away',
    async () => (await fetch(`${house.metrics}/healthz`)).status === 503,
  )
  await set({
    KAFKA_CERT_FILE: `${CERTS_IN_PLUGIN}/client.pem`,
    KAFKA_KEY_FILE: `${CERTS_IN_PLUGIN}/client-key.pem`,
  })
  await house.landed(container)
  await set({ KAFKA_BROKERS: house.kafka.secured.join(), KAFKA_CERT_FILE: '', KAFKA_KEY_FILE: '' })
})

it.each([
  ['scram-sha-256', {}],
  ['scram-sha-512', { KAFKA_SASL_PASSWORD: USER.password, KAFKA_SASL_PASSWORD_FILE: '' }],
])('lines land over %s as well, with %j', async (mechanism, password) => {
  await addScramUser(house.kafka.brokers[0]!, USER.name, USER.password)
  await set({ KAFKA_SASL_MECHANISM: mechanism, ...password })
  const container = await house.run({ print: printed(numberedLines(1_000, 105)) })
  await house.landed(container)
})

it('and when all has come to rest, nothing stands twice', async () => {
  await house.settled()
})
