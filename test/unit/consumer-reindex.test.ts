/** An index that was damaged, in every way that files are, and what is made of it. */
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ANYBODY } from '../../consumer/access.ts'
import type { LineFormat } from '../../consumer/layout.ts'
import type { Reindex } from '../../consumer/reindex.ts'
import { verify } from '../../consumer/verify.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Steps } from '../support/housekeeping.ts'
import { filesOf, Life, NOON, type Said, type Stored, topicOf } from '../support/landing.ts'
import { linesOf, Reading } from '../support/reading.ts'
import { meaningOf, mend } from '../support/reindexing.ts'
import { until } from '../support/until.ts'

const DAY = '2026-11-23'
const FORMATS = ['text', 'jsonl', 'raw'] as const

/** What two modules print, whose containers take turns; each record is in a checkpoint of its own. */
const SAID: Said[] = Array.from({ length: 24 }, (_, i) => ({
  partition: i % 2,
  module: i % 2 === 0 ? 'a' : 'b',
  run: 1 + (i % 6),
  first: 1 + 5 * Math.floor(i / 6),
  count: 5,
  ms: NOON + 700 * i,
  host: `h${i % 3}`,
  container: `c${i % 6}`,
}))

const indexOf = (root: string): string => join(root, '.tallyman/index', DAY)

async function landEach(root: string, topic: readonly Stored[], format: LineFormat): Promise<number> {
  const life = new Life(root, 4, format)
  for (const stored of topic) {
    await life.land(stored)
    life.save()
  }
  life.end()
  return lengthOf(root, format)
}

function lengthOf(root: string, format: LineFormat): number {
  const life = new Life(root, 4, format)
  life.end()
  return life.checkpoint.state.index.get(DAY)!
}

/** What verify finds of a root. */
async function found(root: string, format: LineFormat) {
  const life = new Life(root, 4, format)
  try {
    return await verify(root, life.checkpoint.state, {}, ANYBODY.may)
  } finally {
    life.end()
  }
}

function overwrite(path: string, at: number, bytes: Buffer): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
}

/** Damages of a file of `length` bytes, at a share of it. */
const DAMAGES: Record<string, (path: string, length: number, share: number) => void> = {
  'that is gone': (path) => rmSync(path),
  'that was cut': (path, length, share) => truncateSync(path, Math.floor(length * share)),
  'that was emptied': (path) => writeFileSync(path, ''),
  'with a byte that was changed': (path, length, share) => {
    const at = Math.min(length - 1, Math.floor(length * share))
    overwrite(path, at, Buffer.from([readFileSync(path)[at]! ^ 0x55]))
  },
  'with foreign bytes in it': (path, length, share) =>
    overwrite(path, Math.floor(length * share * 0.7), Buffer.alloc(Math.ceil(length / 5), 'not ours\n')),
  'with zeros in it': (path, length, share) =>
    overwrite(path, Math.floor(length * share * 0.7), Buffer.alloc(Math.ceil(length / 4))),
}

describe.each(FORMATS)('the index of %s', (format) => {
  it.each(Object.entries(DAMAGES))('%s is as it was, where Kafka holds all', async (_, damage) => {
    using folder = temporaryFolder()
    const root = folder.path
    const topic = topicOf(SAID)
    const length = await landEach(root, topic, format)
    const before = meaningOf(root, DAY, length)
    const files = filesOf(root)
    damage(indexOf(root), length, 0.5)
    expect((await found(root, format)).problems.map(({ what }) => what)).toContain('index')

    const [day] = await mend(root, { topic, format })
    expect(day).toMatchObject({ day: DAY, changed: true, fromFiles: 0, guessed: 0 })
    expect(day!.fromKafka).toBe(day!.blank)
    expect(meaningOf(root, DAY, lengthOf(root, format))).toEqual(before)
    expect(await found(root, format)).toMatchObject({ problems: [], rebuilt: 0, files: 2 })
    expect(filesOf(root)).toEqual(files)

    const bytes = readFileSync(indexOf(root))
    const [again] = await mend(root, { topic, format })
    expect(again).toMatchObject({ changed: false, blank: 0, damaged: 0 })
    expect(readFileSync(indexOf(root)).equals(bytes)).toBe(true)
  })

  it('that is gone is made of the files, where Kafka holds nothing any more', async () => {
    using folder = temporaryFolder()
    const root = folder.path
    const length = await landEach(root, topicOf(SAID), format)
    const before = meaningOf(root, DAY, length)
    rmSync(indexOf(root))
    const [day] = await mend(root, { format })
    expect(day).toMatchObject({ changed: true, fromKafka: 0, [format === 'raw' ? 'fromFiles' : 'guessed']: 0 })
    const { problems, rebuilt } = await found(root, format)
    expect({ problems, rebuilt }).toEqual({ problems: [], rebuilt: day!.blank })
    const after = meaningOf(root, DAY, lengthOf(root, format))
    const told = (rows: typeof before) =>
      rows.map(({ file, position, bytes, lines, names, tmin, tmax }) => ({
        file,
        position,
        bytes,
        lines,
        names,
        tmin,
        tmax,
      }))
    if (format !== 'raw') expect(told(after)).toEqual(told(before))
    else
      expect(after.map(({ names, lines }) => [names!.module, names!.host, lines])).toEqual([
        ['a', '', 60],
        ['b', '', 60],
      ])
    if (format === 'jsonl') expect(after).toEqual(before.map((row) => ({ ...row, rebuilt: true })))
    expect((await mend(root, { format }))[0]).toMatchObject({ changed: false })
    // Kafka is asked later, and knows all of it.
    expect((await mend(root, { topic: topicOf(SAID), format }))[0]).toMatchObject({
      changed: true,
      fromFiles: 0,
      guessed: 0,
    })
    expect(meaningOf(root, DAY, lengthOf(root, format))).toEqual(before)
    expect(await found(root, format)).toMatchObject({ problems: [], rebuilt: 0 })
  })

  it('SIGKILLed at any step it is the old one or the new one, and mended in the end', async () => {
    const topic = topicOf(SAID)
    using whole = temporaryFolder()
    const before = meaningOf(whole.path, DAY, await landEach(whole.path, topic, format))
    for (let left = 0, killed = true; killed; left++) {
      using folder = temporaryFolder()
      const root = folder.path
      const length = await landEach(root, topic, format)
      truncateSync(indexOf(root), length / 2)
      const steps = new Steps(left)
      killed = await mend(root, { topic, format, steps }).then(
        () => false,
        () => true,
      )
      if (!killed)
        expect(steps.taken.filter((step) => ['append', 'rename'].includes(step))).toEqual([
          'rename',
          'append',
          'rename',
        ])
      if (steps.taken.includes('append')) {
        // It is the new one, whatever became of the file: nothing of Kafka is needed any more.
        expect((await mend(root, { format }))[0]).toMatchObject({ damaged: 0, blank: 0, changed: false })
      }
      const [day] = await mend(root, { topic, format })
      expect(day!.fromKafka).toBe(day!.blank)
      expect(meaningOf(root, DAY, lengthOf(root, format)), `killed after ${steps.taken}`).toEqual(before)
      // More lands behind it, where the checkpoint says.
      const life = new Life(root, 4, format)
      await life.land(topicOf([...SAID, { ...SAID[0]!, first: 21 }]).at(-1)!)
      life.save()
      life.end()
      expect((await found(root, format)).problems).toEqual([])
      expect(existsSync(join(root, `.tallyman/reindexing/${DAY}.whole`))).toBe(false)
    }
  })
})

it('what else is done to files does not wait for a mending that somebody has asked for', async () => {
  using folder = temporaryFolder()
  const topic = topicOf(SAID)
  await landEach(folder.path, topic, 'text')
  rmSync(indexOf(folder.path))
  let passes = 0
  const meanwhile = async (reindex: Reindex) => {
    await reindex.check(new AbortController().signal)
    passes++
  }
  const [day] = await mend(folder.path, { topic, meanwhile })
  expect(day).toMatchObject({ changed: true, fromFiles: 0 })
  expect(passes).toBeGreaterThan(0)
})

it('any damage, any part of Kafka: every line is in one row, and what Kafka holds is as it was', async () => {
  const chunk = fc.record({
    partition: fc.constantFrom(0, 1),
    module: fc.constantFrom('a', 'b'),
    run: fc.integer({ min: 1, max: 4 }),
    count: fc.integer({ min: 1, max: 6 }),
    bytes: fc.constantFrom(3, 20),
    gap: fc.constantFrom(0, 0, 0, 2),
    copy: fc.constantFrom(false, false, false, true),
    saved: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(chunk, { minLength: 1, maxLength: 25 }),
      fc.constantFrom(...FORMATS),
      fc.array(fc.tuple(fc.constantFrom(...Object.values(DAMAGES)), fc.double({ min: 0, max: 1, noNaN: true })), {
        minLength: 1,
        maxLength: 2,
      }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      async (chunks, format, damages, expired) => {
        using folder = temporaryFolder()
        const root = folder.path
        const next = new Map<number, number>()
        const said = chunks.flatMap(({ gap, copy, saved: _, ...each }, i): Said[] => {
          // A run has a module and a partition.
          const run = each.run * 10 + each.partition * 2 + (each.module === 'a' ? 0 : 1)
          const first = (next.get(run) ?? 1) + gap
          next.set(run, first + each.count)
          const one = { ...each, run, first, ms: NOON + 300 * i, host: `h${run % 2}` }
          return copy ? [one, one] : [one]
        })
        const topic = topicOf(said)
        const life = new Life(root, 4, format)
        for (const [i, stored] of topic.entries()) {
          await life.land(stored)
          if (chunks[i % chunks.length]!.saved) life.save()
        }
        life.save()
        life.end()
        const length = lengthOf(root, format)
        const before = meaningOf(root, DAY, length)
        for (const [damage, share] of damages)
          if (existsSync(indexOf(root))) damage(indexOf(root), statSync(indexOf(root)).size, share)
        const lost = Math.floor(expired * topic.length)
        await mend(root, { topic: topic.slice(lost), format })
        const { problems } = await found(root, format)
        expect(problems).toEqual([])
        const [day] = await mend(root, { topic: topic.slice(lost), format })
        expect(day!.changed).toBe(false)
        // With all of Kafka nothing is different from before, whatever was made of the files by then.
        await mend(root, { topic, format })
        expect(meaningOf(root, DAY, lengthOf(root, format))).toEqual(before)
      },
    ),
    { numRuns: 60 },
  )
})

it('text between two rows of a run: as many lines as numbers are missing have these numbers', async () => {
  using folder = temporaryFolder()
  const root = folder.path
  const said = Array.from({ length: 5 }, (_, i): Said => ({ ...SAID[0]!, first: 1 + 5 * i, ms: NOON + 20_000 * i }))
  const length = await landEach(root, topicOf(said), 'text')
  const before = meaningOf(root, DAY, length)
  const size = Math.floor(length / 5)
  overwrite(indexOf(root), 2 * size + 20, Buffer.alloc(size - 20, 'x'))
  const [day] = await mend(root)
  expect(day).toMatchObject({ changed: true, fromKafka: 0, guessed: 0 })
  expect(meaningOf(root, DAY, lengthOf(root, 'text')).map(({ rebuilt: _, ...row }) => row)).toEqual(before)
})

describe('while the daemon runs', () => {
  const lines = (from: number): Said => ({ ...SAID[0]!, first: from, count: 2, ms: NOON + from })
  const landed = topicOf([lines(1), lines(3), lines(5), lines(7)])

  async function damaged(): Promise<Reading> {
    const reading = await Reading.create()
    for (const stored of landed.slice(0, 2)) {
      await reading.life.land(stored)
      reading.life.save()
    }
    return reading
  }

  it('answers say what a damaged index does not tell, and find the rest', async () => {
    await using reading = await damaged()
    // Of the second block: what the first one names it goes by.
    overwrite(indexOf(reading.root), statSync(indexOf(reading.root)).size - 10, Buffer.from('damage'))
    const gap = expect.objectContaining({ file: `.tallyman/index/${DAY}`, message: expect.stringMatching(/reindex/) })
    for (const route of ['lines', 'search'] as const) {
      const events = await reading.events(route, route === 'search' ? { pattern: '' } : {})
      expect(linesOf(events).map(({ line }) => Number.parseInt(line, 10))).toEqual([1, 2])
      expect(events.at(-1)).toMatchObject({ type: 'end', partial: [gap] })
    }
    expect((await reading.get('histogram')).json()).toMatchObject({ partial: [gap] })
    await mend(reading.root, { life: reading.life })
    for (const route of ['lines', 'search'] as const) {
      const events = await reading.events(route, route === 'search' ? { pattern: '' } : {})
      expect(linesOf(events).map(({ line }) => Number.parseInt(line, 10))).toEqual([1, 2, 3, 4])
      expect(events.at(-1)).toMatchObject({ type: 'end', partial: [] })
    }
  })

  it('a tail that comes back: one that had all goes on, one that had not is told what it does not get', async () => {
    await using reading = await damaged()
    const { life } = reading
    const cursors: string[] = []
    {
      await using tail = await reading.follow('tail', { last: 0 })
      await until('the tail has joined', () => tail.cursor !== undefined)
      cursors.push(tail.cursor!)
      await life.land(landed[2]!)
      life.save()
      await until('its lines come', () => tail.lines.length === 2 && tail.cursor !== cursors[0])
      cursors.push(tail.cursor!)
    }
    rmSync(indexOf(reading.root))
    await mend(reading.root, { life, topic: landed.slice(0, 3) })
    await life.land(landed[3]!)
    life.save()
    const seen = async (cursor: string) => {
      await using tail = await reading.follow('tail', { cursor })
      await until('it has joined', () => tail.cursor !== undefined)
      const gaps = tail.events.filter(({ type }) => type === 'gap').map(({ file }) => file)
      return { lines: tail.lines.map(({ line }) => Number.parseInt(line, 10)), gaps, cursor: tail.cursor! }
    }
    const upToDate = await seen(cursors[1]!)
    expect(upToDate).toMatchObject({ lines: [7, 8], gaps: [] })
    expect(await seen(cursors[0]!)).toMatchObject({ lines: [7, 8], gaps: [`.tallyman/index/${DAY}`] })
    expect(await seen(upToDate.cursor)).toMatchObject({ lines: [], gaps: [] })
  })

  it('a log that somebody removes is gone on with, and what is written from then on is understood', async () => {
    await using reading = await damaged()
    rmSync(indexOf(reading.root))
    for (const stored of landed.slice(2)) {
      await reading.life.land(stored)
      reading.life.save()
    }
    const events = await reading.events('lines')
    expect(linesOf(events).map(({ line }) => Number.parseInt(line, 10))).toEqual([5, 6, 7, 8])
    await mend(reading.root, { life: reading.life, topic: landed })
    expect(linesOf(await reading.events('lines'))).toHaveLength(8)
  })
})

it('raw lines that repeat themselves are believed of Kafka only where all behind them are', async () => {
  const said = (run: number, count: number): Said => ({
    ...{ partition: 0, module: 'a', run, first: 1, count },
    printed: Array.from({ length: count }, (_, i) => ({
      source: 'stdout' as const,
      ms: NOON + 100 * run + i,
      text: 'x',
    })),
  })
  const topic = topicOf([said(1, 3), said(2, 2), said(3, 1)])
  using folder = temporaryFolder()
  const root = folder.path
  const before = meaningOf(root, DAY, await landEach(root, topic, 'raw'))
  rmSync(indexOf(root))
  // Where the two lines of the second run stand is not to be told from where the first one's do.
  const [day] = await mend(root, { topic: topic.slice(1), format: 'raw' })
  expect(day).toMatchObject({ blank: 12, fromKafka: 0, guessed: 12 })
  await mend(root, { topic, format: 'raw' })
  expect(meaningOf(root, DAY, lengthOf(root, 'raw'))).toEqual(before)
})

it('a file that is gone, and one that was cut, are told and keep nothing from being mended', async () => {
  using folder = temporaryFolder()
  const root = folder.path
  const topic = topicOf([...SAID, ...SAID.map((said) => ({ ...said, module: 'c', run: 10 + said.run, partition: 0 }))])
  await landEach(root, topic, 'text')
  rmSync(join(root, `s/a/${DAY}.log`))
  truncateSync(join(root, `s/b/${DAY}.log`), 333)
  rmSync(indexOf(root))
  await expect(mend(root, { topic })).rejects.toThrow(/s\/a\/2026-11-23.log.*ENOENT/)
  const { problems } = await found(root, 'text')
  expect(problems.map(({ file, what }) => [file, what])).toEqual([
    [`s/a/${DAY}.log`, 'uncounted'],
    [`s/b/${DAY}.log`, 'uncounted'],
  ])
})
