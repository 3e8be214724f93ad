/**
 * A root without Kafka: records land in it as the subscriber would have them land, and what a SIGKILL leaves of it is what stands
 * in its folder.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import pino from 'pino'
import { Checkpoint, type PartitionState } from '../../consumer/checkpoint.ts'
import { Days } from '../../consumer/days.ts'
import { DeadLetters } from '../../consumer/dead-letters.ts'
import type { Hub } from '../../consumer/hub.ts'
import { IndexLog } from '../../consumer/index-log.ts'
import { Landing } from '../../consumer/landing.ts'
import { Layout, type LineFormat } from '../../consumer/layout.ts'
import { expiredOf, Ledger } from '../../consumer/ledger.ts'
import { Writer } from '../../consumer/writer.ts'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { syncFolder } from '../../wire/durable.ts'
import { chunkOf, type Line } from './chunk.ts'

/** When records say that their first line was printed, and when they were appended, unless told otherwise. */
export const NOON = Date.parse('2026-11-23T12:00:00.000Z')
const log = pino({ level: 'silent' })

/** A record as the subscriber hands it over. */
export type Stored = { partition: number; message: Parameters<Landing['land']>[1] }

export type Said = {
  partition: number
  module: string
  run: number
  first: number
  count: number
  ms?: number
  bytes?: number
  appended?: number
  service?: string
  host?: string
  container?: string
  /** What is printed, in place of `count` lines of stdout, each 1 ms after the one before it. Numbers begin at `first` for both sources. */
  printed?: { source: 'stdout' | 'stderr'; ms: number; text: string | Buffer }[]
}

function linesOf({ first, count, ms = NOON, bytes = 20, printed }: Said): Line[] {
  const said =
    printed ??
    Array.from({ length: count }, (_, i) => ({
      source: 'stdout' as const,
      ms: ms + i,
      text: `${first + i} `.padEnd(bytes, '.'),
    }))
  const next = { stdout: first, stderr: first }
  return said.map(({ source, ms, text }) => ({
    ...{ source, number: next[source]++, time: `${ms}000000` },
    ...(typeof text === 'string' ? { text } : { base64: text.toString('base64') }),
  }))
}

export function record(offset: number, said: Said): Stored {
  const { partition, module, run, first, appended = NOON, service = 's', host = 'h', container = `c${run}` } = said
  const value = new ChunkEncoder().encode(
    chunkOf({
      run: run.toString(16).padStart(32, '0'),
      ...{ service, module, host },
      container: { id: 'c', name: container, image: 'i' },
      attrs: {},
      first: [first, said.printed ? first : 1],
      lines: linesOf(said),
    }),
  )
  const message = {
    key: null,
    value: Buffer.from(value),
    timestamp: String(appended),
    attributes: 0,
    offset: String(offset),
    headers: {},
  }
  return { partition, message }
}

/** Records of a topic: each gets the next offset of its partition. */
export function topicOf(said: Said[]): Stored[] {
  const next = new Map<number, number>()
  return said.map((each) => {
    const offset = next.get(each.partition) ?? 0
    next.set(each.partition, offset + 1)
    return record(offset, each)
  })
}

/** The part of the consumer between Kafka and the files, and what a SIGKILL leaves of it: nothing but the files. */
export class Life {
  readonly checkpoint: Checkpoint
  readonly writer: Writer
  readonly index: IndexLog
  readonly layout: Layout
  readonly letters: DeadLetters
  readonly landing: Landing
  readonly ledger: Ledger
  #changed = new Map<number, PartitionState>()

  /** @param hub gets what lands. @param letterBytes what dead letters may take up */
  constructor(root: string, openFiles = 4, format: LineFormat = 'text', hub?: Hub, letterBytes = 1024 * 1024) {
    const folder = join(root, '.tallyman')
    mkdirSync(folder, { recursive: true })
    // As openRoot does.
    syncFolder(root)
    this.checkpoint = new Checkpoint(join(folder, 'checkpoint'))
    const { files, runs, totals, index } = this.checkpoint.state
    this.ledger = new Ledger(structuredClone({ runs, totals }), expiredOf(this.checkpoint.state))
    this.writer = new Writer({
      root,
      files,
      openFiles,
      log,
      register: (named) => this.checkpoint.append({ files: named }),
      ...(hub && { flushed: () => hub.flushed() }),
    })
    this.index = new IndexLog(folder, index)
    this.layout = new Layout(format, new Days('UTC'), 7)
    this.letters = new DeadLetters({ state: folder, max: letterBytes, log })
    this.landing = new Landing({
      topic: 't',
      letters: this.letters,
      ledger: this.ledger,
      layout: this.layout,
      writer: this.writer,
      index: this.index,
      ...(hub && { hub }),
    })
  }

  next(partition: number): number {
    return this.checkpoint.state.partitions.get(partition)?.next ?? 0
  }

  async land({ partition, message }: Stored): Promise<void> {
    await this.landing.land(partition, message, async (work) => work())
    this.#changed.set(partition, { next: Number(message.offset) + 1, tenure: 1 })
  }

  save(): void {
    this.writer.flush()
    const partitions = [...this.#changed]
    this.checkpoint.append({
      partitions,
      ...this.ledger.takeChanges(),
      files: this.writer.sync(),
      index: this.index.sync(),
      appended: this.landing.newest,
    })
    this.#changed.clear()
  }

  end(): void {
    this.writer.close()
    this.checkpoint.close()
  }
}

/** Lands what of the topic is not in the checkpoint yet. */
export async function landAll(root: string, topic: Stored[], openFiles?: number): Promise<Life> {
  const life = new Life(root, openFiles)
  for (const stored of topic) if (Number(stored.message.offset) >= life.next(stored.partition)) await life.land(stored)
  life.save()
  life.end()
  return life
}

/** The log files below the root, by path. */
export function filesOf(root: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.log'))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [relative(root, path), readFileSync(path, 'latin1')]),
  )
}
