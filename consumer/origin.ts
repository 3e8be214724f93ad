/** Whose lines a chunk holds, as landing needs to know it: worked out once for the chunks of a run, which nearly all say the same. */
import type { RunNames } from '../wire/chunk.ts'
import type { Names } from './index-log.ts'
import type { LineFormat } from './layout.ts'
import { folderOf } from './names.ts'

export type Origin = {
  /** The run's id in hex. */
  run: string
  names: Names
  /** The module's folder below the root. */
  folder: string
}

/** A run's id in hex. */
export const runId = (run: Uint8Array): string => Buffer.from(run.buffer, run.byteOffset, run.length).toString('hex')

/** @param format how its lines look in the file */
export const originOf = ({ run, service, module, host, container }: RunNames, format: LineFormat): Origin => ({
  run: runId(run),
  names: { service, module, host, container: container.name, format },
  folder: folderOf(service, module),
})
