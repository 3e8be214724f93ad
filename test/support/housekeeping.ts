/** Housekeeping in a root without Kafka, that can be killed at any step. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import pino from 'pino'
import { Calendar } from '../../consumer/calendar.ts'
import { compress } from '../../consumer/compress.ts'
import { Compression } from '../../consumer/compression.ts'
import { Days } from '../../consumer/days.ts'
import { type Disk, disk } from '../../consumer/disk.ts'
import { Manifests } from '../../consumer/manifests.ts'
import { Retention } from '../../consumer/retention.ts'
import type { Subscriber } from '../../consumer/subscriber.ts'
import { type Clock, realClock } from '../../wire/clock.ts'
import { Life } from './landing.ts'

export class Killed extends Error {}

/** What is done until somebody is killed: so many steps, and nothing after them. */
export class Steps {
  left: number
  taken: string[] = []

  constructor(left = Number.POSITIVE_INFINITY) {
    this.left = left
  }

  /** Takes a step, or throws because nobody is there to take it. */
  take(name: string): void {
    if (this.left <= 0) throw new Killed(name)
    this.left--
    this.taken.push(name)
  }

  /** `target`, each of whose calls is a step. */
  of<T extends object>(target: T): T {
    return new Proxy(target, {
      get: (of, name) => {
        const value = Reflect.get(of, name, of)
        if (typeof value !== 'function') return value
        return (...args: unknown[]) => {
          this.take(String(name))
          return value.apply(of, args)
        }
      },
    })
  }
}

/** The disk, with nothing of it in other threads: what it does there takes two turns. */
export const turning = (turn: () => Promise<void>): Disk => {
  const between = async <T>(work: () => T): Promise<T> => {
    await turn()
    const result = work()
    await turn()
    return result
  }
  const held = { [Symbol.asyncDispose]: async () => {} } as FileHandle
  return {
    ...disk,
    remove: (path) => between(() => disk.unlinkHeld(path)),
    syncFolder: (path) => between(() => disk.syncFolderNow(path)),
    hold: () => between(() => held),
  }
}

export type KeepingOptions = {
  /** In place of the real one. */
  on?: Disk
  steps?: Steps
  /** ms since 1970. */
  now: number
  as?: 'zst' | 'gz' | 'none'
  keepDays?: number
  keepBytes?: number
  after?: number
  /** What lands meanwhile, where anything does. */
  subscriber?: Pick<Subscriber, 'meanwhile' | 'checkpointed'>
  clock?: Clock
}

/** A life of the daemon, with what it does besides landing. */
export class Keeping {
  readonly life: Life
  readonly compression: Compression
  readonly retention: Retention
  readonly manifests: Manifests

  constructor(root: string, options: KeepingOptions) {
    const { steps = new Steps(), on = disk, now, as = 'zst', keepDays = 7, keepBytes, after = 0 } = options
    const { clock = realClock, subscriber = this.#nobody } = options
    this.life = new Life(root)
    const { checkpoint, landing, writer, index, layout, ledger } = this.life
    this.manifests = new Manifests(checkpoint)
    const clocks = { now: () => now, passed: () => now }
    const calendar = new Calendar(new Days('UTC'), () => landing.newest, checkpoint.state.appended, clocks)
    const shared = {
      root,
      disk: steps.of(on),
      checkpoint: {
        state: checkpoint.state,
        append: (changes: Parameters<typeof checkpoint.append>[0]) => {
          steps.take('append')
          checkpoint.append(changes)
        },
      },
      ...{ manifests: this.manifests, calendar, writer, index, layout, ledger, log: pino({ level: 'silent' }) },
      meanwhile: <T>(work: () => T) => subscriber.meanwhile(work),
    }
    this.compression = new Compression({
      ...shared,
      ...{ state: join(root, '.tallyman'), as, after, now: () => now, frame: 1000, clock },
      compressor: {
        compress: async (request) => {
          writeFileSync(request.target, 'torn')
          await clock.turn()
          steps.take('compress')
          return compress(request)
        },
        close: async () => {},
      },
    })
    this.retention = new Retention({
      ...shared,
      ...{ keepDays, keepBytes },
      checkpointed: async (work) => {
        steps.take('save')
        await subscriber.checkpointed(work)
      },
    })
  }

  #nobody = {
    meanwhile: async <T>(work: () => T | Promise<T>) => work(),
    checkpointed: async <T>(work: () => T | Promise<T>) => {
      this.life.save()
      return work()
    },
  }

  /** A pass, as the daemon makes it. */
  async pass(stop = new AbortController().signal): Promise<void> {
    await this.retention.run(stop)
    await this.compression.run(stop)
  }
}

/** A life that makes a pass and ends, or is killed before that. */
export async function untilKilled(root: string, options: KeepingOptions): Promise<'done' | 'killed'> {
  let keeping: Keeping | undefined
  try {
    keeping = new Keeping(root, options)
    await keeping.pass()
    return 'done'
  } catch (error) {
    if (!(error instanceof Killed)) throw error
    return 'killed'
  } finally {
    keeping?.life.end()
  }
}

/** The text of each file below the root, as who lists the folders just now would read it: by its path, whatever its form. */
export function textsOf(root: string): Record<string, string> {
  const inflate = (path: string, bytes: Buffer): Buffer =>
    path.endsWith('.zst') ? zstdcat(bytes) : path.endsWith('.gz') ? gunzipSync(bytes) : bytes
  return Object.fromEntries(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.includes('.log'))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [relative(root, path), inflate(path, readFileSync(path)).toString('latin1')]),
  )
}

/** Node inflates the first frame and stops. */
function zstdcat(bytes: Buffer): Buffer {
  const frames: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const { buffer, engine } = zstdDecompressSync(bytes.subarray(at), { info: true }) as unknown as {
      buffer: Buffer
      engine: { bytesWritten: number }
    }
    frames.push(buffer)
    at += engine.bytesWritten
  }
  return Buffer.concat(frames)
}
