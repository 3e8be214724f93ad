/** Takes the pictures of docs/ from a consumer that runs, the demo's unless TALLYMAN_URL names another: node test/support/screenshots.ts */
import { join } from 'node:path'
import { Browser, type Opened, type OpenOptions } from './browser.ts'
import { repo } from './engine.ts'

const url = process.env['TALLYMAN_URL'] ?? 'http://127.0.0.1:4680'
const SIZE = { width: 1280, height: 760 }

type Picture = { name: string; query: string; options: OpenOptions; prepare(page: Opened): Promise<void> }

const PICTURES: Picture[] = [
  {
    name: 'page-overview',
    query: '',
    options: { colorScheme: 'light' },
    prepare: (page) => page.getByRole('row').nth(2).waitFor(),
  },
  {
    name: 'page-live',
    query: '?target=shop/*&target=billing/*',
    options: { colorScheme: 'dark' },
    async prepare(page) {
      await page.locator('.live-state.live').waitFor()
      await page.locator('.item').nth(20).waitFor()
      await page
        .getByRole('button', { name: /Stack trace/ })
        .last()
        .click()
    },
  },
  {
    name: 'page-search',
    query: '?target=shop/web&since=5m&q=HTTP/1.1"+(404|502)&regex=true',
    options: { colorScheme: 'light' },
    async prepare(page) {
      await page.locator('.item').last().waitFor()
      await page.keyboard.press('w')
      await page.locator('.item').last().click()
      await page.getByRole('complementary', { name: 'Line' }).getByText('Around it').waitFor()
    },
  },
  {
    name: 'page-narrow',
    query: '?target=shop/*',
    options: { colorScheme: 'dark', viewport: { width: 375, height: 720 } },
    prepare: (page) => page.locator('.item').nth(5).waitFor(),
  },
]

await using browser = await Browser.start()
for (const { name, query, options, prepare } of PICTURES) {
  const page = await browser.open(`${url}/${query}`, { viewport: SIZE, timezoneId: 'UTC', ...options })
  await prepare(page)
  // What came late: the histogram, the catalog, the fonts.
  await page.waitForLoadState('load')
  await page.locator('.histogram canvas, .tiles').first().waitFor()
  await page.evaluate('document.fonts.ready')
  await page.mouse.move(0, 0)
  const path = join(repo, 'docs', `${name}.png`)
  await page.screenshot({ path, animations: 'disabled' })
  console.log(path)
}
const wrongs = await browser.close()
if (wrongs.length > 0) throw new Error(`the page did what it should not:\n${wrongs.join('\n')}`)
