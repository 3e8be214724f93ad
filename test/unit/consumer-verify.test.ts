/** The files held against the index and the ledger, after somebody's hand was in them. */
import { appendFileSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { ANYBODY, accessTo } from '../../consumer/access.ts'
import { Checkpoint, type FileState } from '../../consumer/checkpoint.ts'
import { Days } from '../../consumer/days.ts'
import { DeadLetters } from '../../consumer/dead-letters.ts'
import { IndexLog, readIndex } from '../../consumer/index-log.ts'
import { Landing } from '../../consumer/landing.ts'
import { Layout } from '../../consumer/layout.ts'
import { Ledger } from '../../consumer/ledger.ts'
import { answerLedger } from '../../consumer/ledger-api.ts'
import { openRoot } from '../../consumer/root.ts'
import { verify } from '../../consumer/verify.ts'
import { Writer } from '../../consumer/writer.ts'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf, type Meaning } from '../support/chunk.ts'
import { temporaryFolder } from '../support/folder.ts'

const NOON = Date.parse('2026-11-23T12:00:00.000Z')
const DAY = '2026-11-23'
const FILE = `shop/web/${DAY}.log`
const log = pino({ level: 'silent' })

/** A root with what these chunks become; each has lines `from` to `to` of a run. */
async function rootWith(
  path: string,
  chunks: { run: number; from: number; to: number; days?: number; lost?: Meaning['lost']; service?: string }[],
) {
  const { state } = openRoot(path)
  const checkpoint = new Checkpoint(join(state, 'checkpoint'))
  const ledger = new Ledger()
  const index = new IndexLog(state, checkpoint.state.index)
  const register = (files: [string, FileState][]) => checkpoint.append({ files })
  const writer = new Writer({ root: path, files: checkpoint.state.files, openFiles: 4, log, register })
  const layout = new Layout('text', new Days('UTC'), 7)
  const landing = new Landing({
    ...{ topic: 't', letters: new DeadLetters({ state, max: 1024, log }), ledger, layout, writer, index },
  })
  for (const [offset, { run, from, to, days = 0, lost, service = 'shop' }] of chunks.entries()) {
    const time = NOON - days * 86_400_000
    const meaning: Meaning = {
      run: run.toString(16).padStart(32, '0'),
      ...{ service, module: 'web', host: 'h1', attrs: {} },
      container: { id: 'c', name: `web-${run}`, image: 'i' },
      first: [from, 1],
      lines: Array.from({ length: to - from + 1 }, (_, i) => ({
        ...{ source: 'stdout' as const, number: from + i, time: `${time + from + i}000000`, text: `line ${from + i}` },
      })),
      ...(lost && { lost }),
    }
    const value = Buffer.from(new ChunkEncoder().encode(chunkOf(meaning)))
    const message = { key: null, value, timestamp: String(NOON), attributes: 0, offset: String(offset), headers: {} }
    await landing.land(0, message, async (work) => work())
    // Each chunk in a checkpoint of its own, so that rows do not join.
    writer.flush()
    checkpoint.append({ ...ledger.takeChanges(), files: writer.sync(), index: index.sync() })
  }
  writer.close()
  checkpoint.close()
  return checkpoint.state
}

const CHUNKS = [
  { run: 1, from: 1, to: 10 },
  { run: 2, from: 1, to: 10 },
  { run: 1, from: 11, to: 20 },
]
const hex = (run: number) => run.toString(16).padStart(32, '0')

describe('verification', () => {
  it('of files as they were written finds nothing', async () => {
    using root = temporaryFolder()
    const found = await verify(root.path, await rootWith(root.path, CHUNKS), {}, ANYBODY.may)
    expect(found).toMatchObject({
      files: 1,
      problems: [],
      losses: [],
      total: { lines: 30, written: 30, lost: 0, ratio: 0 },
    })
    expect(found.bytes).toBe(readFileSync(join(root.path, FILE)).length)
  })

  it('of a ledger that counts other lines than there are names the day, and how many', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, CHUNKS)
    state.totals.values().next().value!.written += 3
    const { problems } = await verify(root.path, state, {}, ANYBODY.may)
    expect(problems).toEqual([
      {
        file: `shop/web/${DAY}`,
        what: 'ledger',
        lines: 3,
        message: 'the ledger counts 33 lines of it as written, and the index has 30',
      },
    ])
  })

  it('since a day tells of no loss of the days before', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, [
      { run: 1, from: 6, to: 10, days: 2 },
      { run: 1, from: 14, to: 20 },
    ])
    const lossesSince = async (since?: string) => (await verify(root.path, state, { since }, ANYBODY.may)).losses
    expect((await lossesSince()).map(({ from, to }) => [from, to])).toEqual([
      [1, 5],
      [11, 13],
    ])
    expect((await lossesSince(DAY)).map(({ from, to }) => [from, to])).toEqual([[11, 13]])
  })

  it.each<[string, (file: string) => void, object]>([
    [
      'a byte that was changed',
      (file) => writeFileSync(file, readFileSync(file, 'latin1').replace('web-2 line 3\n', 'web-2 line 4\n'), 'latin1'),
      {
        what: 'changed',
        run: hex(2),
        numbers: [
          [1, 10],
          [0, 0],
        ],
        lines: 10,
      },
    ],
    [
      'a line that was deleted',
      (file) => writeFileSync(file, readFileSync(file, 'latin1').replace(/.* web-2 line 5\n/, ''), 'latin1'),
      { what: 'changed', run: hex(2), lines: 20 },
    ],
    [
      'a file that was cut short',
      (file) => truncateSync(file, readFileSync(file).length - 5),
      {
        what: 'short',
        run: hex(1),
        numbers: [
          [11, 20],
          [0, 0],
        ],
        lines: 10,
      },
    ],
    ['a file that is gone', (file) => rmSync(file), { what: 'missing', run: hex(1), lines: 30 }],
  ])('finds %s, and names run and range', async (_, damage, problem) => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, CHUNKS)
    damage(join(root.path, FILE))
    const { problems, total } = await verify(root.path, state, {}, ANYBODY.may)
    expect(problems).toEqual([expect.objectContaining({ file: FILE, ...problem })])
    expect(total.lost).toBe(0)
  })

  it('what follows the last line is not ours, and no problem', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, CHUNKS)
    appendFileSync(join(root.path, FILE), 'a line that is being written\n')
    expect((await verify(root.path, state, {}, ANYBODY.may)).problems).toEqual([])
  })

  it('goes by one moment, whatever lands while it reads', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, [{ run: 2, from: 1, to: 10, days: 1 }, ...CHUNKS])
    const found = verify(root.path, state, {}, ANYBODY.may)
    const before = state.files.get(FILE)!
    state.files.set(FILE, { ...before, length: before.length + 1_000 })
    expect((await found).problems).toEqual([])
  })

  it('finds an index that was damaged, and one that is not whole', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, CHUNKS)
    const path = join(root.path, '.tallyman/index', DAY)
    const bytes = readFileSync(path)
    const [first] = readIndex(join(root.path, '.tallyman'), DAY, bytes.length)
    expect(first).toHaveLength(1)
    bytes[bytes.length - 1]! ^= 1
    writeFileSync(path, bytes)
    const { problems } = await verify(root.path, state, {}, ANYBODY.may)
    expect(problems.map(({ what }) => what)).toEqual(['index', 'uncounted'])
  })

  it('an index that somebody removed keeps no line from landing, and is found', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, CHUNKS)
    rmSync(join(root.path, '.tallyman/index'), { recursive: true })
    const index = new IndexLog(join(root.path, '.tallyman'), state.index)
    const row = { file: FILE, position: 0, lines: 1, run: hex(1), tmin: NOON, tmax: NOON }
    index.add(
      DAY,
      {
        ...row,
        numbers: [
          [1, 1],
          [0, 0],
        ],
      },
      Buffer.from('x'),
    )
    const [[, length] = []] = index.sync()
    expect(length).toBeGreaterThan(state.index.get(DAY)!)
    const { problems } = await verify(root.path, { ...state, index: new Map([[DAY, length!]]) }, {}, ANYBODY.may)
    // The row is of other bytes than those that stand there, and there is no other.
    expect(problems.map(({ what }) => what)).toEqual(['index', 'changed', 'uncounted'])
  })

  it('tells of what is lost by run, source, range and reason', async () => {
    using root = temporaryFolder()
    const lost = [{ source: 'stdout' as const, from: 16, count: 5, reason: 'journal-full' }]
    const state = await rootWith(root.path, [
      { run: 1, from: 11, to: 15 },
      { run: 1, from: 21, to: 30, lost },
    ])
    const { total, losses } = await verify(root.path, state, { service: 'shop' }, ANYBODY.may)
    expect(total).toMatchObject({
      lines: 30,
      written: 15,
      lost: 15,
      lostBy: { gap: 10, 'journal-full': 5 },
      ratio: 0.5,
    })
    const names = { service: 'shop', module: 'web', host: 'h1', container: 'web-1', run: hex(1), source: 'stdout' }
    expect(losses).toEqual([
      { ...names, from: 1, to: 10, reason: 'gap' },
      { ...names, from: 16, to: 20, reason: 'journal-full' },
    ])
    expect(await verify(root.path, state, { service: 'other' }, ANYBODY.may)).toMatchObject({
      files: 0,
      total: { lines: 0 },
    })
  })

  it('looks at nothing that the caller may not read, also where its folder is shorter than its name', async () => {
    using root = temporaryFolder()
    const long = `bank ${'of '.repeat(100)}`
    const state = await rootWith(root.path, [...CHUNKS, { run: 3, from: 5, to: 9, service: long }])
    rmSync(join(root.path, FILE))
    const found = await verify(root.path, state, {}, accessTo('teller', ['bank *']).may)
    expect(found).toMatchObject({ files: 1, problems: [], total: { lines: 9 }, losses: [{ service: long }] })
    expect(await verify(root.path, state, {}, accessTo('nobody', []).may)).toMatchObject({
      ...{ files: 0, bytes: 0, problems: [], losses: [] },
      total: { lines: 0, lost: 0 },
    })
    expect(answerLedger(state, [], { by: 'service' }, accessTo('clerk', ['shop']).may, NOON)).toMatchObject({
      total: { lines: 30 },
      rows: [{ service: 'shop' }],
    })
    expect(answerLedger(state, [], { by: 'run' }, accessTo('clerk', ['shop']).may, NOON).rows).toHaveLength(2)
  })
})

describe('the ledger, asked', () => {
  it('sums up by what is asked for', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, [...CHUNKS, { run: 1, from: 15, to: 22 }])
    const now = NOON + 1000
    for (const by of ['service', 'module', 'day', 'host'] as const) {
      const { rows, total } = answerLedger(state, [], { by }, ANYBODY.may, now)
      expect(rows).toHaveLength(1)
      expect(rows[0]).toMatchObject({ service: 'shop', lines: 32, written: 32, lost: 0, doubled: 6 })
      expect(total).toMatchObject({ lines: 32, doubled: 6 })
    }
    expect(answerLedger(state, [], { by: 'module', since: '2026-11-24' }, ANYBODY.may, now).rows).toEqual([])
  })

  it('by run, says whether its end was seen, and tells one that is silent for a day apart', async () => {
    using root = temporaryFolder()
    const state = await rootWith(root.path, CHUNKS)
    const states = (now: number) =>
      answerLedger(state, [], { by: 'run' }, ANYBODY.may, now).rows.map((row) => 'state' in row && row.state)
    expect(states(NOON)).toEqual(['open', 'open'])
    expect(states(NOON + 25 * 3_600_000)).toEqual(['unfinished', 'unfinished'])
  })
})
