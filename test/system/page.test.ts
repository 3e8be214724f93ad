/** The page in a real browser, over a real consumer that lands what the test feeds through Kafka. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { Locator } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { BATCHES } from '../../consumer/event-decoder.ts'
import { axe, Browser, type Opened, type OpenOptions } from '../support/browser.ts'
import { Consumer } from '../support/consumer.ts'
import { temporaryFolder } from '../support/folder.ts'
import { TokensFile } from '../support/http-api.ts'
import { type Module, type Said, Site } from '../support/site.ts'
import { until } from '../support/until.ts'

const WEB: Module = { service: 'shop', module: 'web', host: 'host-a' }
const API: Module = { service: 'shop', module: 'api', host: 'host-b' }
const WORKER: Module = { service: 'billing', module: 'worker', host: 'host-b' }
const LIVE: Module = { service: 'live', module: 'tail', host: 'host-c' }
const OTHER: Module = { service: 'live', module: 'other', host: 'host-d' }
const HOSTILE: Module = { service: 'hostile', module: 'printer' }
const FLOOD: Module = { service: 'flood', module: 'pump' }

const MINUTE = 60_000
const HISTORY_LINES = 2_400
const TRACE = [
  'java.lang.IllegalStateException: cart 4711 is closed',
  '\tat shop.cart.Cart.add(Cart.java:42)',
  'Caused by: java.sql.SQLException: deadlock',
  '\t... 12 more',
]
const ESC = '\x1b'

let site: Site
let browser: Browser
/** ms since 1970: the last line of history. */
let end: number

/** A line every three seconds, two hours long, and an error in each fourth of it. */
function history(): Said[] {
  return Array.from({ length: HISTORY_LINES }, (_, i) => ({
    ms: end - (HISTORY_LINES - 1 - i) * 3_000,
    text:
      i % 600 === 300
        ? `ERROR order ${i} failed`
        : `order ${i} took ${i % 97} ms, health=${i % 2 === 0 ? 'ok' : 'fair'}`,
  }))
}

beforeAll(async () => {
  end = Date.now() - 5 * MINUTE
  ;[site, browser] = await Promise.all([Site.start('page'), Browser.start()])
  await site.feed(WEB, history())
  await site.feed(API, [
    {
      ms: end - 3 * MINUTE,
      text: '{"level":"warn","msg":"slow order","order":{"id":42,"items":[{"sku":"boot"}]},"took_ms":812}',
    },
    ...TRACE.map((text) => ({ ms: end - 2 * MINUTE, text, source: 'stderr' as const })),
    { ms: end - MINUTE, text: `${ESC}[1;31mred and bold${ESC}[0m and plain` },
  ])
  // A line in eleven never came.
  await site.feed(
    WORKER,
    Array.from({ length: 5 }, (_, i) => ({ ms: end, text: `invoice ${i} sent` })),
  )
  await site.feed(
    WORKER,
    Array.from({ length: 5 }, (_, i) => ({ ms: end, text: `invoice ${i + 6} sent` })),
    1,
  )
  await site.landed()
})
afterAll(async () => {
  await browser?.[Symbol.asyncDispose]()
  await site?.[Symbol.asyncDispose]()
})
afterEach(async () => {
  expect(await browser.close()).toEqual([])
})

const open = (query = '', options?: OpenOptions): Promise<Opened> => browser.open(site.at(query), options)
const rows = (page: Opened): Locator => page.locator('.item')
/** The row that shows this. */
const row = (page: Opened, text: string): Locator => rows(page).filter({ hasText: text })
const status = (page: Opened): Promise<string> => page.locator('.status').innerText()
const shows = (page: Opened, text: string): Promise<unknown> =>
  until(`the page shows ${text}`, async () => (await row(page, text).count()) > 0)
const says = (page: Opened, text: string | RegExp): Promise<void> => page.getByText(text).first().waitFor()
/** Live, and past what was there before. */
const isLive = (page: Opened): Promise<void> => page.locator('.live-state.live').waitFor()
const address = (page: Opened): URLSearchParams => new URL(page.url()).searchParams

describe('what is served', () => {
  it('is painted within a second, from the consumer alone, under a policy that allows nothing inline', async () => {
    const page = await open()
    // The best of three, each with an empty cache: what other programs of this machine do is not the page's doing.
    const paints: number[] = []
    for (const one of [page, await open(), await open()]) {
      await says(one, 'Lines counted')
      paints.push((await one.evaluate(`performance.getEntriesByName('first-contentful-paint')[0].startTime`)) as number)
    }
    expect(Math.min(...paints)).toBeLessThan(1_000)
    const scripts = (await page.evaluate(
      `performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => name.endsWith('.js'))`,
    )) as string[]
    const sizes = scripts.map(
      (url) => gzipSync(readFileSync(join(import.meta.dirname, '../../dist/web', new URL(url).pathname))).length,
    )
    expect(sizes.length).toBeGreaterThan(0)
    expect(sizes.reduce((sum, size) => sum + size)).toBeLessThan(200 * 1024)
    const policy = (await fetch(site.at())).headers.get('content-security-policy')
    expect(policy).toContain("script-src 'self'")
    expect(policy).toContain("style-src 'self'")
    expect(policy).not.toContain('unsafe')
  })
})

describe('overview', () => {
  it('tells of each module its rate, its last line, its lines, and of the ledger what was lost, where and why', async () => {
    const page = await open()
    const worker = page.getByRole('row').filter({ hasText: 'billing/worker' })
    await worker.first().waitFor()
    expect(await worker.first().innerText()).toMatch(/5 min ago\s+10\s+[\d.]+ K?B\s+1\s+host-b/)
    await worker.first().getByRole('img', { name: '10 lines in the last hour' }).waitFor()
    expect(await worker.last().innerText()).toMatch(/1 of 11\s+9\.1 %over 1 in 10,000\s+gap 1/)
    await worker.last().getByText('Which ones').click()
    await worker.last().getByText('worker-1 on host-b, stdout 6 gap').waitFor()
    const tiles = await page.locator('.tiles').innerText()
    expect(tiles).toMatch(/Lines counted\s+2\.4K/)
    expect(tiles).toMatch(/Lost\s+1\s+1 in 2,4\d\d; allowed is 1 in 10,000/)
    expect(tiles).toMatch(/Lag\s+0/)
    expect(tiles).toMatch(/Consumer\s+Ready/)
    await worker.first().getByRole('link').click()
    await isLive(page)
    expect(address(page).getAll('target')).toEqual(['billing/worker'])
    await shows(page, 'invoice 10 sent')
  })
})

describe('live tail', () => {
  it('shows what lands of the services, modules and hosts that are chosen, and of no other', async () => {
    await site.feed(LIVE, [{ text: 'first of all' }])
    await site.feed(OTHER, [{ text: 'first of the other' }])
    await site.landed()
    const page = await open('?page=lines')
    await isLive(page)
    const choices = page.getByRole('navigation', { name: 'What is read' })
    await choices.getByText('tail', { exact: true }).click()
    await until('the address holds it', () => address(page).get('target') === 'live/tail')
    await isLive(page)
    await site.feed(OTHER, [{ text: 'not for this page' }])
    await site.feed(LIVE, [{ text: 'for this page' }])
    await shows(page, 'for this page')
    expect(await row(page, 'not for this page').count()).toBe(0)
    await choices.getByText('live', { exact: true }).click()
    await choices.getByText('host-d').click()
    await until('the address holds them', () => address(page).get('host') === 'host-d')
    expect(address(page).getAll('target')).toEqual(['live/*'])
    await shows(page, 'not for this page')
    expect(await row(page, 'first of all').count()).toBe(0)
  })

  it('stays where somebody scrolls to, counts what is new, and catches up', async () => {
    const page = await open('?target=shop/web')
    await shows(page, `order ${HISTORY_LINES - 1} `)
    await isLive(page)
    await page.locator('.log').hover()
    await page.mouse.wheel(0, -1_500)
    await says(page, 'Paused · follow')
    const before = await rows(page).allInnerTexts()
    await site.feed(WEB, [{ text: 'new one' }, { text: 'new two' }])
    await says(page, '2 new lines · follow')
    expect(await rows(page).allInnerTexts()).toEqual(before)
    await page.getByRole('button', { name: /new lines/ }).click()
    await shows(page, 'new two')
    await site.feed(WEB, [{ text: 'new three' }])
    await shows(page, 'new three')
    await page.keyboard.press('Space')
    await says(page, 'Paused · follow')
    await site.feed(WEB, [{ text: 'new four' }])
    await says(page, '1 new line · follow')
    await page.keyboard.press('f')
    await shows(page, 'new four')
  })

  it('is filtered as it lands, and marks what matched', async () => {
    const page = await open('?target=live/tail&q=W.nted&regex=true&not=un')
    await isLive(page)
    await site.feed(LIVE, [{ text: 'unwanted' }, { text: 'wanted this' }, { text: 'nothing' }])
    await shows(page, 'wanted this')
    expect(await page.locator('mark').allInnerTexts()).toEqual(['wanted'])
    expect(await row(page, 'unwanted').count()).toBe(0)
  })

  it('takes 10,000 lines a second without freezing, and says what it does not show', async () => {
    const page = await open('?target=flood/pump')
    const [answer] = await Promise.all([page.waitForResponse(/\/api\/v1\/tail\?/), page.reload()])
    expect(answer.headers()).toMatchObject({ 'content-type': BATCHES, 'content-encoding': 'zstd' })
    await isLive(page)
    const lines = 40_000
    const longest = await browser.longestTask(page, async () => {
      for (let fed = 0, begun = Date.now(); fed < lines; fed += 2_000) {
        await until('it is time for more', () => Date.now() - begun >= fed / 10)
        const said = Array.from({ length: 2_000 }, (_, i) => ({ text: `GET /pump/${fed + i} 200 ${'x'.repeat(60)}` }))
        await site.feed(FLOOD, said)
      }
      await shows(page, `/pump/${lines - 1} `)
    })
    expect(longest).toBeLessThan(200)
    expect(await status(page)).toMatch(/10,000 rows\s+[\d,]+ older not shown/)
    await page.keyboard.press('?')
    await says(page, 'Show these keys')
  })

  it('goes on by itself after the consumer was killed, with every line once', async () => {
    const page = await open('?target=live/tail&q=survivor')
    await isLive(page)
    await site.feed(LIVE, [{ text: 'survivor 1' }])
    await shows(page, 'survivor 1')
    await site.consumer.kill()
    await page.locator('.live-state.broken').waitFor()
    await site.feed(LIVE, [{ text: 'survivor 2' }])
    await site.consumer.start()
    await isLive(page)
    await site.feed(LIVE, [{ text: 'survivor 3' }])
    await shows(page, 'survivor 3')
    const texts = await page.locator('.item .text').allInnerTexts()
    expect(texts).toEqual(['survivor 1', 'survivor 2', 'survivor 3'])
  })
})

describe('search', () => {
  it('finds in history what is typed, without what is left out, and marks it', async () => {
    const page = await open('?target=shop/web&since=6h')
    await shows(page, `order ${HISTORY_LINES - 1} `)
    await page.keyboard.press('/')
    await page.keyboard.type('ORDER 7')
    await page.keyboard.press('Enter')
    // 7, 70 to 79 and 700 to 799.
    await until('all are found', async () => (await status(page)).includes('111 rows'))
    expect(new Set(await page.locator('mark').allInnerTexts())).toEqual(new Set(['order 7']))
    await page.keyboard.press('Escape')
    await page.keyboard.press('-')
    await page.keyboard.type('health=fair')
    await page.keyboard.press('Enter')
    await until('fewer are found', async () => (await status(page)).includes('55 rows'))
    expect(address(page).getAll('not')).toEqual(['health=fair'])
  })

  it('by a regular expression, by whole words, by case, and for what does not match', async () => {
    const found = async (query: string): Promise<string> => {
      const page = await open(
        `?target=shop/web&since=6h&q=${encodeURIComponent(query.split('&')[0]!)}${query.slice(query.split('&')[0]!.length)}`,
      )
      return until(
        'the search has ended',
        async () => /([\d,]+) rows?\s+all of the range/.exec(await status(page))?.[1],
      )
    }
    expect(await found('^order 1?[0-3] &regex=true')).toBe('8')
    expect(await found('order 7&word=true')).toBe('1')
    expect(await found('ORDER&case=true')).toBe('0')
    expect(await found('order&invert=true&not=new')).toBe('0')
  })

  it('refuses a pattern that is none, in words', async () => {
    const page = await open('?target=shop/web&since=6h&q=(order&regex=true')
    await page
      .getByRole('alert')
      .filter({ hasText: /regex|pattern|unclosed|group/i })
      .waitFor()
  })

  it('reads earlier lines, page by page, to the first one', async () => {
    const page = await open('?target=shop/web&since=6h&not=new')
    await shows(page, `order ${HISTORY_LINES - 1} `)
    expect(await status(page)).toMatch(/1,000 rows\s+There are earlier ones/)
    await page.getByRole('button', { name: /earlier ones/ }).click()
    await until('the second page is there', async () => /(1,9\d\d|2,000) rows/.test(await status(page)))
    // Scrolling to the top asks, too.
    await page.keyboard.press('g')
    await until('all are there', async () => (await status(page)).includes('2,400 rows'))
    expect(await status(page)).toContain('all of the range')
    await page.keyboard.press('g')
    await shows(page, 'order 0 ')
  })

  it('narrows its range by a drag over the histogram, and back', async () => {
    const page = await open('?target=shop/web&since=3h')
    const plot = page.locator('.u-over')
    await plot.waitFor()
    const { x, y, width, height } = (await plot.boundingBox())!
    await page.mouse.move(x + width * 0.5, y + height / 2)
    await page.mouse.down()
    await page.mouse.move(x + width * 0.6, y + height / 2, { steps: 5 })
    await page.mouse.up()
    const since = await until(
      'the address holds the range',
      () => address(page).get('since')?.startsWith('20') && address(page).get('since')!,
    )
    const span = Date.parse(address(page).get('until')!) - Date.parse(since)
    expect(span).toBeGreaterThan(15 * MINUTE)
    expect(span).toBeLessThan(21 * MINUTE)
    await until('the lines are read', async () => /(3\d\d|4\d\d) rows\s+all of the range/.test(await status(page)))
    await page.goBack()
    expect(address(page).get('since')).toBe('3h')
  })

  it('counts by module, host and source in the histogram', async () => {
    const page = await open('?target=shop/*&since=3h')
    const legend = page.locator('.legend')
    await until('modules are told apart', async () => /shop\/web\s+shop\/api/.test(await legend.innerText()))
    await page.locator('.by select').selectOption('source')
    await until('sources are told apart', async () => /stdout\s+stderr/.test(await legend.innerText()))
    await page.locator('.by select').selectOption('host')
    await until('hosts are told apart', async () => /host-a\s+host-b/.test(await legend.innerText()))
    expect(address(page).get('by')).toBe('host')
  })
})

describe('a line', () => {
  it('opens with what stands around it, and a link to it opens the same anywhere', async () => {
    const page = await open('?target=shop/web&since=6h&q=order+1500')
    await row(page, 'order 1500 ').click()
    const panel = page.getByRole('complementary', { name: 'Line' })
    await panel.getByText('order 1488 ').waitFor()
    expect(await panel.locator('.hit').innerText()).toContain('order 1500 ')
    expect(await panel.innerText()).toContain('shop/web/')
    await panel.getByRole('button', { name: 'Earlier' }).click()
    await panel.getByText('order 1438 ').waitFor()
    await panel.getByRole('button', { name: 'Link' }).click()
    const link = (await page.evaluate('navigator.clipboard.readText()')) as string
    const other = await browser.open(link)
    const opened = other.getByRole('complementary', { name: 'Line' })
    await opened.getByText('order 1500 ').first().waitFor()
    expect(await opened.locator('.hit').innerText()).toContain('order 1500 ')
    await other.keyboard.press('Escape')
    await opened.waitFor({ state: 'detached' })
  })

  it('with an error is found from line to line, and beyond what is loaded', async () => {
    const page = await open('?target=shop/web&since=6h')
    await shows(page, `order ${HISTORY_LINES - 1} `)
    const current = (): Promise<string> => page.locator('.item[aria-current]').innerText()
    await page.keyboard.press('E')
    await until('the last error', async () => (await current()).includes('order 2100 failed'))
    await page.keyboard.press('E')
    await until('the one before', async () => (await current()).includes('order 1500 failed'))
    await page.keyboard.press('e')
    await until('and the later one again', async () => (await current()).includes('order 2100 failed'))
    await page.keyboard.press('E')
    await page.keyboard.press('E')
    const panel = page.getByRole('complementary', { name: 'Line' })
    await panel.locator('.hit').filter({ hasText: 'order 900 failed' }).waitFor()
  })

  it('that is JSON is told in short and unfolds as a tree; a trace is one row; colours are colours', async () => {
    const page = await open('?target=shop/api&since=6h')
    const json = row(page, 'slow order')
    await json.waitFor()
    expect(await json.innerText()).toContain('took_ms=812')
    await json.getByRole('button', { name: 'JSON' }).click()
    await json.getByRole('button', { name: /^items: \[/ }).click()
    await json.getByRole('button', { name: /^0: \{/ }).click()
    await json.getByText('"boot"', { exact: true }).waitFor()
    const trace = row(page, 'cart 4711')
    expect(await trace.innerText()).toContain('+3 lines')
    expect(await rows(page).count()).toBe(3)
    await trace.getByRole('button', { name: 'Stack trace, 3 more lines' }).click()
    await trace.getByText('Caused by: java.sql.SQLException').waitFor()
    expect(await page.locator('.fg-red.bold').innerText()).toBe('red and bold')
    expect(await row(page, 'and plain').innerText()).not.toContain('[0m')
  })

  it('is copied by a key, as the files have it', async () => {
    const page = await open('?target=shop/api&since=6h')
    await row(page, 'and plain').click()
    await page.keyboard.press('c')
    await says(page, 'Line copied')
    const copied = (await page.evaluate('navigator.clipboard.readText()')) as string
    expect(copied).toBe(`${new Date(end - MINUTE).toISOString()} api-1 red and bold and plain`)
  })
})

describe('what is filtered', () => {
  it('is downloaded whole, beyond what is loaded, as text or NDJSON', async () => {
    const page = await open('?target=shop/web&since=6h&q=health=ok')
    await until('a page is loaded', async () => (await status(page)).includes('1,000 rows'))
    const save = async (format: string): Promise<string[]> => {
      await page.keyboard.press('D')
      const [file] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('button', { name: format }).click(),
      ])
      return readFileSync(await file.path(), 'utf8')
        .trimEnd()
        .split('\n')
    }
    const text = await save('Text')
    expect(text).toHaveLength(HISTORY_LINES / 2 - 4)
    expect(text[0]).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z web-1 order 0 took 0 ms, health=ok$/)
    const ndjson = await save('NDJSON')
    expect(JSON.parse(ndjson.at(-1)!)).toMatchObject({
      service: 'shop',
      module: 'web',
      line: expect.stringContaining('order 2398 '),
    })
  })

  it('is held by the address: reloaded, the page is the same', async () => {
    const page = await open(
      '?target=shop/web&host=host-a&source=stdout&since=6h&q=order+1&case=true&word=true&not=fair&by=total',
    )
    await until('the search has ended', async () => (await status(page)).includes('all of the range'))
    const before = [page.url(), await rows(page).allInnerTexts()]
    await page.reload()
    await until('it has ended again', async () => (await status(page)).includes('all of the range'))
    expect([page.url(), await rows(page).allInnerTexts()]).toEqual(before)
    expect(await page.getByLabel('Search', { exact: true }).inputValue()).toBe('order 1')
    await page.keyboard.press('y')
    await says(page, /Link to the view/)
    const link = new URL((await page.evaluate('navigator.clipboard.readText()')) as string)
    expect(link.searchParams.get('since')).toMatch(/^20.*Z$/)
  })
})

describe('hostile lines', () => {
  it('neither break the page nor run in it', async () => {
    const huge = `huge ${'<b>x</b>'.repeat(33_000)}`
    await site.feed(HOSTILE, [
      { text: '<img src=x onerror="window.hit=1"><script>window.hit=1</script>' },
      {
        text: '{"msg":"<svg onload=window.hit=1>","__proto__":{"hit":1},"deep":'.concat(
          '['.repeat(3_000),
          ']'.repeat(3_000),
          '}',
        ),
      },
      { text: `title${ESC}]0;owned\x07 clear${ESC}[2J bell\x07 back\b\b` },
      { text: 'admin\u202Egnp.exe\u2066 zero\u200Bwidth' },
      { text: `zalgo ${'e\u0301\u0302\u0303\u0304\u0305\u0306\u0307'.repeat(20)}` },
      { text: '\u0000\u0001\u0002 nul' },
      { text: huge.slice(0, 256 * 1024) },
      { text: '   ' },
      { text: '' },
      { text: 'last of them' },
    ])
    await site.landed()
    const page = await open('?target=hostile/*&since=1h')
    await shows(page, 'last of them')
    expect(await rows(page).count()).toBe(10)
    expect(await page.evaluate('window.hit ?? Object.prototype.hit ?? "clean"')).toBe('clean')
    expect(await row(page, 'onerror').innerText()).toContain('<img src=x onerror="window.hit=1">')
    expect(await row(page, 'admin').locator('.hidden-char').allInnerTexts()).toEqual(['U+202E', 'U+2066', 'U+200B'])
    expect(await row(page, 'title').innerText()).toMatch(/title clear bell\s*BEL\s*back\s*BS\s*BS/)
    const heights = (await page.evaluate(
      '[...document.querySelectorAll(".item")].map((item) => item.offsetHeight)',
    )) as number[]
    expect(Math.max(...heights)).toBeLessThan(40)
    await row(page, 'huge').click()
    const panel = page.getByRole('complementary', { name: 'Line' })
    await until(
      'all of it is there',
      async () => (await panel.locator('.panel-text').innerText()).length === 256 * 1024,
    )
    await page.keyboard.press('w')
    await shows(page, 'last of them')
    await row(page, 'svg onload').getByRole('button', { name: 'JSON' }).click()
    await row(page, 'svg onload')
      .getByRole('button', { name: /^deep: \[/ })
      .waitFor()
    expect(await page.evaluate('window.hit ?? Object.prototype.hit ?? "clean"')).toBe('clean')
  })
})

describe('how it looks', () => {
  it('follows theme, density, zone and wrapping, each by a key, and keeps them', async () => {
    const page = await open('?target=shop/web&since=6h', { colorScheme: 'light' })
    await shows(page, `order ${HISTORY_LINES - 1} `)
    const look = async () => ({
      ground: await page.evaluate('getComputedStyle(document.body).backgroundColor'),
      height: (await rows(page).last().boundingBox())!.height,
      time: await rows(page).last().locator('.time').innerText(),
      wraps: await page.locator('.log.wraps').count(),
    })
    const before = await look()
    for (const key of ['t', 't', 'd', 'z', 'w']) await page.keyboard.press(key)
    await until('the time is told in UTC', async () => (await look()).time !== before.time)
    const after = await look()
    expect(after.ground).not.toBe(before.ground)
    expect(after.height).toBeLessThan(before.height)
    expect(after.wraps).toBe(1)
    expect(after.time).toContain(new Date((await last()).time).toISOString().slice(11, 23))
    await page.reload()
    await shows(page, 'order')
    expect(await look()).toEqual(after)

    async function last(): Promise<{ time: string }> {
      return { time: (await rows(page).last().locator('time').getAttribute('datetime'))! }
    }
  })

  it.each(['light', 'dark'] as const)('keeps nobody out: axe finds nothing serious in %s', async (colorScheme) => {
    const page = await open('', { colorScheme })
    await page.getByRole('row').filter({ hasText: 'billing/worker' }).first().waitFor()
    expect(await axe(page)).toEqual([])
    await page.goto(site.at('?target=shop/api&since=6h&q=o&not=fair'))
    await shows(page, 'cart 4711')
    await row(page, 'slow order').click()
    await page.getByRole('complementary', { name: 'Line' }).getByText('Around it').waitFor()
    await row(page, 'cart 4711').getByRole('button', { name: /Stack/ }).click()
    await page.locator('.range-button').click()
    expect(await axe(page)).toEqual([])
  })

  it('keeps nobody out of its dialogs either', async () => {
    const page = await open('?target=shop/api&since=6h')
    await shows(page, 'cart 4711')
    for (const key of ['?', 'p', 'D']) {
      await page.keyboard.press(key)
      await page.getByRole('dialog').waitFor()
      expect(await axe(page)).toEqual([])
      await page.keyboard.press('Escape')
      // The browser tells the page a moment later, and until then keys are the dialog's.
      await page.getByRole('dialog').waitFor({ state: 'detached' })
    }
    await page.getByRole('button', { name: 'How it looks' }).click()
    expect(await axe(page)).toEqual([])
  })

  it('is used by keys alone: picker, moving, opening, closing, and a list of them', async () => {
    const page = await open()
    await says(page, 'Lines counted')
    await page.keyboard.press('?')
    const help = page.getByRole('dialog', { name: 'Keys' })
    expect(await help.innerText()).toContain('Next error')
    await page.keyboard.press('Escape')
    await help.waitFor({ state: 'detached' })
    await page.keyboard.press('Control+k')
    await page.keyboard.type('shoapi')
    await page.getByRole('option', { name: 'shop/api' }).waitFor()
    await page.keyboard.press('Enter')
    await shows(page, 'and plain')
    await page.keyboard.press('k')
    await page.keyboard.press('k')
    await page.keyboard.press('Enter')
    const panel = page.getByRole('complementary', { name: 'Line' })
    await panel.locator('.hit').filter({ hasText: 'cart 4711' }).waitFor()
    await page.keyboard.press('j')
    await panel.locator('.hit').filter({ hasText: 'red and bold' }).waitFor()
    await page.keyboard.press('Escape')
    await panel.waitFor({ state: 'detached' })
    await page.keyboard.press('o')
    await says(page, 'Lines counted')
  })

  it('fits a telephone of 375 px', async () => {
    const page = await open('', { viewport: { width: 375, height: 720 }, hasTouch: true })
    await page.getByRole('row').filter({ hasText: 'billing/worker' }).first().waitFor()
    const wide = 'document.documentElement.scrollWidth'
    expect(await page.evaluate(wide)).toBe(375)
    await page.goto(site.at('?since=6h&target=shop/*'))
    await shows(page, `order ${HISTORY_LINES - 1} `)
    expect(await page.evaluate(wide)).toBe(375)
    await page.getByRole('button', { name: 'Services and hosts' }).tap()
    const drawer = page.getByRole('dialog', { name: 'What is read' })
    await drawer.getByText('worker').tap()
    await until('the address holds it', () => address(page).getAll('target').includes('billing/worker'))
    await drawer.getByRole('button', { name: 'Close' }).tap()
    await row(page, 'invoice 10').tap()
    const panel = page.getByRole('complementary', { name: 'Line' })
    await panel.getByText('Around it').waitFor()
    expect((await panel.boundingBox())!.width).toBe(375)
    expect(await page.evaluate(wide)).toBe(375)
    expect(await axe(page)).toEqual([])
  })
})

describe('where a token is needed', () => {
  it('asks for it, refuses a wrong one in words, shows what its bearer may read, and forgets it', async () => {
    using folder = temporaryFolder()
    const tokens = new TokensFile(folder.path, { guest: ['shop'] })
    const token = tokens.token('guest')
    await using second = await Consumer.create(
      {
        ...{ KAFKA_BROKERS: site.kafka.brokers.join(), KAFKA_TOPIC: site.topic, KAFKA_GROUP: 'second' },
        ...{ ROOT: folder.path, TOKENS_FILE: tokens.path },
      },
      join(folder.path, 'consumer.log'),
    )
    await second.start()
    const page = await browser.open(`${second.url}/?page=lines`)
    await page.getByLabel('Token').fill('wrong')
    await page.keyboard.press('Enter')
    await page.getByRole('alert').filter({ hasText: 'token' }).waitFor()
    expect(await axe(page)).toEqual([])
    await page.getByLabel('Token').fill(token)
    await page.keyboard.press('Enter')
    await shows(page, 'order')
    await page.getByRole('navigation', { name: 'What is read' }).getByText('shop').waitFor()
    expect(await page.getByRole('navigation', { name: 'What is read' }).innerText()).not.toContain('billing')
    expect(await page.evaluate('document.cookie')).toBe('')
    await page.getByRole('button', { name: 'Log out guest' }).click()
    await page.getByLabel('Token').waitFor()
    await page.reload()
    await page.getByLabel('Token').waitFor()
  })
})
