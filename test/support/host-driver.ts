/**
 * The driver as a process of this host, from its source, with a clock that the test may set: dockerd takes it for a plugin that nobody
 * manages, by the name of its socket. Containers, FIFOs, journal and Kafka are real; of the clock it is the process's own that is
 * wrong, because dockerd asks the kernel and nobody else.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { command, repo } from './engine.ts'
import { until } from './until.ts'

/** Where dockerd makes the FIFOs of such a plugin, and where it looks for its socket. */
const JOURNAL = '/run/docker/logging'
const SOCKETS = '/run/docker/plugins'

export class HostDriver {
  /** What `--log-driver` takes. */
  readonly name: string
  #folder: string
  #process: ChildProcess

  private constructor(name: string, folder: string, process: ChildProcess) {
    this.name = name
    this.#folder = folder
    this.#process = process
  }

  /** @param folder of its own, gets its log. @param offset of its clock, ms */
  static async start(
    name: string,
    folder: string,
    settings: Record<string, string>,
    offset: number,
  ): Promise<HostDriver> {
    mkdirSync(folder)
    mkdirSync(SOCKETS, { recursive: true })
    const socket = join(SOCKETS, `${name}.sock`)
    const log = openSync(join(folder, 'log'), 'a')
    const clock = join(folder, 'clock')
    writeFileSync(clock, String(offset))
    const started = spawn(
      process.execPath,
      [
        ...['--import', join(repo, 'test/support/wrong-clock.ts')],
        ...[join(repo, 'driver/main.ts'), '--socket', socket, '--journal', JOURNAL],
      ],
      { env: { ...settings, CLOCK_OFFSET_FILE: clock }, stdio: ['ignore', log, log] },
    )
    closeSync(log)
    const driver = new HostDriver(name, folder, started)
    await until(
      () => `the driver says that it is up. It said: ${driver.log}`,
      () => driver.log.includes('driver is up') && existsSync(socket),
    )
    return driver
  }

  /** What it printed. */
  get log(): string {
    return readFileSync(join(this.#folder, 'log'), 'utf8')
  }

  /** Its clock is off by so many ms from the next look on. */
  setClock(offset: number): void {
    writeFileSync(join(this.#folder, 'clock'), String(offset))
  }

  /** Ends it in good order, and takes away what it left. No container of it may run any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const gone = once(this.#process, 'exit')
      this.#process.kill('SIGTERM')
      await gone
    }
    rmSync(join(SOCKETS, `${this.name}.sock`), { force: true })
    await command('rm', '-rf', ...['runs', 'set-aside', 'reserve', 'driver.lock'].map((name) => join(JOURNAL, name)))
  }
}
