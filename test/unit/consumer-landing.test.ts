import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
} from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { deferredRecords } from '../../wire/deferred-records.ts'
import { temporaryFolder } from '../support/folder.ts'
import { filesOf, Life, landAll, NOON, topicOf } from '../support/landing.ts'

const MIDNIGHT = Date.parse('2026-11-23T00:00:00.000Z')

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
              const path = join(rough.path, '.tallyman/checkpoint')
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

  const tamperings: [string, (path: string) => void][] = [
    ['cut short', (path) => truncateSync(path, 10)],
    ['removed', (path) => rmSync(path)],
    // As an editor does it, and `sed -i`.
    [
      'replaced by one as long',
      (path) => {
        copyFileSync(path, `${path}~`)
        renameSync(`${path}~`, path)
      },
    ],
  ]
  // It shows with the next line after a checkpoint, or with the checkpoint that covers what was written before.
  it.each(tamperings.flatMap(([how, tamper]) => (['after', 'before'] as const).map((when) => ({ how, tamper, when }))))(
    'a file that somebody has $how while it is open, $when a checkpoint: new lines go to a new segment',
    async (of) => {
      using root = temporaryFolder()
      const topic = topicOf([1, 4, 5].map((first) => ({ partition: 0, module: 'm', run: 1, first, count: 3 })))
      const life = new Life(root.path)
      await life.land(topic[0]!)
      life.writer.flush()
      if (of.when === 'after') life.save()
      of.tamper(join(root.path, 's/m/2026-11-23.log'))
      if (of.when === 'before') life.save()
      await life.land(topic[1]!)
      life.save()
      life.end()
      const left = filesOf(root.path)['s/m/2026-11-23.log']
      await landAll(root.path, topic)
      const files = filesOf(root.path)
      expect(files['s/m/2026-11-23.1.log']?.match(/c1 \d+/g)).toEqual(['c1 4', 'c1 5', 'c1 6', 'c1 7'])
      expect(files['s/m/2026-11-23.log']).toBe(left)
    },
  )

  it('a file that was replaced is not written to after a restart either', async () => {
    using root = temporaryFolder()
    const topic = topicOf([1, 4].map((first) => ({ partition: 0, module: 'm', run: 1, first, count: 3 })))
    const path = join(root.path, 's/m/2026-11-23.log')
    const life = new Life(root.path)
    await life.land(topic[0]!)
    life.writer.flush()
    copyFileSync(path, `${path}~`)
    renameSync(`${path}~`, path)
    life.save()
    life.end()
    await landAll(root.path, topic)
    expect(filesOf(root.path)['s/m/2026-11-23.1.log']?.match(/c1 \d+/g)).toEqual(['c1 4', 'c1 5', 'c1 6'])
  })

  it('a file that was there before us is left as it is', async () => {
    using root = temporaryFolder()
    const [first] = topicOf([{ partition: 0, module: 'm', run: 1, first: 1, count: 1 }])
    await landAll(root.path, [first!])
    rmSync(join(root.path, '.tallyman/checkpoint'))
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
    expect(readFileSync(join(root.path, '.tallyman/dead-letters/t-0-0.value'), 'utf8')).toBe('garbage')
    expect(JSON.parse(readFileSync(join(root.path, '.tallyman/dead-letters/t-0-0.json'), 'utf8'))).toMatchObject({
      topic: 't',
      partition: 0,
      offset: '0',
      key: 'k',
      reason: expect.any(String),
    })
    expect(Object.keys(filesOf(root.path))).toEqual(['s/m/2026-11-23.log'])
  })

  it('a batch that does not inflate is tried once and is one dead letter, and the next record lands', async () => {
    using root = temporaryFolder()
    let tried = 0
    const [good] = topicOf([{ partition: 0, module: 'm', run: 1, first: 1, count: 1 }])
    const records = deferredRecords(
      { compressed: Buffer.from('garbage'), count: 2, context: { firstOffset: '0' }, decode: () => [] },
      () => {
        tried++
        throw new Error('incorrect header check')
      },
    )
    const topic = [
      ...records.map((message) => ({ partition: 0, message })),
      { ...good!, message: { ...good!.message, offset: '2' } },
    ]
    const { landing } = await landAll(root.path, topic)
    expect(landing.counts).toMatchObject({ records: 3, lines: 1, undecodable: 2 })
    expect(tried).toBe(1)
    const letters = join(root.path, '.tallyman/dead-letters')
    expect(readdirSync(letters).sort()).toEqual(['t-0-0.json', 't-0-0.value'])
    expect(readFileSync(join(letters, 't-0-0.value'), 'utf8')).toBe('garbage')
    const about = JSON.parse(readFileSync(join(letters, 't-0-0.json'), 'utf8'))
    expect(about).toMatchObject({ reason: 'not-inflated', offset: '0', message: expect.stringContaining('2 records') })
  })
})
