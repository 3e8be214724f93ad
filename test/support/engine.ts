/**
 * The Docker engine of this machine (or of DOCKER_HOST), and the order that tests keep in it.
 *
 * Invariants
 * - One house stands at a time: houses share a plugin, and two of them on one machine would measure each other.
 * - Whatever a test makes in the engine carries LABEL. What a killed run left is removed before a new house stands.
 */
import { execFile } from 'node:child_process'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import Docker from 'dockerode'
import { until } from './until.ts'

export const docker = new Docker()
export const repo = join(import.meta.dirname, '../..')
export const LABEL = 'tallyman.test'
export const BASE_IMAGE = 'debian:bookworm-slim'

const execute = promisify(execFile)

/** A command's stdout, trimmed. @throws Error with what it said on stderr */
export async function command(file: string, ...args: string[]): Promise<string> {
  const { stdout } = await execute(file, args, { cwd: repo, maxBuffer: 64 * 1024 * 1024 })
  return stdout.trim()
}

/** The first of the images that is here. @throws Error naming the make target that brings it */
export async function imageOf(...names: string[]): Promise<string> {
  for (const name of names) {
    const image = await docker
      .getImage(name)
      .inspect()
      .catch((error: { statusCode?: number }) => {
        if (error.statusCode === 404) return undefined
        throw new Error('no Docker engine answers; `make system` sees to one', { cause: error })
      })
    if (image) return name
  }
  throw new Error(`there is no image ${names.join(' or ')}; \`make images\` builds it`)
}

/** Keeps every other house out, until it is disposed of or this process ends. */
export async function lockEngine(): Promise<Disposable> {
  // An abstract socket: it goes with the process, however that ends.
  const lock = createServer()
  await until(
    'another run of the system tests or of the benchmark uses this machine; only one can at a time',
    () =>
      new Promise<true>((resolve, reject) => {
        lock.once('error', reject)
        lock.listen('\0tallyman-test-house', () => resolve(true))
      }).finally(() => lock.removeAllListeners('error')),
    150,
  )
  lock.unref()
  return { [Symbol.dispose]: () => void lock.close() }
}

type Kind = 'kafka' | 'generator'

/** The containers that tests made, or those of one kind. */
const containersOf = (kind?: Kind) =>
  docker.listContainers({ all: true, filters: { label: [kind === undefined ? LABEL : `${LABEL}=${kind}`] } })

export const hasContainers = async (kind: Kind): Promise<boolean> => (await containersOf(kind)).length > 0

/**
 * Removes every container that a test made, or those of one kind. A few at a time: of dozens at once dockerd 20.10 comes to a standstill
 * now and then, because libnetwork takes two locks in either order.
 */
export async function removeContainers(kind?: Kind): Promise<void> {
  const remove = async ({ Id }: { Id: string }) => {
    await removeContainer(Id)
  }
  await Readable.from(await containersOf(kind)).forEach(remove, { concurrency: 4 })
}

export async function removeContainer(id: string): Promise<void> {
  const container = docker.getContainer(id)
  try {
    await container.remove({ force: true, v: true })
  } catch (error) {
    const { statusCode } = error as { statusCode?: number }
    // Somebody else is at it, who may have died meanwhile; dockerd goes on.
    if (statusCode === 409) await container.wait({ condition: 'removed' })
    else if (statusCode !== 404) throw error
  }
}
