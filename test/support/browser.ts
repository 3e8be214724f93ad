/**
 * Chromium, headless, and pages in it that are looked after: what a page should never do is written down for the test to find.
 */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { type BrowserContextOptions, type Browser as Chromium, chromium, type Page } from 'playwright-core'

const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
/** As root there is no sandbox; and nothing that a browser does by itself on a network. */
const FLAGS = [
  ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync'],
  ...['--disable-background-networking', '--disable-component-update'],
]
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js')

export type Opened = Page & {
  /** Errors, refusals of the page's policy, and requests to elsewhere. */
  readonly wrongs: string[]
}

/** Times are in µs. */
type TraceEvent = { name: string; pid: number; tid: number; tdur?: number; args?: { name?: string } }

export type OpenOptions = BrowserContextOptions & {
  /** Run in the page before its own scripts. */
  before?: string
}

export class Browser implements AsyncDisposable {
  #chromium: Chromium
  #opened: Opened[] = []

  /** @throws Error naming the make target that brings a browser */
  static async start(): Promise<Browser> {
    const executablePath = process.env['CHROMIUM'] ?? PATHS.find(existsSync)
    if (executablePath === undefined) throw new Error('there is no Chromium; `make system` installs it')
    return new Browser(await chromium.launch({ executablePath, args: FLAGS }))
  }

  private constructor(of: Chromium) {
    this.#chromium = of
  }

  /** Opens an address in a profile of its own. */
  async open(url: string, { before, ...options }: OpenOptions = {}): Promise<Opened> {
    const context = await this.#chromium.newContext({
      viewport: { width: 1280, height: 800 },
      timezoneId: 'Europe/Berlin',
      permissions: ['clipboard-read', 'clipboard-write'],
      ...options,
    })
    const wrongs: string[] = []
    const page: Opened = Object.assign(await context.newPage(), { wrongs })
    this.#opened.push(page)
    page.on('pageerror', (error) => wrongs.push(`error: ${error.message}`))
    page.on('console', (message) => {
      // That a server refuses or is away is told there, too; the page is tested on what it makes of it.
      if (message.type() === 'error' && !message.text().startsWith('Failed to load resource'))
        wrongs.push(`console: ${message.text()}`)
    })
    const { origin } = new URL(url)
    page.on('request', (request) => {
      if (!request.url().startsWith(origin) && !request.url().startsWith('blob:'))
        wrongs.push(`elsewhere: ${request.url()}`)
    })
    if (before !== undefined) await page.addInitScript(before)
    await page.goto(url)
    return page
  }

  /**
   * The longest task of pages' main threads while something goes on, ms of the processor: what other programs of this machine do
   * meanwhile is not the page's doing.
   */
  async longestTask(page: Page, during: () => Promise<void>): Promise<number> {
    await this.#chromium.startTracing(page, { categories: ['toplevel', 'disabled-by-default-devtools.timeline'] })
    await during()
    const { traceEvents } = JSON.parse(String(await this.#chromium.stopTracing())) as { traceEvents: TraceEvent[] }
    const main = new Set(
      traceEvents.filter(({ args }) => args?.name === 'CrRendererMain').map(({ pid, tid }) => `${pid} ${tid}`),
    )
    const tasks = traceEvents.filter(
      ({ name, pid, tid, tdur }) => name.endsWith('RunTask') && tdur && main.has(`${pid} ${tid}`),
    )
    if (tasks.length < 100) throw new Error(`the trace holds ${tasks.length} tasks`)
    return Math.max(...tasks.map(({ tdur }) => tdur!)) / 1_000
  }

  /** What pages did that they never should, since it was asked last; closes them all. */
  async close(): Promise<string[]> {
    const opened = this.#opened.splice(0)
    await Promise.all(opened.map((page) => page.context().close()))
    return opened.flatMap(({ wrongs }) => wrongs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#chromium.close()
  }
}

/** What axe finds that keeps somebody out: rule, and where. */
export async function axe(page: Page): Promise<string[]> {
  // By the protocol and not as a script of the page, whose policy does not allow it.
  await page.evaluate(`(() => { const module = undefined, define = undefined; ${readFileSync(AXE, 'utf8')} })()`)
  type Violation = { id: string; impact: string; nodes: { target: string[]; failureSummary: string }[] }
  const { violations } = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as {
    violations: Violation[]
  }
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .flatMap(({ id, nodes }) =>
      nodes.map(({ target, failureSummary }) => `${id}: ${target.join(' ')}: ${failureSummary}`),
    )
}
