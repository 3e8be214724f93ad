/**
 * A Docker engine of a test's own, which it may stop and kill: data, sockets, bridge and containerd's namespaces apart from those
 * of the machine's engine, live-restore on. Runs as root, beside whatever engine there is.
 *
 * The bridge is one that the machine's engine makes for a network. Told to have none, dockerd removes docker0, whosever it is.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import Docker from 'dockerode'
import { command, docker, LABEL } from './engine.ts'
import { until } from './until.ts'

const NETWORK = 'tallyman-test'
const BRIDGE = 'tallyman-test0'

export class Dockerd {
  /** What DOCKER_HOST says of it. */
  readonly host: string
  readonly docker: Docker
  #folder: string
  #process: ChildProcess | undefined

  private constructor(folder: string) {
    this.#folder = folder
    this.host = `unix://${join(folder, 'docker.sock')}`
    this.docker = new Docker({ socketPath: join(folder, 'docker.sock') })
  }

  /** @param folder of its own; kept short, because sockets lie below it. @param images of the machine's engine that it gets */
  static async start(folder: string, images: readonly string[]): Promise<Dockerd> {
    mkdirSync(folder, { recursive: true })
    await removeNetwork()
    const bridge = `com.docker.network.bridge.name=${BRIDGE}`
    await command('docker', 'network', 'create', '--label', LABEL, '--opt', bridge, NETWORK)
    const dockerd = new Dockerd(folder)
    await dockerd.start()
    await command('sh', '-c', `docker save ${images.join(' ')} | docker --host ${dockerd.host} load`)
    return dockerd
  }

  /** Starts it on what an earlier one left, and waits until it answers. */
  async start(): Promise<void> {
    const log = openSync(join(this.#folder, 'log'), 'a')
    const name = `tm-${process.pid}`
    this.#process = spawn(
      'dockerd',
      [
        ...['--host', this.host, '--pidfile', join(this.#folder, 'pid')],
        ...['--data-root', join(this.#folder, 'data'), '--exec-root', join(this.#folder, 'exec')],
        ...['--containerd-namespace', name, '--containerd-plugins-namespace', `${name}-plugins`],
        ...['--bridge', BRIDGE, '--iptables=false', '--live-restore'],
      ],
      { stdio: ['ignore', log, log] },
    )
    closeSync(log)
    await until(
      () => `the engine answers. It said: ${readFileSync(join(this.#folder, 'log'), 'utf8').slice(-500)}`,
      async () => (await this.docker.ping()) && true,
    )
  }

  /**
   * Its containers live on, whichever signal it is; its containerd goes with it. Resolves once both are gone: an engine that
   * starts while the old containerd still dies takes that for a running one, and waits for it in vain.
   */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const ending = this.#process
    this.#process = undefined
    if (!ending || ending.exitCode !== null || ending.signalCode !== null) return
    const gone = once(ending, 'exit')
    const containerd = Number(readFileSync(join(this.#folder, 'exec/containerd/containerd.pid'), 'utf8'))
    ending.kill(signal)
    await gone
    await until('its containerd is gone', () => !alive(containerd, signal === 'SIGKILL' ? signal : 0))
  }

  /** Runs `docker`, or a script that does, against it. */
  command(...words: string[]): Promise<string> {
    return command('env', `DOCKER_HOST=${this.host}`, ...words)
  }

  /** Removes its containers and plugins, ends it, and takes its folder away. */
  async [Symbol.asyncDispose](): Promise<void> {
    const all = await this.docker.listContainers({ all: true }).catch(() => [])
    await Promise.all(all.map(({ Id }) => this.docker.getContainer(Id).remove({ force: true })))
    for (const { Name } of await this.docker.listPlugins().catch(() => []))
      await this.command('docker', 'plugin', 'rm', '--force', Name)
    await this.end('SIGTERM')
    // What runs of containers that could not be removed: shims name the folder. pkill fails where there is nothing to kill.
    await command('pkill', '-KILL', '--full', `${this.#folder}/exec`).catch(() => {})
    await command('sh', '-c', `grep -o ' ${this.#folder}/[^ ]*' /proc/mounts | sort -r | xargs -r umount -l`)
    rmSync(this.#folder, { recursive: true, force: true })
    await removeNetwork()
  }
}

async function removeNetwork(): Promise<void> {
  const [network] = (await docker.listNetworks()).filter(({ Name }) => Name === NETWORK)
  if (network) await docker.getNetwork(network.Id).remove()
}

/** Whether there is such a process, after it was sent `signal`. */
function alive(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal)
    return true
  } catch {
    return false
  }
}
