/** The driver as a managed plugin in the machine's engine, under a name that is no user's. */

import { existsSync, readdirSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { readCheckpoint } from '../../driver/checkpoint.ts'
import { journalEnd, runFolder, runsFolder } from '../../driver/journal.ts'
import { command, docker, LABEL, repo } from './engine.ts'
import { ageSeconds, pidOfTask } from './process-table.ts'
import { until } from './until.ts'

/** What the plugin answered, and with which status. */
export type Answer = { status: number; body: { Err?: string } & Record<string, unknown> }

export class Plugin {
  /** What `--log-driver` takes. */
  readonly name: string
  readonly id: string
  /** Where the plugin's /run/docker/logging lies on this host. */
  readonly journal: string
  readonly socket: string

  private constructor(name: string, id: string, root: string) {
    this.name = name
    this.id = id
    this.journal = join(root, 'plugins', id, 'propagated-mount')
    this.socket = `/run/docker/plugins/${id}/tallyman.sock`
  }

  /**
   * The plugin of this name, of the newest build, with these settings and an empty journal, enabled. It is created once
   * and set anew for each house, by the same script that users run.
   */
  static async start(name: string, settings: Record<string, string>): Promise<Plugin> {
    const old = await Plugin.find(name)
    if (old) {
      await old.disable()
      rmSync(old.journal, { recursive: true, force: true })
    }
    await command('setup/plugin.sh', name, ...Object.entries(settings).map(([key, value]) => `${key}=${value}`))
    const plugin = await Plugin.find(name)
    if (!plugin) throw new Error(`setup/plugin.sh made no plugin ${name}`)
    return plugin
  }

  static async find(name: string): Promise<Plugin | undefined> {
    const found = (await docker.listPlugins()).find((plugin) => plugin.Name === name)
    return found?.Id === undefined ? undefined : new Plugin(name, found.Id, (await docker.info()).DockerRootDir)
  }

  /** The driver's process on this host. */
  get pid(): number {
    const pid = pidOfTask(this.id)
    if (pid === undefined) throw new Error(`the plugin ${this.name} does not run`)
    return pid
  }

  /** SIGKILL. dockerd starts the plugin again at once. */
  kill(): void {
    process.kill(this.pid, 'SIGKILL')
  }

  /**
   * Waits until dockerd would notice that the plugin dies. It dials one that it restarted after 0.5 s; where that does not answer by
   * then, as on a busy machine, dockerd sleeps for 3 s and sees no crash meanwhile, and gives it up in the end.
   */
  async supervised(): Promise<void> {
    await until('dockerd looks after the plugin', () => ageSeconds(this.pid) > 4)
  }

  /** Kills the plugin once dockerd would notice, and waits until it answers again. */
  async killed(): Promise<void> {
    await this.supervised()
    this.kill()
    await this.answers()
  }

  /** Waits until the driver answers. */
  async answers(): Promise<void> {
    await until(
      `the plugin ${this.name} answers`,
      async () => (await this.post('Plugin.Activate', '{}')).status === 200,
    )
  }

  async disable(): Promise<void> {
    const { Enabled } = await docker.getPlugin(this.name, undefined).inspect()
    // Not by dockerode: its disable() leaves the query out of the path, and with it `force`.
    if (Enabled) await command('docker', 'plugin', 'disable', '--force', this.name)
  }

  async enable(): Promise<void> {
    await docker.getPlugin(this.name, undefined).enable({ timeout: 0 })
  }

  /** `docker plugin set`, of a plugin that is disabled. */
  async set(settings: Record<string, string>): Promise<void> {
    const pairs = Object.entries(settings).map(([key, value]) => `${key}=${value}`)
    await command('docker', 'plugin', 'set', this.name, ...pairs)
  }

  /** `docker plugin upgrade` to a build that differs in nothing but its name, by the script that users run. */
  async upgrade(build: string): Promise<void> {
    const image = `tallyman-test-plugin-rootfs:${build}`
    const label = `${LABEL}.build=${build}`
    await command(
      'docker',
      'build',
      '--quiet',
      '--label',
      label,
      '--tag',
      image,
      join(repo, 'test/support/plugin-build'),
    )
    try {
      await command('env', `PLUGIN_IMAGE=${image}`, 'setup/plugin.sh', this.name)
    } finally {
      await command('docker', 'image', 'rm', image)
    }
  }

  /** The build that the plugin says it is of. */
  async build(): Promise<string> {
    return (await docker.getPlugin(this.name, undefined).inspect()).Config.Description
  }

  /** Asks as dockerd does: POST, no Content-Type. */
  post(endpoint: string, body: string | Buffer): Promise<Answer> {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    const asking = request(
      { socketPath: this.socket, path: `/${endpoint}`, method: 'POST', timeout: 10_000 },
      (answer) => {
        const parts: Buffer[] = []
        answer.on('data', (part: Buffer) => parts.push(part))
        answer.on('error', reject)
        answer.on('end', () => {
          try {
            resolve({ status: answer.statusCode ?? 0, body: JSON.parse(Buffer.concat(parts).toString()) })
          } catch (error) {
            reject(error)
          }
        })
      },
    )
    asking.on('timeout', () => asking.destroy(new Error(`${endpoint} was not answered within 10 s`)))
    asking.on('error', reject)
    asking.end(body)
    return promise
  }

  /** Whether all that the journal holds is acknowledged by Kafka. */
  get shipped(): boolean {
    if (!existsSync(runsFolder(this.journal))) return true
    return readdirSync(runsFolder(this.journal), { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'))
      .every(({ name }) => {
        const folder = runFolder(this.journal, name)
        try {
          return (readCheckpoint(folder)?.offset ?? 0) >= journalEnd(folder)
        } catch {
          return !existsSync(folder)
        }
      })
  }

  /** Leaves the plugin there for the next house, but not running. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.disable()
  }
}
