/** Housekeeping in a root without Kafka, that can be killed at any step. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
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
import { Life } from './landing.ts'

class Killed extends Error {}

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
}

/** A life of the daemon, with what it does besides landing. */
export class Keeping {
  readonly life: Life
  readonly compression: Compression
  readonly retention: Retention
  readonly manifests: Manifests

  constructor(root: string, options: KeepingOptions) {
    const { steps = new Steps(), on = disk, now, as = 'zst', keepDays = 7, keepBytes, after = 0 } = options
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
      meanwhile: async <T>(work: () => T) => work(),
    }
    this.compression = new Compression({
      ...shared,
      ...{ state: join(root, '.tallyman'), as, after, now: () => now, frame: 1000 },
      compressor: {
        compress: async (request) => {
          writeFileSync(request.target, 'torn')
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
        this.life.save()
        work()
      },
    })
  }

  /** A pass, as the daemon makes it. */
  async pass(): Promise<void> {
    await this.retention.run()
    await this.compression.run(new AbortController().signal)
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
