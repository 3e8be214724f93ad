/** Days that are not kept are removed, and the daemon is killed meanwhile. */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ANYBODY } from '../../consumer/access.ts'
import { ledgerQuery } from '../../consumer/api-schema.ts'
import { disk } from '../../consumer/disk.ts'
import { answerLedger } from '../../consumer/ledger-api.ts'
import { verify } from '../../consumer/verify.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Keeping, Steps, textsOf, untilKilled } from '../support/housekeeping.ts'
import { landAll, NOON, topicOf } from '../support/landing.ts'

const DAY_MS = 86_400_000
const daysAgo = (days: number) => NOON - days * DAY_MS

/** Two modules, one of which has not been heard of for five days, and every day from seven days ago on. */
const topic = topicOf([
  ...[7, 6, 5].map((days) => ({ partition: 0, module: 'old', run: 8, first: 9 - days, count: 1, ms: daysAgo(days) })),
  ...[7, 6, 5, 4, 3, 2, 1, 0].map((days) => ({
    ...{ partition: 0, module: 'm', run: 1, first: (7 - days) * 10 + 1, count: 10, ms: daysAgo(days) },
  })),
])
/** Bytes of a day of `m`, and of `old`. */
const DAY_BYTES = 490
const OLD_BYTES = 49

const daysOf = (root: string): string[] =>
  [...new Set(Object.keys(textsOf(root)).map((path) => /\d{4}-\d\d-\d\d/.exec(path)![0]))].sort()
const newest = (days: number): string[] =>
  Array.from({ length: days }, (_, i) => new Date(daysAgo(days - 1 - i)).toISOString().slice(0, 10))

async function verified(root: string, { life }: Keeping) {
  return verify(root, life.checkpoint.state, {}, ANYBODY.may)
}

describe('retention', () => {
  it('keeps the live day and the last n, and leaves no folder without files behind', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const keeping = new Keeping(root.path, { now: NOON, keepDays: 3, as: 'none' })
    await keeping.pass()
    expect(daysOf(root.path)).toEqual(newest(4))
    expect(readdirSync(join(root.path, 's'))).toEqual(['m'])
    expect(readdirSync(join(root.path, '.tallyman/index')).sort()).toEqual(newest(4))
    expect([...keeping.life.checkpoint.state.files.keys()]).toHaveLength(4)
    expect(keeping.retention.removed).toEqual({ files: 7, bytes: 4 * DAY_BYTES + 3 * OLD_BYTES })
    expect(await verified(root.path, keeping)).toMatchObject({ problems: [], removed: 43, total: { written: 40 } })
    keeping.life.end()
  })

  it('ends with the files in hand when it is told to, and goes on with the next pass', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const stop = new AbortController()
    const on = { ...disk, remove: async (path: string) => disk.remove(path).finally(() => stop.abort()) }
    const keeping = new Keeping(root.path, { now: NOON, keepDays: 3, as: 'none', on })
    await keeping.retention.run(stop.signal)
    expect(keeping.retention.removed).toMatchObject({ files: 2 })
    expect(existsSync(join(root.path, '.tallyman/index', newest(8)[0]!))).toBe(true)
    await keeping.pass()
    expect(daysOf(root.path)).toEqual(newest(4))
    expect(await verified(root.path, keeping)).toMatchObject({ problems: [], removed: 43 })
    keeping.life.end()
  })

  it('the ledger sums up what came of the lines of all removed days, and takes back from it', async () => {
    using root = temporaryFolder()
    const lines = (first: number, days: number, appended = days) => ({
      ...{ partition: 0, module: 'm', run: 1, first, count: 2, ms: daysAgo(days), appended: daysAgo(appended) },
    })
    const records = topicOf([lines(1, 6), lines(5, 5), lines(7, 0), lines(3, 6, 0)])
    await landAll(root.path, records.slice(0, 3))
    const answer = ({ life }: Keeping) =>
      answerLedger(life.ledger.state, [], ledgerQuery.parse({ by: 'day' }), ANYBODY.may, NOON)
    // Again after a kill in front of the next checkpoint.
    for (const _ of [1, 2]) {
      const keeping = new Keeping(root.path, { now: NOON, keepDays: 3, as: 'none' })
      await keeping.pass()
      expect(answer(keeping)).toMatchObject({
        total: { written: 6, lost: 2 },
        rows: [
          { day: '2026-11-23', written: 2, lost: 0 },
          { day: 'older', written: 4, lost: 2 },
        ],
      })
      keeping.life.end()
    }
    await landAll(root.path, records.slice(0, 3))
    const keeping = new Keeping(root.path, { now: NOON, keepDays: 3, as: 'none' })
    await keeping.life.land(records[3]!)
    keeping.life.save()
    expect(answer(keeping)).toMatchObject({
      total: { written: 8, lost: 0 },
      rows: [
        { day: '2026-11-23', written: 4 },
        { day: 'older', written: 4, lost: 0 },
      ],
    })
    expect(keeping.life.checkpoint.state.totals.size).toBe(2)
    expect([...keeping.manifests.list()].map(({ day, ledger }) => [day, ledger.written])).toEqual([['2026-11-23', 4]])
    keeping.life.end()
  })

  it('a run whose host died goes on where it was when it is back; with ten thousand others it is forgotten, at once on the disk', async () => {
    using root = temporaryFolder()
    const said = (run: number, first: number, days: number) => ({
      ...{ partition: 0, module: 'm', run, first, count: 1, ms: daysAgo(days), appended: daysAgo(days) },
    })
    const dead = topicOf(Array.from({ length: 10_001 }, (_, i) => said(i + 1, 1, i === 0 ? 31 : 30)))
    const later = topicOf([...dead.map(() => said(0, 1, 1)), said(20_000, 1, 0), said(2, 2, 0)]).slice(dead.length)
    await landAll(root.path, [...dead, ...later.slice(0, 1)])
    const keeping = new Keeping(root.path, { now: NOON, keepDays: 20, as: 'none' })
    await keeping.pass()
    keeping.life.end()
    const { life } = new Keeping(root.path, { now: NOON, keepDays: 20, as: 'none' })
    const runs = [...life.checkpoint.state.runs.keys()].map((id) => Number(`0x${id}`))
    expect(runs).toHaveLength(10_001)
    expect(runs).not.toContain(1)
    await life.land(later[1]!)
    const { total } = answerLedger(life.ledger.state, [], ledgerQuery.parse({}), ANYBODY.may, NOON)
    expect(total).toMatchObject({ written: 10_003, lost: 0, doubled: 0 })
    life.end()
  })

  it.each([
    ['all of it', 8 * DAY_BYTES + 3 * OLD_BYTES, 8],
    ['a byte less', 8 * DAY_BYTES + 3 * OLD_BYTES - 1, 7],
    ['two days', 2 * DAY_BYTES, 2],
    ['nothing, but the live day', 1, 1],
  ])('keeps as many days as KEEP_BYTES has room for: %s', async (_, keepBytes, days) => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const keeping = new Keeping(root.path, { now: NOON, keepBytes, as: 'none' })
    await keeping.pass()
    expect(daysOf(root.path)).toEqual(newest(days))
    keeping.life.end()
  })

  it('killed at any step: nothing is reported missing, and the next start goes on', { timeout: 60_000 }, async () => {
    using before = temporaryFolder()
    await landAll(
      before.path,
      topic.filter(({ message }) => [1, 2, 8, 9, 10].includes(Number(message.offset))),
    )
    const compressed = new Keeping(before.path, { now: NOON })
    await compressed.pass()
    compressed.life.end()
    const options = { now: NOON, keepDays: 1 }
    for (let kill = 0; ; kill++) {
      using root = temporaryFolder()
      cpSync(before.path, root.path, { recursive: true })
      const steps = new Steps(kill)
      const outcome = await untilKilled(root.path, { ...options, steps })
      const next = new Keeping(root.path, options)
      const after = `killed after ${steps.taken.at(-1)}`
      expect((await verified(root.path, next)).problems, after).toEqual([])
      await next.pass()
      expect(daysOf(root.path), after).toEqual(newest(2))
      expect(readdirSync(join(root.path, 's')), after).toEqual(['m'])
      expect(readdirSync(join(root.path, '.tallyman/index')).sort(), after).toEqual(newest(2))
      expect([...next.life.checkpoint.state.files.keys()], after).toHaveLength(2)
      expect((await verified(root.path, next)).problems, after).toEqual([])
      next.life.end()
      if (outcome === 'done') {
        expect(steps.taken).toEqual(expect.arrayContaining(['save', 'append', 'remove', 'syncFolder', 'removeFolder']))
        return
      }
    }
  })

  it('a line for a removed day goes to the day of its arrival, also when it is written again after a kill', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const keeping = new Keeping(root.path, { now: NOON, keepDays: 3, as: 'none' })
    await keeping.pass()
    const said = { partition: 0, module: 'm', run: 1, first: 81, count: 2, ms: daysAgo(4), appended: daysAgo(0) }
    const late = topicOf([...topic.map(() => said), said, { ...said, first: 83, appended: daysAgo(5) }]).slice(-2)
    const land = async ({ life }: Keeping) => {
      for (const record of late) await life.land(record)
      life.writer.flush()
    }
    await land(keeping)
    expect(keeping.life.landing.counts).toMatchObject({ lines: 4, misdated: 4 })
    const texts = textsOf(root.path)
    expect(daysOf(root.path)).toEqual(newest(4))
    expect(texts['s/m/2026-11-23.log']!.match(/c1 8[1-4]/g)).toEqual(['c1 81', 'c1 82'])
    // Even the day on which they arrived is gone: the first one that is kept takes them.
    expect(texts['s/m/2026-11-20.log']!.match(/c1 8[1-4]/g)).toEqual(['c1 83', 'c1 84'])
    keeping.life.end()

    const next = new Keeping(root.path, { now: NOON, keepDays: 3, as: 'none' })
    await land(next)
    expect(textsOf(root.path)).toEqual(texts)
    next.life.save()
    expect((await verified(root.path, next)).problems).toEqual([])
    next.life.end()
  })

  it('a clock that jumps ahead removes nothing, and one that is behind neither', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    for (const now of [NOON + 400 * DAY_MS, NOON - 400 * DAY_MS]) {
      const keeping = new Keeping(root.path, { now, as: 'none' })
      await keeping.pass()
      expect(daysOf(root.path)).toEqual(newest(8))
      keeping.life.end()
    }
  })

  it('touches nothing that is not ours', async () => {
    using root = temporaryFolder()
    using elsewhere = temporaryFolder()
    await landAll(root.path, topic)
    const oldest = newest(8)[0]
    const theirs = [
      's/m/2001-01-01.log',
      's/m/notes',
      `s/m/${oldest}.log.zst`,
      `s/m/${oldest}.bak.log`,
      '2001-01-01.log',
    ]
    for (const path of theirs) writeFileSync(join(root.path, path), 'theirs')
    mkdirSync(join(root.path, 's/n'))
    // A file that became a link, and a folder that did.
    rmSync(join(root.path, `s/m/${oldest}.log`))
    symlinkSync('notes', join(root.path, `s/m/${oldest}.log`))
    rmSync(join(root.path, 's/old'), { recursive: true })
    symlinkSync(elsewhere.path, join(root.path, 's/old'))
    writeFileSync(join(elsewhere.path, `${oldest}.log`), 'theirs')
    const keeping = new Keeping(root.path, { now: NOON, keepDays: 3, as: 'none' })
    await keeping.pass()
    for (const path of [...theirs, 's/n', `s/old/${oldest}.log`, `s/m/${oldest}.log`]) {
      expect(existsSync(join(root.path, path)), path).toBe(true)
    }
    expect((await verified(root.path, keeping)).problems).toEqual([])
    keeping.life.end()
  })
})
