/** The page over the whole way: containers that print, the plugin, Kafka, a consumer, a browser. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Browser } from '../support/browser.ts'
import { type House, startHouse } from '../support/house.ts'
import { printed } from '../support/printed.ts'
import { bundlePage } from '../support/site.ts'
import { until } from '../support/until.ts'

let house: House
let browser: Browser

beforeAll(async () => {
  await bundlePage()
  house = await startHouse('page')
  browser = await Browser.start()
})
afterAll(async () => {
  await browser?.[Symbol.asyncDispose]()
  await house?.[Symbol.asyncDispose]()
})

it('shows what two containers print while they print it, and then counts it with nothing lost', async () => {
  const page = await browser.open(`${house.consumer.url}/?target=${house.id}/*`)
  await page.locator('.live-state.live').waitFor()
  const containers = await Promise.all([
    house.run({ print: printed('first of one\nlast of one\n') }),
    house.run({ print: printed('first of two\nlast of two\n') }),
  ])
  const text = page.locator('.item .text')
  await until('all four lines are there', async () => (await text.count()) === 4)
  expect((await text.allInnerTexts()).toSorted()).toEqual([
    'first of one',
    'first of two',
    'last of one',
    'last of two',
  ])
  await house.landed(...containers)
  await page.keyboard.press('o')
  for (const { name } of containers) {
    const row = page.getByRole('row').filter({ hasText: `${house.id}/${name}` })
    await until('it is counted', async () => /\b2\b[\s\S]*\b0\b/.test(await row.innerText()))
  }
  await page.getByText('none lost').waitFor()
  expect(await browser.close()).toEqual([])
})
