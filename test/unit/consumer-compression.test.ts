/** Files of closed days are compressed, and the daemon is killed meanwhile. */
import {
  appendFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ANYBODY } from '../../consumer/access.ts'
import { disk } from '../../consumer/disk.ts'
import { FileReader } from '../../consumer/file-reader.ts'
import { verify } from '../../consumer/verify.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Keeping, Steps, textsOf, untilKilled } from '../support/housekeeping.ts'
import { landAll, NOON, type Stored, topicOf } from '../support/landing.ts'

const DAY_MS = 86_400_000
/** The day after the one whose lines there are. */
const NEXT = NOON + DAY_MS
const FILE = 's/m/2026-11-23.log'

/** Lines of a day in two modules, and one of the next day. */
const topic = topicOf([
  ...Array.from({ length: 40 }, (_, i) => ({ partition: 0, module: 'm', run: 1, first: i * 5 + 1, count: 5 })),
  { partition: 1, module: 'm', run: 2, first: 1, count: 10 },
  { partition: 0, module: 'other', run: 3, first: 1, count: 10 },
  { partition: 0, module: 'm', run: 1, first: 201, count: 1, ms: NEXT, appended: NEXT },
])

/** A record of one more line for the day that is over. */
function late(n = 0): Stored {
  const said = { partition: 0, module: 'm', run: 1, first: 202 + n, count: 1, appended: NEXT }
  return topicOf(Array.from({ length: topic.length + n + 1 }, () => said)).at(-1)!
}

const linesOf = (texts: Record<string, string>): string[] =>
  Object.values(texts).flatMap((text) => text.split('\n').filter(Boolean))

async function problemsOf(root: string, { life }: Keeping): Promise<unknown[]> {
  return (await verify(root, life.checkpoint.state, {}, ANYBODY.may)).problems
}

describe('compression', () => {
  it.each(['zst', 'gz'] as const)('as %s: text, positions and what is verified stay as they were', async (as) => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const before = textsOf(root.path)
    const keeping = new Keeping(root.path, { now: NEXT, as })
    await keeping.pass()
    const after = textsOf(root.path)
    const closed = [FILE, 's/m/2026-11-23.p1.log', 's/other/2026-11-23.log']
    expect(Object.keys(after)).toEqual([...closed.map((file) => `${file}.${as}`), 's/m/2026-11-24.log'].sort())
    expect(linesOf(after).sort()).toEqual(linesOf(before).sort())
    expect(await problemsOf(root.path, keeping)).toEqual([])
    using reader = new FileReader({ root: root.path, files: keeping.life.checkpoint.state.files })
    const text = Buffer.from(before[FILE]!, 'latin1')
    for (const position of [0, 999, 1000, 5432, text.length - 10]) {
      expect(await reader.readRange(FILE, position, 1500)).toEqual(text.subarray(position, position + 1500))
    }
    expect(keeping.compression.compressed).toMatchObject({ files: 3, failed: 0 })
    expect([...keeping.manifests.list({ until: '2026-11-23' })][0]!.files[0]).toMatchObject({
      ...{ file: FILE, compressed: as, bytes: text.length, stored: expect.any(Number) },
    })
    keeping.life.end()
  })

  it('killed at any step: no line is ever missing, and the next start leaves each there once', {
    timeout: 60_000,
  }, async () => {
    using before = temporaryFolder()
    await landAll(before.path, topic.slice(38))
    const lines = linesOf(textsOf(before.path)).length
    for (let kill = 0; ; kill++) {
      using root = temporaryFolder()
      cpSync(before.path, root.path, { recursive: true })
      const steps = new Steps(kill)
      const outcome = await untilKilled(root.path, { now: NEXT, steps })
      const left = linesOf(textsOf(root.path))
      const last = steps.taken.at(-1)
      expect(new Set(left).size, `killed after ${last}`).toBe(lines)
      // Between the two calls that cannot be one they stand there twice.
      if (last === 'link') expect(left.length).toBeGreaterThan(lines)
      else expect(left.length, `killed after ${last}`).toBe(lines)

      const next = new Keeping(root.path, { now: NEXT })
      expect(linesOf(textsOf(root.path)), `killed after ${last}`).toHaveLength(lines)
      expect(await problemsOf(root.path, next)).toEqual([])
      await next.life.land(late())
      next.life.save()
      await next.pass()
      const texts = textsOf(root.path)
      expect(linesOf(texts)).toHaveLength(lines + 1)
      expect(Object.keys(texts).filter((path) => !path.endsWith('.zst'))).toEqual(['s/m/2026-11-24.log'])
      expect(readdirSync(join(root.path, '.tallyman/compressing'))).toEqual([])
      expect(await problemsOf(root.path, next)).toEqual([])
      next.life.end()
      if (outcome === 'done') {
        expect(steps.taken).toEqual(expect.arrayContaining(['compress', 'append', 'link', 'unlinkHeld', 'syncFolder']))
        return
      }
    }
  })

  it('leaves the live day alone, and one that is not over for long enough', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const texts = textsOf(root.path)
    for (const now of [NOON, NOON + DAY_MS / 2 + 59 * 60_000]) {
      const keeping = new Keeping(root.path, { now, after: 3_600_000 })
      await keeping.pass()
      expect(textsOf(root.path)).toEqual(texts)
      keeping.life.end()
    }
  })

  it('a line that comes late goes to a new segment, which is compressed once no more come', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const keeping = new Keeping(root.path, { now: NEXT, after: 3_600_000 })
    // A copy of a record that landed: it tells how late it is.
    await keeping.life.land(topic.at(-1)!)
    const idle = (file: string, ms: number) => {
      const time = (NEXT - ms) / 1000
      utimesSync(join(root.path, file), time, time)
    }
    for (const file of Object.keys(textsOf(root.path))) idle(file, 3_600_000)
    await keeping.pass()
    const before = readFileSync(join(root.path, `${FILE}.zst`))
    for (const n of [0, 1]) {
      await keeping.life.land(late(n))
      keeping.life.save()
      idle('s/m/2026-11-23.1.log', 3_599_999)
      await keeping.pass()
    }
    expect(textsOf(root.path)['s/m/2026-11-23.1.log']!.match(/c1 \d+/g)).toEqual(['c1 202', 'c1 203'])
    idle('s/m/2026-11-23.1.log', 3_600_000)
    await keeping.pass()
    expect(existsSync(join(root.path, 's/m/2026-11-23.1.log.zst'))).toBe(true)
    await keeping.life.land(late(2))
    keeping.life.save()
    expect(existsSync(join(root.path, 's/m/2026-11-23.2.log'))).toBe(true)
    expect(readFileSync(join(root.path, `${FILE}.zst`))).toEqual(before)
    expect(await problemsOf(root.path, keeping)).toEqual([])
    keeping.life.end()
  })

  it.each<[string, (root: string) => void]>([
    ['a file of that name that is not ours', (root) => writeFileSync(join(root, `${FILE}.zst`), 'mine')],
    ['a file that somebody wrote to', (root) => appendFileSync(join(root, FILE), 'mine\n')],
  ])('leaves %s as it is, and goes on with the others', async (_, tamper) => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    tamper(root.path)
    const before = readFileSync(join(root.path, FILE))
    const keeping = new Keeping(root.path, { now: NEXT })
    await keeping.pass()
    await keeping.pass()
    expect(readFileSync(join(root.path, FILE))).toEqual(before)
    expect(keeping.compression.compressed).toMatchObject({ files: 2, failed: 1 })
    expect(await problemsOf(root.path, keeping)).toEqual([])
    keeping.life.end()
  })

  it.each(['ENOSPC', 'EIO'])(
    'refused the new name with %s: the checkpoint tells of the plain file again',
    async (code) => {
      using root = temporaryFolder()
      await landAll(root.path, topic)
      const before = textsOf(root.path)
      const refuse = () => {
        throw Object.assign(new Error(code), { code })
      }
      const keeping = new Keeping(root.path, { now: NEXT, on: { ...disk, link: refuse } })
      await keeping.pass()
      expect(textsOf(root.path)).toEqual(before)
      expect(await problemsOf(root.path, keeping)).toEqual([])
      expect(keeping.compression.compressed).toMatchObject({ files: 0, failed: 3 })
      keeping.life.end()
      const next = new Keeping(root.path, { now: NEXT })
      await next.pass()
      expect(next.compression.compressed).toMatchObject({ files: 3, failed: 0 })
      expect(await problemsOf(root.path, next)).toEqual([])
      next.life.end()
    },
  )

  it('refused the new name, and then the checkpoint as well: the next pass finishes it', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const lines = linesOf(textsOf(root.path)).length
    const refuse = () => {
      throw Object.assign(new Error('full'), { code: 'ENOSPC' })
    }
    const full = { ...disk }
    const keeping = new Keeping(root.path, { now: NEXT, on: full })
    const { checkpoint } = keeping.life
    const append = checkpoint.append.bind(checkpoint)
    full.link = () => {
      checkpoint.append = refuse
      refuse()
    }
    await expect(keeping.pass()).rejects.toThrow('full')
    checkpoint.append = append
    full.link = disk.link
    await keeping.pass()
    expect(Object.keys(textsOf(root.path)).filter((path) => !path.endsWith('.zst'))).toEqual(['s/m/2026-11-24.log'])
    expect(linesOf(textsOf(root.path))).toHaveLength(lines)
    expect(await problemsOf(root.path, keeping)).toEqual([])
    keeping.life.end()
  })

  it('refused to take the plain name away until the day is not kept any more: both names go', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const failing = { ...disk }
    failing.unlinkHeld = () => {
      throw Object.assign(new Error('EIO'), { code: 'EIO' })
    }
    // Days pass as records say it.
    const keeping = new Keeping(root.path, { now: NOON + 9 * DAY_MS, keepDays: 1, on: failing })
    await expect(keeping.pass()).rejects.toThrow('EIO')
    expect([FILE, `${FILE}.zst`].filter((file) => existsSync(join(root.path, file)))).toHaveLength(2)
    const far = NOON + 5 * DAY_MS
    const said = { partition: 0, module: 'm', run: 1, first: 202, count: 1, ms: far, appended: far }
    await keeping.life.land(topicOf(Array.from({ length: topic.length + 1 }, () => said)).at(-1)!)
    await expect(keeping.pass()).rejects.toThrow('EIO')
    failing.unlinkHeld = disk.unlinkHeld
    await keeping.pass()
    await keeping.pass()
    expect(Object.keys(textsOf(root.path))).toEqual(['s/m/2026-11-28.log'])
    expect([...keeping.life.checkpoint.state.files.keys()]).toEqual(['s/m/2026-11-28.log'])
    expect(readdirSync(join(root.path, '.tallyman/index'))).toEqual(['2026-11-28'])
    keeping.life.end()
  })

  it('finds a byte of a compressed file that was changed', async () => {
    using root = temporaryFolder()
    await landAll(root.path, topic)
    const keeping = new Keeping(root.path, { now: NEXT })
    await keeping.pass()
    const path = join(root.path, `${FILE}.zst`)
    const bytes = readFileSync(path)
    bytes[bytes.length - 20]! ^= 1
    writeFileSync(path, bytes)
    expect(await problemsOf(root.path, keeping)).toMatchObject([{ file: FILE, what: 'changed' }])
    rmSync(path)
    expect(await problemsOf(root.path, keeping)).toMatchObject([{ file: FILE, what: 'missing' }])
    keeping.life.end()
  })
})
