/**
 * Room on the root's disk: writing pauses before the disk is full, while the checkpoint still has room to say what is written.
 *
 * Once it has paused it goes on only when there is a little more than that, so that it does not start and stop with each file
 * that comes and goes.
 */
import { statfsSync } from 'node:fs'
import { ConsumerError } from './errors.ts'

const GIB = 1024 ** 3
const DEFAULT_SHARE = 0.05
const RESUME_SHARE = 1.05

export type Space = { free: number; size: number }

/** Of the disk that holds `path`, for somebody who is not root. */
export function spaceOf(path: string): Space {
  const { bsize, bavail, blocks } = statfsSync(path)
  return { free: bsize * bavail, size: bsize * blocks }
}

export class DiskSpace {
  #root: string
  #minFree: number | undefined
  #look: (path: string) => Space
  #paused = false

  /** @param minFree the bytes that stay free; where undefined 5 % of the disk, at least 1 GiB */
  constructor(root: string, minFree: number | undefined, look = spaceOf) {
    this.#root = root
    this.#minFree = minFree
    this.#look = look
  }

  /** Whether nothing more is written, as of the last `admit`. */
  get paused(): boolean {
    return this.#paused
  }

  get now(): Space {
    return this.#look(this.#root)
  }

  /** @throws ConsumerError while too little is free, or what the file system says when it is asked */
  admit(): void {
    const { free, size } = this.now
    const least = this.#minFree ?? Math.max(GIB, DEFAULT_SHARE * size)
    this.#paused = free < (this.#paused ? RESUME_SHARE * least : least)
    if (!this.#paused) return
    throw new ConsumerError(
      'DISK_NEARLY_FULL',
      `the disk of ${this.#root} has ${Math.floor(free)} bytes free, and MIN_FREE keeps ${Math.ceil(least)}: nothing more is written until there is room. Nothing is lost, Kafka holds it. Make room, or set KEEP_DAYS, KEEP_BYTES or MIN_FREE lower`,
    )
  }
}
