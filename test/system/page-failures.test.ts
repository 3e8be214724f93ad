/** The page over a consumer that misbehaves: slow, away, too fast, refusing. */
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { Browser, type Opened } from '../support/browser.ts'
import { type Faults, PageApi } from '../support/page-api.ts'
import { bundlePage } from '../support/site.ts'
import { until } from '../support/until.ts'

let browser: Browser
let api: PageApi | undefined

beforeAll(async () => {
  await bundlePage()
  browser = await Browser.start()
})
afterAll(() => browser?.[Symbol.asyncDispose]())
afterEach(async () => {
  expect(await browser.close()).toEqual([])
  await api?.[Symbol.asyncDispose]()
})

async function open(faults: Faults, query: string): Promise<Opened> {
  api = new PageApi(faults)
  return browser.open(`${await api.listen()}/${query}`)
}
const status = (page: Opened): Promise<string> => page.locator('.status').innerText()
const asked = (path: string): string[] => api!.asked.filter((url) => url.startsWith(`/api/v1/${path}`))

it('a search shows what it has found, and how far it is, before it ends', async () => {
  const page = await open({ searchMs: 4_000 }, '?since=24h&q=order')
  const said = await until(
    'it is under way',
    async () => /Searched .* of 1\.0 GB in \d+ of 20 files/.exec(await status(page))?.[0],
  )
  expect(said).not.toContain(' 20 of 20 ')
  await page.locator('.item mark').first().waitFor()
  expect(await page.getByRole('progressbar', { name: 'How far the search is' }).getAttribute('value')).toMatch(/^0\.\d/)
  await until('it ends', async () => (await status(page)).includes('earlier ones'))
})

it('a search that is cancelled ends at the server, keeps what it found, and says that this is not all', async () => {
  const page = await open({ searchMs: 60_000 }, '?since=24h&q=order')
  await page.locator('.item mark').first().waitFor()
  await page.keyboard.press('Escape')
  await page.getByText('cancelled: not all was searched').waitFor()
  await until('the server has seen it', () => api!.left === 1)
  expect(await page.locator('.item').count()).toBeGreaterThan(0)
})

it('a search for something else ends the one before', async () => {
  const page = await open({ searchMs: 60_000 }, '?since=24h&q=order')
  await until('it is under way', () => asked('search').length === 1)
  await page.getByLabel('Search', { exact: true }).fill('invoice')
  await until('the first has ended', () => api!.left === 1)
  await until('the second is asked', () => asked('search').some((url) => url.includes('pattern=invoice')))
})

it('an answer that breaks off is not taken for the whole', async () => {
  const page = await open({ searchBreaks: true }, '?since=24h&q=order')
  await page.getByRole('alert').filter({ hasText: 'broke off' }).waitFor()
  api!.faults.searchBreaks = false
  await page.getByRole('button', { name: 'Try again' }).click()
  await until('it ends', async () => (await status(page)).includes('earlier ones'))
  expect(await page.getByRole('alert').count()).toBe(0)
})

it('a tail that breaks off goes on behind its cursor, with every line once', async () => {
  const page = await open({ tailBreaksAfter: 20, rate: 40 }, '?page=lines')
  await until('it is asked again, from a cursor', () => asked('tail').some((url) => url.includes('cursor=')))
  await page.locator('.live-state.live').waitFor()
  await until('more has come', async () => /(5[5-9]\d|[6-9]\d\d) rows/.test(await status(page)))
  await page.keyboard.press('Space')
  const keys = (await page.evaluate(
    '[...document.querySelectorAll(".item")].map((item) => item.dataset.at)',
  )) as string[]
  expect(new Set(keys).size).toBe(keys.length)
})

it('lines that the server left out because the page was too slow are counted', async () => {
  const page = await open({ missed: 7 }, '?page=lines')
  await until('they are told', async () => /\d+ skipped: too fast for this page/.test(await status(page)))
})

it('a consumer that is away when the page is opened is asked until it answers', async () => {
  api = new PageApi({ refuse: { status: 503, error: 'NOT_READY', message: 'it is starting' } })
  const url = await api.listen()
  const page = await browser.open(url)
  await page.getByRole('alert').filter({ hasText: 'it is starting' }).waitFor()
  delete api.faults.refuse
  await page.getByRole('row').filter({ hasText: 'shop/web' }).waitFor()
  expect(await page.getByRole('alert').count()).toBe(0)
})

it('a session that ends while the page is open leads to the login, and back to the same view', async () => {
  const page = await open({}, '?target=shop/web&since=6h')
  await page.locator('.item').first().waitFor()
  api!.faults.token = 'secret'
  await page.getByLabel('Token').fill('secret')
  await page.keyboard.press('Enter')
  await page.locator('.item').first().waitFor()
  expect(new URL(page.url()).searchParams.get('target')).toBe('shop/web')
})
