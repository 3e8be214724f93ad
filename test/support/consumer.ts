/** The consumer as a process of this host, from its source: it can be killed and started again on the same root. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repo } from './engine.ts'
import { freePorts } from './ports.ts'
import { until } from './until.ts'

const MAIN = join(repo, 'consumer/main.ts')
const SOURCE = [process.execPath, MAIN] as const

/** Flags of Node's that the image runs the consumer with: they bound its memory. */
export function imageFlags(): string[] {
  const [, entrypoint] = /^ENTRYPOINT (\[.*\])$/m.exec(readFileSync(join(repo, 'Dockerfile'), 'utf8')) ?? []
  if (entrypoint === undefined) throw new Error('the Dockerfile says no ENTRYPOINT')
  return (JSON.parse(entrypoint) as string[]).filter((word) => word.startsWith('--'))
}

/** The consumer from its source, with the flags of the image and more. */
export const sourceProgram = (...flags: string[]): [string, ...string[]] => [
  process.execPath,
  ...imageFlags(),
  ...flags,
  MAIN,
]

export class Consumer {
  /** Where it serves HTTP. */
  readonly url: string
  #settings: Record<string, string>
  #program: readonly [string, ...string[]]
  #log: string
  #process: ChildProcess | undefined

  /** @param log file that gets what it prints. @param program what is run, unless it is the source */
  static async create(
    settings: Record<string, string>,
    log: string,
    program: readonly [string, ...string[]] = SOURCE,
  ): Promise<Consumer> {
    const [port] = await freePorts(1)
    return new Consumer({ HTTP_ADDR: `127.0.0.1:${port}`, ...settings }, log, program)
  }

  private constructor(settings: Record<string, string>, log: string, program: readonly [string, ...string[]]) {
    this.#settings = settings
    this.#log = log
    this.#program = program
    this.url = `http://${settings['HTTP_ADDR']}`
  }

  get pid(): number {
    if (this.#process?.pid === undefined) throw new Error('the consumer does not run')
    return this.#process.pid
  }

  /** Whether it was started, and has not ended. */
  get running(): boolean {
    const { exitCode, signalCode } = this.#process ?? { exitCode: 0, signalCode: null }
    return exitCode === null && signalCode === null
  }

  /** What it printed last, for somebody who wonders why a test failed. */
  get lastWords(): string {
    return readFileSync(this.#log, 'utf8').split('\n').slice(-6).join('\n').trim()
  }

  /** Starts it, and waits until it says that it lands lines. @param changed settings that differ from now on */
  async start(changed: Record<string, string> = {}): Promise<void> {
    Object.assign(this.#settings, changed)
    const started = this.launch()
    await until(
      () => `the consumer is ready. It said:\n${this.lastWords}`,
      async () => {
        if (started.exitCode !== null) throw new Error(`it ended with ${started.exitCode}`)
        return (await fetch(`${this.url}/readyz`)).ok
      },
    )
  }

  /** Starts it, and waits for nothing. */
  launch(): ChildProcess {
    const log = openSync(this.#log, 'a')
    const [file, ...args] = this.#program
    const started = spawn(file, args, {
      cwd: repo,
      env: { PATH: process.env['PATH'], NODE_OPTIONS: '--disable-warning=TimeoutNegativeWarning', ...this.#settings },
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    this.#process = started
    return started
  }

  /** SIGKILL. Resolves once it is gone. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** SIGTERM. @returns its exit code */
  async stop(): Promise<number | null> {
    return this.#end('SIGTERM')
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const ending = this.#process
    this.#process = undefined
    if (!ending) return null
    if (ending.exitCode === null && ending.signalCode === null) {
      const gone = once(ending, 'exit')
      ending.kill(signal)
      await gone
    }
    return ending.exitCode
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}
