/** The whole way of a line: container, plugin, Kafka, consumer, file. Byte for byte, each line once. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type House, startHouse } from '../support/house.ts'
import { numberedLines, printed } from '../support/printed.ts'

let house: House
beforeAll(async () => {
  house = await startHouse('flow')
})
afterAll(() => house?.[Symbol.asyncDispose]())

it('a line lands in its file', async () => {
  const container = await house.run({ print: printed('a line\n') })
  await house.landed(container)
})

it('a million lines of one container', async () => {
  const container = await house.run({ print: printed(numberedLines(1_000_000, 105)) })
  expect(await container.ended()).toBe(0)
  await house.landed(container)
})

it('and nothing comes twice, however late', async () => {
  await house.settled()
})
