/** The command `tallyman` as people run it: over pipes, or at a terminal, which is a real pty of script(1). */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { bundle } from '../../setup/bundle.ts'
import { repo } from './engine.ts'
import { until } from './until.ts'

/** From its source, unless a test says which. */
const SOURCE: readonly string[] = [process.execPath, join(repo, 'cli/main.ts')]

/** Bundled into a folder: it starts in half the time, which counts where a test starts it often. @returns how it is started */
export async function bundled(folder: string): Promise<readonly string[]> {
  await bundle('cli', join(folder, 'cli'))
  return [process.execPath, join(folder, 'cli/main.js')]
}

export type Ran = { code: number; stdout: string; stderr: string }

export type CommandOptions = {
  /** Where the consumers are. */
  url: string
  env?: Record<string, string>
  program?: readonly string[]
}

/** No variable of whoever runs the tests, nor their configuration, has a part in it. */
const environment = ({ url, env }: CommandOptions): Record<string, string> => ({
  ...{ PATH: process.env['PATH'] ?? '', HOME: '/nonexistent', TZ: 'UTC', TERM: 'xterm-256color' },
  TALLYMAN_URL: url,
  ...env,
})

/** The command while it runs. */
export class Tallyman {
  /** What it printed; at a terminal, what the terminal got of both. */
  stdout = ''
  stderr = ''
  readonly process: ChildProcess
  #ended: Promise<number>

  /** Over pipes. */
  static start(options: CommandOptions, ...args: string[]): Tallyman {
    const [file, ...before] = options.program ?? SOURCE
    return new Tallyman(spawn(file!, [...before, ...args], { cwd: repo, env: environment(options) }))
  }

  /** At a terminal of 120 by 40. */
  static atTerminal(options: CommandOptions, ...args: string[]): Tallyman {
    const quoted = [...(options.program ?? SOURCE), ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`)
    const command = `stty cols 120 rows 40; exec ${quoted.join(' ')}`
    return new Tallyman(
      spawn('script', ['--quiet', '--flush', '--return', '--command', command, '/dev/null'], {
        ...{ cwd: repo, env: { ...environment(options), SHELL: '/bin/sh' } },
      }),
    )
  }

  private constructor(process: ChildProcess) {
    this.process = process
    process.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
    })
    process.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    this.#ended = once(process, 'close').then(([code, signal]) => code ?? signal)
  }

  /** Types. */
  type(keys: string): void {
    this.process.stdin!.write(keys)
  }

  /** Resolves once it has printed so. */
  async prints(pattern: RegExp | string): Promise<void> {
    await until(
      () => `${pattern} is printed, after:\n${this.stdout.slice(-2000)}\n${this.stderr.slice(-2000)}`,
      () => (typeof pattern === 'string' ? this.stdout.includes(pattern) : pattern.test(this.stdout)),
    )
  }

  /** Resolves once it says so on stderr. */
  async says(pattern: RegExp): Promise<void> {
    await until(
      () => `${pattern} is said, after:\n${this.stderr}`,
      () => pattern.test(this.stderr),
    )
  }

  /** Resolves once it has ended. */
  async ended(): Promise<Ran> {
    const code = await this.#ended
    return { code, stdout: this.stdout, stderr: this.stderr }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill('SIGKILL')
    await this.#ended
  }
}

/** Runs the command over pipes to its end. */
export const tallyman = (options: CommandOptions, ...args: string[]): Promise<Ran> =>
  Tallyman.start(options, ...args).ended()
