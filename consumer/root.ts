/**
 * The root: the folder that holds the files, and in `.tallyman` what we know about them.
 *
 * One daemon a root: two would write each other's files. The lock is the kernel's and goes with the process; the
 * root's UUID names it as owner of what it claims from Kafka, wherever it is mounted.
 */
import { randomUUID } from 'node:crypto'
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { replaceFile, syncFolder } from '../wire/durable.ts'
import { lockFile } from '../wire/lock.ts'
import { ConsumerError } from './errors.ts'

export type Root = {
  /** The folder of the files. */
  path: string
  /** The folder of our own state, below it. */
  state: string
  uuid: string
}

/**
 * Takes the root for this process, and makes it where it is not there yet.
 * @throws ConsumerError when it can't be used, or another daemon holds it
 */
export function openRoot(path: string): Root {
  const state = join(path, '.tallyman')
  try {
    mkdirSync(state, { recursive: true })
    // A name that is lost with the power takes all that is below it along, files of the same moment not.
    syncFolder(path)
    lock(path, join(state, 'lock'))
    return { path, state, uuid: readUuid(join(state, 'uuid')) }
  } catch (error) {
    if (error instanceof ConsumerError) throw error
    throw new ConsumerError('ROOT_REFUSED', `ROOT=${path} can't be used: ${(error as Error).message}`)
  }
}

function lock(root: string, path: string): void {
  const holder = lockFile(path)
  if (holder !== undefined) {
    throw new ConsumerError(
      'ROOT_HELD',
      `ROOT=${root} is held by the consumer with process id ${holder}; stop that one, or give this one a ROOT of its own`,
    )
  }
}

function readUuid(path: string): string {
  try {
    return z.uuid({ error: `${path} holds no UUID` }).parse(readFileSync(path, 'utf8').trim())
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const uuid = randomUUID()
  replaceFile(path, Buffer.from(`${uuid}\n`), true)
  return uuid
}

const PROBE_BYTES = 64 * 1024

/**
 * Writes so much durable to the root's disk, and at least PROBE_BYTES, and removes it. Where there is a quota a disk takes little, and refuses
 * what it was given before.
 * @throws Error of the file system where that does not take it
 */
export function probe({ state }: Pick<Root, 'state'>, bytes = 0): void {
  const path = join(state, 'probe')
  const fd = openSync(path, 'w')
  try {
    const block = Buffer.alloc(PROBE_BYTES, 1)
    for (let written = 0; written < Math.max(bytes, PROBE_BYTES); ) written += writeSync(fd, block)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
    rmSync(path, { force: true })
  }
}
