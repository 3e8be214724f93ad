/** A run that the test feeds by hand, in dockerd's place: what its FIFO gets, and when. */
import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { command } from './engine.ts'
import type { Plugin } from './plugin.ts'
import { until } from './until.ts'

/** Where the plugin sees its journal, and dockerd's FIFOs. */
export const JOURNAL = '/run/docker/logging'
/** What a run that is fed is called in the files. */
export const FED_NAME = 'by-hand'

/** A request to StartLogging, as dockerd words it. */
export const startRequest = (file: string, logOpts: Record<string, string>): string =>
  JSON.stringify({
    File: file,
    Info: {
      Config: logOpts,
      ContainerID: 'c0ffee'.repeat(10),
      ContainerName: `/${FED_NAME}`,
      ContainerImageName: 'image',
      ContainerEnv: null,
      ContainerLabels: null,
      DaemonName: 'docker',
    },
  })

/** Starts a run, feeds it and ends it as dockerd does. Resolves once the plugin has let go of the FIFO. */
export async function feedRun(plugin: Plugin, logOpts: Record<string, string>, frames: Uint8Array[]): Promise<void> {
  const name = `${FED_NAME}-${randomBytes(4).toString('hex')}`
  const fifo = join(plugin.journal, name)
  const file = `${JOURNAL}/${name}`
  await command('mkfifo', fifo)
  const writer = openSync(fifo, 'r+')
  const { body } = await plugin.post('LogDriver.StartLogging', startRequest(file, logOpts))
  if (body.Err !== '') throw new Error(`StartLogging is refused: ${body.Err}`)
  for (const bytes of frames) writeSync(writer, bytes)
  await plugin.post('LogDriver.StopLogging', JSON.stringify({ File: file }))
  closeSync(writer)
  await until('the FIFO is gone', () => !existsSync(fifo))
}
