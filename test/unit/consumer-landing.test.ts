import { execFileSync } from 'node:child_process'
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
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readIndex } from '../../consumer/index-log.ts'
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

  // A busy file: what is written next comes before the checkpoint looks at it.
  it.each([...tamperings, ['emptied', (path: string) => truncateSync(path)]] as typeof tamperings)(
    'a file that somebody has %s between two batches of one checkpoint: it stays as it is, and no line behind that is lost',
    async (_, tamper) => {
      using root = temporaryFolder()
      const path = join(root.path, 's/m/2026-11-23.log')
      const topic = topicOf([1, 4, 7].map((first) => ({ partition: 0, module: 'm', run: 1, first, count: 3 })))
      const life = new Life(root.path)
      await life.land(topic[0]!)
      life.writer.flush()
      // The line is taken up already; what counts is the moment in which it is written.
      await life.land(topic[1]!)
      tamper(path)
      const left = filesOf(root.path)['s/m/2026-11-23.log']
      life.writer.flush()
      await life.land(topic[2]!)
      life.save()
      life.end()
      const files = filesOf(root.path)
      expect(files['s/m/2026-11-23.1.log']?.match(/c1 \d+/g)).toEqual([4, 5, 6, 7, 8, 9].map((n) => `c1 ${n}`))
      expect(files['s/m/2026-11-23.log']).toBe(left)
      expect(life.writer.tampered).toBe(1)
      const rows = [
        ...readIndex(join(root.path, '.tallyman'), '2026-11-23', life.index.lengths.get('2026-11-23')!),
      ].flat()
      expect(rows.map(({ file, position, lines, numbers }) => [file, position, lines, numbers[0]])).toEqual([
        ['s/m/2026-11-23.log', 0, 3, [1, 3]],
        ['s/m/2026-11-23.1.log', 0, 6, [4, 9]],
      ])
      expect(crc32(files['s/m/2026-11-23.1.log']!)).toBe(rows[1]!.crc)
    },
  )

  it('a file that somebody has moved away takes lines until the next checkpoint', async () => {
    using root = temporaryFolder()
    const path = join(root.path, 's/m/2026-11-23.log')
    const topic = topicOf([1, 4, 7].map((first) => ({ partition: 0, module: 'm', run: 1, first, count: 3 })))
    const life = new Life(root.path)
    await life.land(topic[0]!)
    life.writer.flush()
    renameSync(path, `${path}~`)
    await life.land(topic[1]!)
    life.save()
    await life.land(topic[2]!)
    life.save()
    life.end()
    expect(life.writer.tampered).toBe(1)
    const numbers = (text: string) => text.match(/c1 \d+/g)
    expect(numbers(readFileSync(`${path}~`, 'utf8'))).toEqual([1, 2, 3, 4, 5, 6].map((n) => `c1 ${n}`))
    expect(numbers(filesOf(root.path)['s/m/2026-11-23.1.log']!)).toEqual(['c1 7', 'c1 8', 'c1 9'])
  })

  describe('a file that is not open', () => {
    const three = [1, 4, 7].map((first) => ({ partition: 0, module: 'm', run: 1, first, count: 3 }))
    const path = (root: string) => join(root, 's/m/2026-11-23.log')
    /** As `sed -i` does it: as long as before, and in place of the file. */
    const edit = (file: string) => {
      writeFileSync(`${file}~`, readFileSync(file, 'utf8').replaceAll('c1', 'c7'))
      renameSync(`${file}~`, file)
    }
    const landed = (root: string) =>
      Object.fromEntries(Object.entries(filesOf(root)).map(([file, text]) => [file, text.match(/c\d \d+/g)]))

    it.each(['saved', 'killed'])(
      'replaced by one as long while no consumer ran, which was %s: a new segment',
      async (how) => {
        using root = temporaryFolder()
        const topic = topicOf(three)
        await landAll(root.path, topic.slice(0, 1))
        if (how === 'killed') {
          const life = new Life(root.path)
          await life.land(topic[1]!)
          life.writer.flush()
          life.end()
        }
        edit(path(root.path))
        const { writer } = await landAll(root.path, topic)
        expect(writer.tampered).toBe(1)
        expect(landed(root.path)['s/m/2026-11-23.1.log']).toEqual([4, 5, 6, 7, 8, 9].map((n) => `c1 ${n}`))
      },
    )

    it('replaced by one as long after others took its place among those that are open: a new segment', async () => {
      using root = temporaryFolder()
      const others = [1, 2].map((n) => ({ partition: 0, module: `o${n}`, run: n + 1, first: 1, count: 1 }))
      const topic = topicOf([three[0]!, ...others, three[1]!])
      const life = new Life(root.path, 1)
      for (const stored of topic.slice(0, 3)) await life.land(stored)
      life.writer.flush()
      edit(path(root.path))
      await life.land(topic[3]!)
      life.save()
      life.end()
      expect(life.writer.tampered).toBe(1)
      expect(landed(root.path)['s/m/2026-11-23.1.log']).toEqual(['c1 4', 'c1 5', 'c1 6'])
    })

    it('killed with more in the file than in the checkpoint: it goes on in it', async () => {
      using root = temporaryFolder()
      const topic = topicOf(three)
      await landAll(root.path, topic.slice(0, 1))
      const life = new Life(root.path)
      await life.land(topic[1]!)
      life.writer.flush()
      life.end()
      const { writer } = await landAll(root.path, topic)
      expect(writer.tampered).toBe(0)
      expect(Object.keys(filesOf(root.path))).toEqual(['s/m/2026-11-23.log'])
    })

    it('copied with its root to another disk, times and all: it goes on in it', async () => {
      using from = temporaryFolder()
      using to = temporaryFolder()
      const topic = topicOf(three)
      await landAll(from.path, topic.slice(0, 1))
      execFileSync('cp', ['-a', `${from.path}/.`, to.path])
      const { writer } = await landAll(to.path, topic)
      expect(writer.tampered).toBe(0)
      expect(Object.keys(filesOf(to.path))).toEqual(['s/m/2026-11-23.log'])
    })
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
      {
        ...{ compressed: Buffer.from('garbage'), count: 2 },
        context: { firstOffset: '0', firstTimestamp: '0', maxTimestamp: '0', timestampType: 1 },
      },
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
