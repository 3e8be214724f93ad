/** The driver as a process of a test's own, without dockerd: the test asks on its socket, and makes and fills the FIFOs. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, existsSync, openSync, writeSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { until } from './until.ts'

const MAIN = new URL('../../driver/main.ts', import.meta.url).pathname
/** Nobody listens there. */
export const NO_KAFKA = '127.0.0.1:1'

/** A row of the driver's log. */
export type LogRow = { level: number; code?: string; msg: string; [key: string]: unknown }

export class DriverProcess {
  readonly log: LogRow[] = []
  #child: ChildProcess
  #socket: string

  private constructor(child: ChildProcess, socket: string) {
    this.#child = child
    this.#socket = socket
    let rest = ''
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()!
      this.log.push(...lines.map((line) => JSON.parse(line) as LogRow))
    })
  }

  /** Resolves once the driver is up. Rejects when it ends before that. */
  static async start(journal: string, env: Record<string, string> = {}): Promise<DriverProcess> {
    // The socket of a plugin is elsewhere as well.
    const socket = `${journal}.sock`
    const child = spawn(process.execPath, [MAIN, '--journal', journal, '--socket', socket], {
      env: { PATH: process.env['PATH'], KAFKA_BROKERS: NO_KAFKA, METRICS_ADDR: 'off', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let said = ''
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    const driver = new DriverProcess(child, socket)
    await until('the driver is up', () => driver.ended || driver.log.some(({ msg }) => msg.endsWith('is up')))
    if (driver.ended) throw new Error(`the driver ended with ${child.exitCode}: ${said}`)
    return driver
  }

  /** What dockerd asks. @returns what `Err` says */
  async post(endpoint: string, body: object): Promise<string> {
    const asking = request({ socketPath: this.#socket, path: `/${endpoint}`, method: 'POST', timeout: 10_000 })
    asking.on('timeout', () => asking.destroy(new Error(`${endpoint} was not answered within 10 s`)))
    asking.end(JSON.stringify(body))
    const [answer] = await once(asking, 'response')
    const parts: Buffer[] = []
    for await (const part of answer) parts.push(part)
    return JSON.parse(Buffer.concat(parts).toString()).Err
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  async kill(): Promise<void> {
    if (this.ended) return
    this.#child.kill('SIGKILL')
    await once(this.#child, 'exit')
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.kill()
  }
}

/** A container's pipe as dockerd makes and holds it. */
export class Pipe {
  readonly file: string
  #writer: number

  constructor(folder: string, name: string) {
    this.file = join(folder, name)
    if (!existsSync(this.file)) Pipe.make([this.file])
    this.#writer = openSync(this.file, constants.O_RDWR | constants.O_NONBLOCK)
  }

  static make(files: string[]): void {
    execFileSync('mkfifo', files)
  }

  /** Writes as far as the pipe takes it at once. @returns bytes that it took */
  write(bytes: Uint8Array): number {
    try {
      return writeSync(this.#writer, bytes)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      return 0
    }
  }

  /** Writes all of it. Rejects when nobody reads. */
  async feed(bytes: Uint8Array): Promise<void> {
    let at = 0
    await until(
      () => `the pipe takes ${bytes.length} bytes; it took ${at}`,
      () => {
        at += this.write(bytes.subarray(at))
        return at === bytes.length
      },
      20,
    )
  }

  close(): void {
    closeSync(this.#writer)
  }
}
