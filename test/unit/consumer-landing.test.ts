import { existsSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync } from 'node:fs'
import { join, relative } from 'node:path'
import fc from 'fast-check'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { Checkpoint, type PartitionState } from '../../consumer/checkpoint.ts'
import { Days } from '../../consumer/days.ts'
import { IndexLog } from '../../consumer/index-log.ts'
import { Landing } from '../../consumer/landing.ts'
import { Layout } from '../../consumer/layout.ts'
import { Ledger } from '../../consumer/ledger.ts'
import { Writer } from '../../consumer/writer.ts'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf } from '../support/chunk.ts'
import { temporaryFolder } from '../support/folder.ts'

const NOON = Date.parse('2026-11-23T12:00:00.000Z')
const MIDNIGHT = Date.parse('2026-11-23T00:00:00.000Z')
const log = pino({ level: 'silent' })

/** A record as the subscriber hands it over. */
type Stored = { partition: number; message: Parameters<Landing['land']>[1] }

type Said = {
  partition: number
  module: string
  run: number
  first: number
  count: number
  ms?: number
  bytes?: number
}

function record(offset: number, { partition, module, run, first, count, ms = NOON, bytes = 20 }: Said): Stored {
  const value = new ChunkEncoder().encode(
    chunkOf({
      run: run.toString(16).padStart(32, '0'),
      service: 's',
      module,
      host: 'h',
      container: { id: 'c', name: `c${run}`, image: 'i' },
      attrs: {},
      first: [first, 1],
      lines: Array.from({ length: count }, (_, i) => ({
        source: 'stdout',
        number: first + i,
        time: `${ms + i}000000`,
        text: `${first + i} `.padEnd(bytes, '.'),
      })),
    }),
  )
  const message = {
    key: null,
    value: Buffer.from(value),
    timestamp: String(NOON),
    attributes: 0,
    offset: String(offset),
    headers: {},
  }
  return { partition, message }
}

/** Records of a topic: each gets the next offset of its partition. */
function topicOf(said: Said[]): Stored[] {
  const next = new Map<number, number>()
  return said.map((each) => {
    const offset = next.get(each.partition) ?? 0
    next.set(each.partition, offset + 1)
    return record(offset, each)
  })
}

/** The part of the consumer between Kafka and the files, and what a SIGKILL leaves of it: nothing but the files. */
class Life {
  readonly checkpoint: Checkpoint
  readonly writer: Writer
  readonly index: IndexLog
  readonly landing: Landing
  #ledger: Ledger
  #changed = new Map<number, PartitionState>()

  constructor(root: string, openFiles = 4) {
    this.checkpoint = new Checkpoint(join(root, 'checkpoint'))
    const { files, runs, totals, index } = this.checkpoint.state
    this.#ledger = new Ledger(structuredClone({ runs, totals }))
    this.writer = new Writer({
      root,
      files,
      openFiles,
      log,
      register: (named) => this.checkpoint.append({ files: named }),
    })
    this.index = new IndexLog(root, index)
    this.landing = new Landing({
      topic: 't',
      state: root,
      ledger: this.#ledger,
      layout: new Layout('text', new Days('UTC'), 7),
      writer: this.writer,
      index: this.index,
      log,
    })
  }

  next(partition: number): number {
    return this.checkpoint.state.partitions.get(partition)?.next ?? 0
  }

  async land({ partition, message }: Stored): Promise<void> {
    await this.landing.land(partition, message, async () => this.writer.flush())
    this.#changed.set(partition, { next: Number(message.offset) + 1, tenure: 1 })
  }

  save(): void {
    this.writer.flush()
    const partitions = [...this.#changed]
    this.checkpoint.append({
      partitions,
      ...this.#ledger.takeChanges(),
      files: this.writer.sync(),
      index: this.index.sync(),
    })
    this.#changed.clear()
  }

  end(): void {
    this.writer.close()
    this.checkpoint.close()
  }
}

/** Lands what of the topic is not in the checkpoint yet. */
async function landAll(root: string, topic: Stored[], openFiles?: number): Promise<Life> {
  const life = new Life(root, openFiles)
  for (const stored of topic) if (Number(stored.message.offset) >= life.next(stored.partition)) await life.land(stored)
  life.save()
  life.end()
  return life
}

/** The log files below the root, by path. */
function filesOf(root: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.log'))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort()
      .map((path) => [relative(root, path), readFileSync(path, 'latin1')]),
  )
}

describe('landing', () => {
  // Between any two steps, and while an entry of the checkpoint is written.
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.constant('land' as const) },
    { weight: 2, arbitrary: fc.constant('flush' as const) },
    { weight: 1, arbitrary: fc.constant('save' as const) },
    { weight: 1, arbitrary: fc.constant('kill' as const) },
    { weight: 1, arbitrary: fc.constant('kill while the checkpoint is written' as const) },
  )
  const said = fc.record({
    partition: fc.nat({ max: 1 }),
    module: fc.constantFrom('a', 'b', 'shared'),
    run: fc.integer({ min: 1, max: 3 }),
    first: fc.integer({ min: 1, max: 30 }),
    count: fc.integer({ min: 1, max: 12 }),
    ms: fc.constantFrom(NOON, MIDNIGHT - 5, MIDNIGHT + 1),
  })

  it('killed anywhere, however often, the files are those of a run without a kill', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(said, { minLength: 1, maxLength: 40 }),
        fc.array(step, { maxLength: 80 }),
        async (records, steps) => {
          using calm = temporaryFolder()
          using rough = temporaryFolder()
          // A run is one container's: all its records are in one partition, and of one module.
          const topic = topicOf(
            records.map((r) => ({ ...r, partition: r.run % 2, module: r.run === 3 ? r.module : 'shared' })),
          )
          await landAll(calm.path, topic)

          let life = new Life(rough.path)
          const pending = () => topic.filter((r) => Number(r.message.offset) >= life.next(r.partition))
          let left = pending()
          for (const what of steps) {
            if (what === 'land') {
              const stored = left.shift()
              if (stored) await life.land(stored)
            } else if (what === 'flush') life.writer.flush()
            else if (what === 'save') life.save()
            else {
              const path = join(rough.path, 'checkpoint')
              const before = statSync(path).size
              if (what !== 'kill') life.save()
              life.end()
              const after = statSync(path).size
              if (after > before) truncateSync(path, Math.floor((before + after) / 2))
              life = new Life(rough.path)
              left = pending()
            }
          }
          life.end()
          await landAll(rough.path, topic)
          expect(filesOf(rough.path)).toEqual(filesOf(calm.path))
        },
      ),
      { numRuns: 150 },
    )
  })

  it('two partitions with the same module: each has a file of its own, after a restart as well', async () => {
    using root = temporaryFolder()
    const topic = topicOf([
      { partition: 1, module: 'm', run: 1, first: 1, count: 1 },
      { partition: 0, module: 'm', run: 2, first: 1, count: 1 },
      { partition: 0, module: 'm', run: 2, first: 2, count: 1 },
      { partition: 1, module: 'm', run: 1, first: 2, count: 1 },
    ])
    await landAll(root.path, topic.slice(0, 2))
    await landAll(root.path, topic)
    const files = filesOf(root.path)
    expect(Object.keys(files)).toEqual(['s/m/2026-11-23.log', 's/m/2026-11-23.p0.log'])
    expect(files['s/m/2026-11-23.log']!.match(/c1 \d+/g)).toEqual(['c1 1', 'c1 2'])
    expect(files['s/m/2026-11-23.p0.log']!.match(/c2 \d+/g)).toEqual(['c2 1', 'c2 2'])
  })

  it.each([
    ['cut short', (path: string) => truncateSync(path, 10)],
    ['removed', (path: string) => rmSync(path)],
    [
      'replaced by a link',
      (path: string) => {
        rmSync(path)
        symlinkSync('/dev/null', path)
      },
    ],
  ])('a file that somebody has %s meanwhile: new lines go to a new segment', async (_, tamper) => {
    using root = temporaryFolder()
    const topic = topicOf([
      { partition: 0, module: 'm', run: 1, first: 1, count: 3 },
      { partition: 0, module: 'm', run: 1, first: 4, count: 1 },
    ])
    await landAll(root.path, topic.slice(0, 1))
    tamper(join(root.path, 's/m/2026-11-23.log'))
    await landAll(root.path, topic)
    expect(filesOf(root.path)['s/m/2026-11-23.1.log']).toMatch(/^\S+ c1 4 \.+\n$/)
  })

  it('a file that was there before us is left as it is', async () => {
    using root = temporaryFolder()
    const [first] = topicOf([{ partition: 0, module: 'm', run: 1, first: 1, count: 1 }])
    await landAll(root.path, [first!])
    rmSync(join(root.path, 'checkpoint'))
    const before = readFileSync(join(root.path, 's/m/2026-11-23.log'), 'utf8')
    await landAll(root.path, [first!])
    expect(filesOf(root.path)).toEqual({ 's/m/2026-11-23.log': before, 's/m/2026-11-23.1.log': before })
  })

  it('a folder that is a link is not followed', async () => {
    using root = temporaryFolder()
    using elsewhere = temporaryFolder()
    symlinkSync(elsewhere.path, join(root.path, 's'))
    const topic = topicOf([{ partition: 0, module: 'm', run: 1, first: 1, count: 1 }])
    await expect(landAll(root.path, topic)).rejects.toThrow(/is no folder; move it away/)
    expect(readdirSync(elsewhere.path)).toEqual([])
  })

  it('more files than may be open at a time are all written', async () => {
    using root = temporaryFolder()
    const said = Array.from({ length: 60 }, (_, i) => ({
      partition: 0,
      module: `m${i % 20}`,
      run: (i % 20) + 1,
      first: Math.floor(i / 20) * 5 + 1,
      count: 5,
    }))
    const life = new Life(root.path, 3)
    for (const stored of topicOf(said)) {
      await life.land(stored)
      life.writer.flush()
      const descriptors = readdirSync('/proc/self/fd').map((fd) => join('/proc/self/fd', fd))
      const open = descriptors.filter((fd) => existsSync(fd) && statSync(fd).isFile()).length
      expect(open).toBeLessThan(60)
    }
    life.save()
    life.end()
    const files = filesOf(root.path)
    expect(Object.keys(files)).toHaveLength(20)
    for (const content of Object.values(files)) expect(content.split('\n')).toHaveLength(16)
  })

  it('a record of more bytes than the buffer holds lands whole', async () => {
    using root = temporaryFolder()
    const topic = topicOf(
      Array.from({ length: 12 }, (_, i) => ({
        partition: 0,
        module: 'm',
        run: 1,
        first: i * 4 + 1,
        count: 4,
        bytes: 200_000,
      })),
    )
    await landAll(root.path, topic)
    const [content] = Object.values(filesOf(root.path))
    expect(content!.match(/ c1 \d+/g)).toEqual(Array.from({ length: 48 }, (_, i) => ` c1 ${i + 1}`))
  })

  it('a record that is none is kept as a dead letter, and the next one lands', async () => {
    using root = temporaryFolder()
    const [good] = topicOf([{ partition: 0, module: 'm', run: 1, first: 1, count: 1 }])
    const bad = { partition: 0, message: { ...good!.message, value: Buffer.from('garbage'), key: Buffer.from('k') } }
    const nothing = { partition: 0, message: { ...good!.message, value: null, offset: '1' } }
    const topic = [bad, nothing, { ...good!, message: { ...good!.message, offset: '2' } }]
    const { landing } = await landAll(root.path, topic)
    expect(landing.counts).toMatchObject({ records: 3, lines: 1, undecodable: 2 })
    expect(readFileSync(join(root.path, 'dead-letters/t-0-0.value'), 'utf8')).toBe('garbage')
    expect(JSON.parse(readFileSync(join(root.path, 'dead-letters/t-0-0.json'), 'utf8'))).toMatchObject({
      topic: 't',
      partition: 0,
      offset: '0',
      key: 'k',
      reason: expect.any(String),
    })
    expect(Object.keys(filesOf(root.path))).toEqual(['s/m/2026-11-23.log'])
  })
})
