/** dockerd itself is restarted and killed, in an engine of the test's own, while a container writes. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { paced } from '../support/container.ts'
import { Dockerd } from '../support/dockerd.ts'
import { BASE_IMAGE } from '../support/engine.ts'
import { type House, startHouse } from '../support/house.ts'
import { dayFiles, sizeOf } from '../support/oracle.ts'
import { numberedLines } from '../support/printed.ts'
import { until } from '../support/until.ts'

const PLUGIN = 'tallyman:test'
const LINES = 60_000
/**
 * What dockerd has read of a container and not yet handed on is in its memory alone, and gone with it: of its BytesPipe, the buffer it
 * fills that from, and its copier's, at most (moby, pkg/ioutils/bytespipe.go, daemon/logger/copier.go).
 */
const IN_DOCKERD = Math.ceil((1e6 + (32 + 16) * 1024) / 106)

let house: House
let dockerd: Dockerd
beforeAll(async () => {
  house = await startHouse('dockerd')
  dockerd = await Dockerd.start(`/tmp/tmd-${process.pid}`, [BASE_IMAGE, 'tallyman-plugin-rootfs'])
  const settings = [`KAFKA_BROKERS=${house.kafka.brokers.join()}`, `KAFKA_TOPIC=${house.topic}`, 'METRICS_ADDR=off']
  await dockerd.command('setup/plugin.sh', PLUGIN, ...settings)
})
afterAll(async () => {
  await dockerd?.[Symbol.asyncDispose]()
  await house?.[Symbol.asyncDispose]()
})

/** A container that writes for some seconds. @returns its id, and the folder of its lines */
async function writing(module: string): Promise<{ id: string; folder: string }> {
  const input = join(house.folder, 'in', module)
  mkdirSync(input, { recursive: true })
  writeFileSync(join(input, 'stdout'), numberedLines(LINES, 105))
  writeFileSync(join(input, 'stderr'), '')
  const container = await dockerd.docker.createContainer({
    name: module,
    Image: BASE_IMAGE,
    Cmd: paced(8_000),
    HostConfig: {
      NetworkMode: 'none',
      Binds: [`${input}:/in:ro`],
      LogConfig: { Type: PLUGIN, Config: { service: house.id, module } },
    },
  })
  await container.start()
  const folder = join(house.root, house.id, module)
  await until('a part of its lines has landed', () => sizeOf(folder) > 1_000_000)
  return { id: container.id, folder }
}

const numbers = (folder: string): number[] =>
  dayFiles(folder).flatMap((file) =>
    [...readFileSync(file, 'latin1').matchAll(/ line (\d+) \.+$/gm)].map(([, number]) => Number(number)),
  )

async function lastLineLands(folder: string): Promise<number[]> {
  await until(
    () => `the last line lands; ${numbers(folder).length} lines have`,
    () => numbers(folder).at(-1) === LINES,
  )
  return numbers(folder)
}

it.each([
  ['restarted with live-restore', 'SIGTERM'],
  ['killed', 'SIGKILL'],
] as const)(
  '%s: the container runs on, and but for what dockerd had in its own memory every line lands, once and in order',
  async (does, signal) => {
    const { id, folder } = await writing(does.split(' ')[0]!)
    const { StartedAt } = (await dockerd.docker.getContainer(id).inspect()).State
    await dockerd.end(signal)
    await dockerd.start()
    const landed = await lastLineLands(folder)
    const gaps = landed.map((number, i) => number - (landed[i - 1] ?? 0) - 1).filter((missing) => missing !== 0)
    expect(gaps.length).toBeLessThanOrEqual(1)
    expect(gaps[0] ?? 0).toBeGreaterThanOrEqual(0)
    expect(gaps[0] ?? 0).toBeLessThanOrEqual(IN_DOCKERD)
    const container = dockerd.docker.getContainer(id)
    expect((await container.inspect()).State.StartedAt).toBe(StartedAt)
    expect((await container.wait()).StatusCode).toBe(0)
  },
)
