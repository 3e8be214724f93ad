import { appendFileSync, existsSync, mkdirSync, readdirSync, rmdirSync, unlinkSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { readCheckpoint, startOfRun } from '../../driver/checkpoint.ts'
import { UnreadableError } from '../../driver/cursor.ts'
import { journalEnd, listSegments, runFolder, segmentPath, writeGap } from '../../driver/journal.ts'
import { createRun, type RunOptions, type RunRecord } from '../../driver/run.ts'
import { Shipment } from '../../driver/shipment.ts'
import { Shipper, type ShipperEvents } from '../../driver/shipper.ts'
import { Slots } from '../../driver/slots.ts'
import { decodeChunk, type LostRange } from '../../wire/chunk.ts'
import { type OutgoingRecord, type Producer, RefusedError } from '../../wire/producer.ts'
import { partitionOf, recordKey } from '../../wire/record.ts'
import type { Topics } from '../../wire/topics.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame, lineFrames } from '../support/log-entry.ts'
import { runOptions } from '../support/run.ts'

type ShipperTopics = Pick<Topics, 'partitions' | 'leaderless' | 'lost' | 'forget'>

/** A Kafka that keeps what it is sent; `hold` makes it acknowledge nothing until `release`, `refuse` refuses some of the sends that come. */
class FakeProducer implements Pick<Producer, 'send' | 'stop'>, ShipperTopics {
  sent: (OutgoingRecord & { topic: string })[] = []
  /** Topics that there are not. */
  missing = new Set<string>()
  /** Records from which on a batch is too large, bytes. */
  limit = Number.POSITIVE_INFINITY
  count = 12
  #refusals = 0
  #held: PromiseWithResolvers<void> | undefined
  #stopped = Promise.withResolvers<never>()
  partitions = (topic: string) => (this.missing.has(topic) ? undefined : this.count)
  forget() {}
  /** Partitions that take nothing, and those of them of which that is known. */
  deaf = new Set<number>()
  #known = new Set<number>()
  leaderless = () => this.#known
  lost(_topic: string, partitions: Iterable<number>) {
    this.#known = new Set([...this.#known, ...partitions])
  }
  /** All partitions take what they get again. */
  hear() {
    this.deaf = new Set()
    this.#known = new Set()
  }
  hold() {
    this.#held = Promise.withResolvers<void>()
  }
  release() {
    this.#held?.resolve()
    this.#held = undefined
  }
  refuse(sends: number) {
    this.#refusals = sends
  }
  async send(topic: string, records: OutgoingRecord[]) {
    if (records.some(({ partition }) => partition >= this.count) || this.#refusals-- > 0)
      throw new RefusedError('no-partition', 'no such partition')
    const bytes = records.reduce((sum, { value }) => sum + value.length, 0)
    if (bytes > this.limit) throw new RefusedError('too-large', `${bytes} bytes`)
    const taken = records.filter(({ partition }) => !this.deaf.has(partition))
    // Copied, as a network would: the arena is used again after the acknowledgement.
    this.sent.push(...taken.map((record) => ({ ...record, topic, value: Buffer.from(record.value) })))
    await Promise.race([this.#held?.promise, this.#stopped.promise])
    if (taken.length < records.length)
      throw new RefusedError('no-leader', 'no leader', new Set(taken.map(({ partition }) => partition)))
    return 0
  }
  stop() {
    this.#stopped.promise.catch(() => {})
    this.#stopped.reject(new Error('stopped'))
  }
}

const line = (text: string) => frame({ source: 'stdout', time: 1_000n, line: Buffer.from(text) })

type Options = Partial<RunOptions> & { journalMax?: number; runsMax?: number; syncInterval?: number }

/** A journal with one run, and a shipper that is started and stopped as a driver is. */
function house(journal: string, options: Options = {}) {
  const { journalMax = Number.POSITIVE_INFINITY, runsMax = 10, syncInterval = 0, ...differing } = options
  const slots = new Slots()
  const record: RunRecord = createRun(journal, {
    file: '/f',
    service: 'shop',
    module: 'api',
    host: 'h1',
    container: { id: 'c1', name: 'api-1', image: 'api:1' },
    attrs: {},
    started: 0,
    options: runOptions({ cacheBytes: 0, ...differing }),
  })
  const folder = runFolder(journal, record.run)
  const slot = slots.claim(0)!
  const skips: number[] = []
  const removed: string[] = []
  const closes: number[] = []
  const losses: LostRange[] = []
  const stumbles: { error: Error; gaveUp: boolean }[] = []
  let numbered = 0
  const others: RunRecord[] = []
  let kept: RunRecord | undefined
  return {
    folder,
    record,
    /** Has the shipper keep a run that is over. */
    keep(over: RunRecord) {
      kept = over
    },
    /** Has the shipper take up another run, with these bytes in its journal. */
    add(differing: Partial<RunOptions>, bytes: Uint8Array) {
      const { run: _, v: __, ...description } = record
      const other = createRun(journal, { ...description, options: runOptions({ cacheBytes: 0, ...differing }) })
      writeFileSync(segmentPath(runFolder(journal, other.run), 0), bytes)
      others.push(other)
      return runFolder(journal, other.run)
    },
    held: () => slots.held(slot),
    written: () => slots.written(slot),
    skips,
    losses,
    stumbles,
    numbered: () => numbered,
    removed,
    closes,
    /** Closes the segment, as intake does. */
    close: () => slots.close(slot),
    /** Journals bytes as intake does. */
    write(bytes: Uint8Array, base = 0) {
      appendFileSync(segmentPath(folder, base), bytes)
      slots.addWritten(slot, bytes.length)
      slots.ring()
    },
    /** Counts bytes as journalled that are not there. */
    grow: (bytes: number) => slots.addWritten(slot, bytes),
    end() {
      slots.end(slot)
      slots.ring()
    },
    /** Runs a shipper from the checkpoint on until `until` resolves. */
    async ship(producer: FakeProducer, until: (done: Promise<void>, shipper: Shipper) => Promise<unknown>) {
      const done = Promise.withResolvers<void>()
      const shipper = new Shipper({
        journal,
        journalMax,
        runsMax,
        topic: 'tallyman',
        slots,
        producer,
        topics: producer,
        linger: 1,
        syncInterval,
        retryMs: 1,
        events: {
          done: () => done.resolve(),
          numbered: (lines) => {
            numbered += lines
          },
          acknowledged: () => {},
          diskRefused: (error) => expect.fail(error.message),
          stumbled: (_run, error, gaveUp) => stumbles.push({ error, gaveUp }),
          removed: ({ run }) => removed.push(run),
          closeSegment: (of) => closes.push(of),
          skipped: (_run, { bytes }) => skips.push(bytes),
          refused: () => {},
          lost: (_run, range) => losses.push(range),
        },
      })
      if (kept) shipper.keep(kept, readCheckpoint(runFolder(journal, kept.run))!)
      shipper.add(slot, record, readCheckpoint(folder) ?? startOfRun())
      for (const other of others) shipper.add(slots.claim(journalEnd(runFolder(journal, other.run)))!, other)
      const loop = shipper.loop().catch(() => {})
      await until(done.promise, shipper)
      shipper.stop()
      await loop
    },
  }
}

/** Bytes of a run's journal. */
const held = (folder: string) => listSegments(folder).reduce((sum, { length }) => sum + length, 0)

/** What the chunks tell of lines that are lost. */
const lostIn = (producer: FakeProducer) => producer.sent.flatMap(({ value }) => decodeChunk(value).lost)

const texts = (producer: FakeProducer) =>
  producer.sent.flatMap(({ value }) => {
    const { lines, len, data, first } = decodeChunk(value)
    let at = 0
    return Array.from({ length: lines }, (_, i) => {
      at += len[i]!
      return `${first[0] + i} ${Buffer.from(data.subarray(at - len[i]!, at)).toString()}`
    })
  })

describe('shipping', () => {
  it('a run to its end leaves its lines and the totals in Kafka, and no folder', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    run.write(Buffer.concat([line('one'), line('two')]))
    run.end()
    await run.ship(kafka, (done) => done)
    expect(texts(kafka)).toEqual(['1 one', '2 two'])
    expect(decodeChunk(kafka.sent.at(-1)!.value).end).toEqual([2, 0])
    expect(kafka.sent[0]).toMatchObject({ key: 'shop/api', headers: { service: 'shop', module: 'api', host: 'h1' } })
    expect(existsSync(run.folder)).toBe(false)
  })

  it('a run without a byte leaves nothing', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    run.end()
    await run.ship(kafka, (done) => done)
    expect(kafka.sent).toEqual([])
    expect(existsSync(run.folder)).toBe(false)
  })

  it('half a frame waits for its rest', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    const bytes = line('in two halves')
    run.write(bytes.subarray(0, 9))
    await run.ship(kafka, async (done) => {
      run.write(bytes.subarray(9))
      run.end()
      await done
    })
    expect(texts(kafka)).toEqual(['1 in two halves'])
  })

  it('what was not acknowledged is sent again with the same numbers, and the checkpoint has not moved', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const away = new FakeProducer()
    away.hold()
    run.write(Buffer.concat([line('one'), line('two')]))
    await run.ship(away, async () => expect.poll(() => away.sent.length).toBe(1))
    expect(readCheckpoint(run.folder)?.offset).toBe(0)

    const back = new FakeProducer()
    run.write(line('three'))
    run.end()
    await run.ship(back, (done) => done)
    expect(texts(away)).toEqual(['1 one', '2 two'])
    expect(texts(back)).toEqual(['1 one', '2 two', '3 three'])
    expect(back.sent[0]!.partition).toBe(away.sent[0]!.partition)
  })

  it('a stop keeps what was acknowledged: the next driver goes on behind it, inside a split line too', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const first = new FakeProducer()
    const parts = lineFrames('stdout', 1_000n, Buffer.alloc(40_000, 'x'), 'id')
    run.write(Buffer.concat([line('one'), parts[0]!]))
    await run.ship(first, async () => expect.poll(() => readCheckpoint(run.folder)?.offset).toBeGreaterThan(0))

    const second = new FakeProducer()
    run.write(Buffer.concat(parts.slice(1)))
    run.end()
    await run.ship(second, (done) => done)
    expect(texts(first)).toEqual(['1 one'])
    expect(texts(second).map((text) => [text.slice(0, 3), text.length])).toEqual([['2 x', 40_002]])
  })

  it('a burst that is larger than one read goes out whole, though nothing follows it', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    run.write(Buffer.concat(Array.from({ length: 10_000 }, (_, i) => line(`${i}`.padEnd(100)))))
    await run.ship(kafka, () => expect.poll(() => texts(kafka).length).toBe(10_000))
  })

  it('foreign bytes in a journal are passed over and told, and the lines around them arrive', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    run.write(Buffer.concat([line('before'), Buffer.alloc(100, 0xff), line('after'), Buffer.from('a torn tail')]))
    run.end()
    kafka.refuse(2)
    await run.ship(kafka, (done) => done)
    const bytesEach = line('before').length
    // As many as the bytes would hold of lines like those before them; of the tail it is one at least.
    const [within, behind] = [Math.round(100 / bytesEach), 1]
    expect(texts(kafka)).toEqual(['1 before', `${2 + within} after`])
    expect(run.skips.reduce((a, b) => a + b)).toBe(111)
    expect(run.losses).toEqual([
      { source: 0, from: 2, count: within, reason: 'damaged' },
      { source: 0, from: 3 + within, count: behind, reason: 'damaged' },
    ])
    expect(lostIn(kafka)).toEqual(run.losses)
    expect(decodeChunk(kafka.sent.at(-1)!.value).end).toEqual([2 + within + behind, 0])
  })

  it('a newline in a damaged journal does not make two lines of one', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    run.write(Buffer.concat([line('one'), line('t\nwo')]))
    run.end()
    await run.ship(kafka, (done) => done)
    expect(texts(kafka)).toEqual(['1 one', '2 t wo'])
  })

  it('a segment that is missing costs its lines alone', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    const bytes = line('kept')
    run.write(bytes)
    run.write(line('gone'), bytes.length)
    run.write(bytes, 2 * bytes.length)
    writeFileSync(segmentPath(run.folder, bytes.length), '')
    run.end()
    await run.ship(kafka, (done) => done)
    expect(texts(kafka)).toEqual(['1 kept', '3 kept'])
    expect(lostIn(kafka)).toEqual([{ source: 0, from: 2, count: 1, reason: 'damaged' }])
  })

  it('a segment that can’t be read costs its lines alone, be it in the middle of frames, and other runs go on', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    run.add({}, line('flows'))
    const kafka = new FakeProducer()
    const [one, two, three] = [line('one'), line('two'), line('three')]
    const bytes = Buffer.concat([one, two, three, line('four')])
    const cuts = [0, one.length + 9, one.length + two.length + 9]
    cuts.forEach((cut, i) => {
      run.write(bytes.subarray(cut, cuts[i + 1]), cut)
    })
    unlinkSync(segmentPath(run.folder, cuts[1]!))
    mkdirSync(segmentPath(run.folder, cuts[1]!))
    run.end()
    await run.ship(kafka, (done) => done.then(() => expect.poll(() => texts(kafka)).toContain('1 flows')))
    expect(texts(kafka).toSorted()).toEqual(['1 flows', '1 one', '4 four'])
    expect(run.skips.reduce((a, b) => a + b)).toBe(two.length + three.length)
    expect(lostIn(kafka)).toEqual([{ source: 0, from: 2, count: 2, reason: 'damaged' }])
    expect(run.stumbles.map(({ gaveUp }) => gaveUp)).toEqual([false, false, true])
  })

  it('what was given up of a segment stays given up for the next driver, though the disk gives it after all', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const [one, two, three] = [line('one'), line('two'), line('three')]
    run.write(one)
    run.write(two, one.length)
    run.write(three, one.length + two.length)
    const path = segmentPath(run.folder, one.length)
    unlinkSync(path)
    mkdirSync(path)
    const away = new FakeProducer()
    away.hold()
    await run.ship(away, () => expect.poll(() => texts(away)).toContain('3 three'))
    rmdirSync(path)
    writeFileSync(path, two)
    const back = new FakeProducer()
    run.end()
    await run.ship(back, (done) => done)
    expect(texts(back)).toEqual(['1 one', '3 three'])
    expect(decodeChunk(back.sent.at(-1)!.value).end).toEqual([3, 0])
  })

  it('a run that can’t be built keeps no other from going on, and comes to an end once it can', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    run.add({}, line('flows'))
    const kafka = new FakeProducer()
    run.write(line('one'))
    run.end()
    // An error that nobody foresaw, for as long as it lasts.
    const { attrs } = run.record
    Object.defineProperty(run.record, 'attrs', { get: () => expect.unreachable('a bug'), configurable: true })
    await run.ship(kafka, async (done) => {
      await expect.poll(() => texts(kafka)).toEqual(['1 flows'])
      await expect.poll(() => run.stumbles.some(({ gaveUp }) => gaveUp)).toBe(true)
      Object.defineProperty(run.record, 'attrs', { value: attrs })
      await done
    })
    expect(texts(kafka)).toEqual(['1 flows'])
    expect(lostIn(kafka)).toEqual([{ source: 0, from: 1, count: 1, reason: 'damaged' }])
    expect(run.losses).toEqual(lostIn(kafka))
  })

  it('a run that stumbles over a line far behind what was built last loses all that was read with it, and goes on', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    const much = Buffer.concat(Array.from({ length: 1_000 }, (_, i) => line(`${i}`.padEnd(100))))
    for (let base = 0; base < much.length; base += 50_000) run.write(much.subarray(base, base + 50_000), base)
    const { attrs } = run.record
    Object.defineProperty(run.record, 'attrs', { get: () => expect.unreachable('a bug'), configurable: true })
    await run.ship(kafka, async (done) => {
      await expect.poll(() => run.skips).toEqual([much.length])
      Object.defineProperty(run.record, 'attrs', { value: attrs })
      run.write(line('after'), much.length)
      run.end()
      await done
    })
    expect(texts(kafka)).toEqual(['2 after'])
    expect(run.stumbles.map(({ gaveUp }) => gaveUp)).toEqual([false, false, true])
  })

  it.each([
    ['a disk with an error', 'EIO', [false, false, true]],
    ['a process that has no descriptor left', 'EMFILE', [false, false, false, false, false, false]],
  ])('%s: what is in the journal is given up only where the disk does not give it', (_, code, tries) => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    run.write(line('one'))
    const slots = new Slots()
    const gaveUp: boolean[] = []
    const events = { stumbled: (_run: RunRecord, _error: Error, gave: boolean) => void gaveUp.push(gave) }
    const shipment = new Shipment(journal.path, slots.claim(line('one').length)!, run.record, startOfRun(), {
      slots,
      retryMs: 1,
      events: events as unknown as ShipperEvents,
    })
    for (let i = 0; i < tries.length; i++) {
      shipment.reader.failure = { error: Object.assign(new Error('refused'), { code }), offset: 0 }
      shipment.stumbled(new UnreadableError('it can’t be read'))
    }
    expect(gaveUp).toEqual(tries)
    expect(shipment.reader.read(Buffer.alloc(100), 0, line('one').length, 0)).toBe(
      tries.includes(true) ? 0 : line('one').length,
    )
    shipment.reader.close()
  })

  it('damage counts no more lines than its bytes can hold, however many were dropped before', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    const before = line('before')
    run.write(before)
    writeGap(run.folder, { offset: before.length, lines: [1_000_000, 0] })
    run.write(Buffer.concat([Buffer.alloc(100, 0xff), line('after')]), before.length)
    run.end()
    await run.ship(kafka, (done) => done)
    const within = Math.round(100 / 12)
    expect(texts(kafka)).toEqual(['1 before', `${1_000_002 + within} after`])
    expect(lostIn(kafka)).toContainEqual({ source: 0, from: 1_000_002, count: within, reason: 'damaged' })
  })

  it('what a run left in a batch that could not be read on may be refused as too large, and others go on', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    run.add({ key: 'run' }, line('flows'))
    const kafka = new FakeProducer()
    kafka.count = 10_000
    const send = kafka.send.bind(kafka)
    let refused = 0
    kafka.send = async (topic, records) => {
      const small = records.filter(({ value }) => value.length < 100_000)
      await send(topic, small)
      if (small.length === records.length) return 0
      refused++
      throw new RefusedError('too-large', 'a large one', new Set(small.map(({ partition }) => partition)))
    }
    const lines = Buffer.concat(Array.from({ length: 10_000 }, (_, i) => line(`${i}`.padEnd(10))))
    run.write(lines)
    mkdirSync(segmentPath(run.folder, lines.length))
    run.write(line('behind'), 2 * lines.length)
    run.grow(lines.length)
    run.end()
    await run.ship(kafka, (done) => done)
    expect(refused).toBeGreaterThan(0)
    expect(new Set(texts(kafka).map((text) => text.split(' ')[1]))).toContain('flows')
    expect(texts(kafka).at(-1)).toMatch(/ behind$/)
  }, 20_000)

  it('runs without a byte go while their topic is missing, and those with lines wait for it', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const printed = run.add({}, line('waits'))
    const kafka = new FakeProducer()
    kafka.missing.add('tallyman')
    run.end()
    await run.ship(kafka, (done) => done)
    expect(existsSync(run.folder)).toBe(false)
    expect(existsSync(printed)).toBe(true)
  })

  it('shipped segments are removed while the run goes on', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    let base = 0
    for (const text of ['one', 'two', 'three']) {
      const bytes = line(text)
      run.write(bytes, base)
      base += bytes.length
    }
    await run.ship(kafka, () =>
      expect.poll(() => readdirSync(run.folder).filter((name) => name.endsWith('.segment'))).toHaveLength(1),
    )
    expect(texts(kafka)).toEqual(['1 one', '2 two', '3 three'])
  })

  it('no record and no partition of a batch grows beyond what a broker takes, whatever waits', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    const batches: number[] = []
    const send = kafka.send.bind(kafka)
    kafka.send = (topic, records) => {
      batches.push(records.reduce((sum, { value }) => sum + value.length, 0))
      return send(topic, records)
    }
    run.write(Buffer.concat(Array.from({ length: 40_000 }, (_, i) => line(`${i}`.padEnd(100)))))
    run.end()
    await run.ship(kafka, (done) => done)
    expect(texts(kafka)).toHaveLength(40_000)
    expect(Math.max(...batches)).toBeLessThanOrEqual(768 * 1024)
    expect(Math.max(...kafka.sent.map(({ value }) => decodeChunk(value).lines))).toBeLessThanOrEqual(8192)
  })

  it('journals that are full give their oldest lines, and say which when Kafka is back', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { journalMax: 500_000 })
    const away = new FakeProducer()
    away.hold()
    // Segments that end inside of a frame.
    const bytes = Buffer.concat(Array.from({ length: 1000 }, (_, i) => line(`${i + 1}`.padEnd(1000))))
    for (let at = 0; at < bytes.length; at += 100_001) run.write(bytes.subarray(at, at + 100_001), at)
    await run.ship(away, () => expect.poll(() => held(run.folder)).toBeLessThanOrEqual(500_000))
    const kept = readCheckpoint(run.folder)!

    const back = new FakeProducer()
    run.end()
    await run.ship(back, (done) => done)
    const lost = kept.lines.next[0] - 1
    expect(lost).toBeGreaterThan(400)
    expect(lost).toBeLessThan(700)
    const numbers = texts(back).map((text) => text.trim().split(' '))
    expect(numbers).toEqual(Array.from({ length: 1000 - lost }, (_, i) => [`${lost + 1 + i}`, `${lost + 1 + i}`]))
    expect(decodeChunk(back.sent[0]!.value).lost).toEqual([{ source: 0, from: 1, count: lost, reason: 'journal-full' }])
    expect(decodeChunk(back.sent.at(-1)!.value).end).toEqual([1000, 0])
  })

  it('a run to its end is kept for docker logs where its container has a budget, and is not shipped again', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { cacheBytes: 10_000 })
    run.write(line('one'))
    run.end()
    await run.ship(new FakeProducer(), (done) => done)
    expect(run.removed).toEqual([])
    expect(readCheckpoint(run.folder)).toMatchObject({ ended: true, starts: [[0, 0]] })
  })

  it('what is shipped goes beyond the budget, and the rest can be read from the first whole frame on', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { cacheBytes: 25_000 })
    const frames = Array.from({ length: 100 }, (_, i) => line(`${i + 1}`.padEnd(1000)))
    const bytes = Buffer.concat(frames)
    for (let at = 0; at < bytes.length; at += 10_001) run.write(bytes.subarray(at, at + 10_001), at)
    await run.ship(new FakeProducer(), () => expect.poll(() => existsSync(segmentPath(run.folder, 0))).toBe(false))
    const { starts } = readCheckpoint(run.folder)!
    const kept = listSegments(run.folder)
    expect(kept.length).toBeLessThan(4)
    const boundaries = frames.map((_, i) => i * frames[0]!.length)
    for (const { base } of kept) {
      const first = boundaries.find((boundary) => boundary >= base)
      if (first !== undefined) expect(starts).toContainEqual([base, first])
    }
  })

  it('journals that are full give what is kept of runs that are over before any line that was not sent', async () => {
    using journal = temporaryFolder()
    const over = house(journal.path, { cacheBytes: 1_000_000 })
    over.write(Buffer.concat(Array.from({ length: 300 }, () => line('x'.repeat(1000)))))
    over.end()
    await over.ship(new FakeProducer(), (done) => done)
    const run = house(journal.path, { journalMax: 250_000, cacheBytes: 1_000_000 })
    const away = new FakeProducer()
    away.hold()
    run.keep(over.record)
    for (let i = 0; i < 2; i++)
      run.write(Buffer.concat(Array.from({ length: 100 }, () => line('y'.repeat(1000)))), i * run.written())
    await run.ship(away, () => expect.poll(() => run.removed).toEqual([over.record.run]))
    expect(run.losses).toEqual([])
  })

  it('lines that are given up are told once, however often the batch that tells of them is refused and built anew', async () => {
    using folder = temporaryFolder()
    const run = house(folder.path)
    const one = line('one')
    run.write(one)
    writeGap(run.folder, { offset: one.length, lines: [3, 0] })
    run.write(line('two'), one.length)
    run.end()
    const kafka = new FakeProducer()
    kafka.refuse(3)
    await run.ship(kafka, (done) => done)
    const lost = { source: 0, from: 2, count: 3, reason: 'disk' }
    expect(run.losses).toEqual([lost])
    expect(kafka.sent.flatMap(({ value }) => decodeChunk(value).lost)).toEqual([lost])
  })

  it('lines that were dropped are told, though half a frame is all that follows them', async () => {
    using folder = temporaryFolder()
    const run = house(folder.path)
    const [one, two] = [line('one'), line('two')]
    run.write(one)
    await run.ship(new FakeProducer(), () => expect.poll(() => readCheckpoint(run.folder)?.offset).toBe(one.length))
    writeGap(run.folder, { offset: one.length, lines: [3, 0] })
    run.write(two.subarray(0, 5), one.length)
    const kafka = new FakeProducer()
    const lost = { source: 0, from: 2, count: 3, reason: 'disk' }
    await run.ship(kafka, async (done) => {
      await expect.poll(() => run.losses).toEqual([lost])
      run.write(two.subarray(5), one.length)
      run.end()
      await done
    })
    expect(texts(kafka)).toEqual(['5 two'])
    expect(run.losses).toEqual([lost])
    expect(kafka.sent.flatMap(({ value }) => decodeChunk(value).lost)).toEqual([lost])
  })

  it.each([
    { taken: 'all that was built', filling: 3 },
    { taken: 'less than was given up', filling: 9 },
  ])(
    'a batch under way while the journals give up its lines: $taken arrives, and no line is told twice or as lost',
    async ({ filling }) => {
      using folder = temporaryFolder()
      const run = house(folder.path, { journalMax: 500_000 })
      const kafka = new FakeProducer()
      kafka.hold()
      const segment = (from: number) =>
        Buffer.concat(Array.from({ length: 90 }, (_, i) => line(`${from + i}`.padEnd(1000))))
      let printed = 1
      const write = (segments: number) => {
        for (let i = 0; i < segments; i++, printed += 90) run.write(segment(printed), run.written())
      }
      write(1)
      writeGap(run.folder, { offset: run.written(), lines: [7, 0] })
      printed += 7
      write(3)
      await run.ship(kafka, async (done) => {
        await expect.poll(() => kafka.sent.length).toBeGreaterThan(0)
        const { lines } = kafka.sent.map(({ value }) => decodeChunk(value)).at(-1)!
        expect(lines).toBeGreaterThan(0)
        write(filling)
        await expect
          .poll(() => listSegments(run.folder).reduce((sum, { length }) => sum + length, 0))
          .toBeLessThan(500_000)
        kafka.release()
        run.end()
        await done
      })
      const arrived = texts(kafka).map((text) => Number.parseInt(text, 10))
      const lost = run.losses.flatMap(({ from, count }) => Array.from({ length: count }, (_, i) => from + i))
      expect([...arrived, ...lost].sort((a, b) => a - b)).toEqual(Array.from({ length: printed - 1 }, (_, i) => i + 1))
      expect(run.losses[0]).toEqual({ source: 0, from: 91, count: 7, reason: 'disk' })
      expect(run.numbered()).toBe(printed - 1)
    },
  )

  it('what the journals give up of a batch under way is lost when Kafka refuses that', async () => {
    using folder = temporaryFolder()
    const run = house(folder.path, { journalMax: 500_000 })
    const refusal = Promise.withResolvers<void>()
    const kafka = new FakeProducer()
    const send = kafka.send.bind(kafka)
    let sends = 0
    kafka.send = async (topic, records) => {
      if (sends++ > 0) return send(topic, records)
      await refusal.promise
      throw new RefusedError('no-partition', 'gone by now')
    }
    const bytes = Buffer.concat(Array.from({ length: 90 }, (_, i) => line(`${i}`.padEnd(1000))))
    const write = (segments: number) => {
      for (let i = 0; i < segments; i++) run.write(bytes, run.written())
    }
    write(1)
    await run.ship(kafka, async (done) => {
      await expect.poll(() => sends).toBe(1)
      write(6)
      await expect.poll(() => existsSync(segmentPath(run.folder, 0))).toBe(false)
      refusal.resolve()
      run.end()
      await done
    })
    const lost = run.losses.reduce((sum, { count }) => sum + count, 0)
    expect(lost).toBeGreaterThanOrEqual(90)
    expect(lost + texts(kafka).length).toBe(7 * 90)
    expect(run.numbered()).toBe(7 * 90)
  })

  it('two lines that never ended and do not fit in one batch arrive both', async () => {
    using folder = temporaryFolder()
    const run = house(folder.path, { maxLineBytes: 480 * 1024 })
    const kafka = new FakeProducer()
    const unterminated = (source: 'stdout' | 'stderr') =>
      Buffer.concat(lineFrames(source, 1_000n, Buffer.alloc(480_000, 'x'), source, false))
    const bytes = Buffer.concat([unterminated('stdout'), unterminated('stderr')])
    run.write(bytes)
    await run.ship(kafka, async (done) => {
      await expect.poll(() => readCheckpoint(run.folder)?.offset).toBe(bytes.length)
      run.end()
      await done
    })
    expect(texts(kafka).map((text) => text.length)).toEqual([480_002, 480_002])
    expect(decodeChunk(kafka.sent.at(-1)!.value).end).toEqual([1, 1])
  })

  it('what a broker refuses for its size arrives in smaller records, and a line that is too large alone is told as lost', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    kafka.limit = 20_000
    const large = lineFrames('stdout', 1_000n, Buffer.alloc(30_000, 'x'), 'id')
    const small = (from: number) => Array.from({ length: 500 }, (_, i) => line(`${from + i}`.padEnd(100)))
    run.write(Buffer.concat([...small(1), ...large, ...small(502)]))
    run.end()
    await run.ship(kafka, (done) => done)
    const numbers = texts(kafka).map((text) => text.trim().split(' '))
    expect(numbers).toEqual(Array.from({ length: 1001 }, (_, i) => [`${i + 1}`, `${i + 1}`]).toSpliced(500, 1))
    const lost = { source: 0, from: 501, count: 1, reason: 'too-large' }
    expect(run.losses).toEqual([lost])
    expect(kafka.sent.flatMap(({ value }) => decodeChunk(value).lost)).toEqual([lost])
    expect(decodeChunk(kafka.sent.at(-1)!.value).end).toEqual([1001, 0])
  })

  it('a last line that is too large alone still brings the end of the run', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    kafka.limit = 20_000
    run.write(Buffer.concat([line('one'), ...lineFrames('stdout', 1_000n, Buffer.alloc(30_000, 'x'), 'id', false)]))
    run.end()
    await run.ship(kafka, (done) => done)
    expect(texts(kafka)).toEqual(['1 one'])
    expect(decodeChunk(kafka.sent.at(-1)!.value)).toMatchObject({ end: [2, 0], lost: [{ from: 2, count: 1 }] })
  })

  it('a topic that comes back with fewer partitions takes the run in one that it has', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const before = new FakeProducer()
    run.write(line('one'))
    await run.ship(before, async () => expect.poll(() => readCheckpoint(run.folder)?.offset).toBeGreaterThan(0))
    const after = new FakeProducer()
    after.count = 1
    run.write(line('two'))
    run.end()
    expect(before.sent[0]!.partition).toBeGreaterThan(0)
    await run.ship(after, (done) => done)
    expect(texts(after)).toEqual(['2 two'])
  })

  it('a topic that is missing keeps its own runs waiting and no others', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { topic: 'missing' })
    run.add({}, line('flows'))
    run.write(line('waits'))
    const kafka = new FakeProducer()
    kafka.missing.add('missing')
    await run.ship(kafka, () => expect.poll(() => texts(kafka)).toEqual(['1 flows']))
    kafka.missing.clear()
    run.end()
    await run.ship(kafka, (done) => done)
    expect(kafka.sent.filter(({ topic }) => topic === 'missing').map(({ value }) => decodeChunk(value).lines)).toEqual([
      1,
    ])
  })

  it('a partition that takes nothing keeps its own runs waiting and no others, and nothing is sent twice', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    const kafka = new FakeProducer()
    const deaf = partitionOf(recordKey('shop', 'api'), kafka.count)
    kafka.deaf.add(deaf)
    // Of which some may share the partition.
    for (let i = 0; i < 8; i++) run.add({ key: 'run' }, line(`other ${i}`))
    run.write(line('one'))
    const numbers = () => texts(kafka).map((text) => text.slice(2))
    await run.ship(kafka, async () => {
      await expect.poll(() => kafka.leaderless().has(deaf)).toBe(true)
      run.write(line('two'))
      await expect.poll(() => kafka.sent.length).toBeGreaterThan(0)
      expect(kafka.sent.some(({ partition }) => partition === deaf)).toBe(false)
      kafka.hear()
      run.write(line('three'))
      await expect.poll(() => numbers().includes('three') && kafka.sent.length).toBeGreaterThanOrEqual(9)
    })
    const others = Array.from({ length: 8 }, (_, i) => `other ${i}`)
    expect(numbers().sort()).toEqual(['one', ...others, 'three', 'two'])
    expect(texts(kafka).filter((text) => !text.includes('other'))).toEqual(['1 one', '2 two', '3 three'])
  })

  it('topics take turns, and no send is for two of them', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path)
    run.add({ topic: 'audit' }, line('audited'))
    run.write(Buffer.concat(Array.from({ length: 40_000 }, (_, i) => line(`${i}`.padEnd(100)))))
    const kafka = new FakeProducer()
    const sends: string[] = []
    const send = kafka.send.bind(kafka)
    kafka.send = (topic, records) => {
      sends.push(topic)
      return send(topic, records)
    }
    await run.ship(kafka, () => expect.poll(() => texts(kafka)).toHaveLength(40_001))
    expect(sends.indexOf('audit')).toBeLessThan(2)
  })

  it('lines as JSON: a record each, in batches that brokers take, down to the longest line', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { format: 'json' })
    const kafka = new FakeProducer()
    kafka.limit = 1024 * 1024
    const longest = Buffer.alloc(256 * 1024, '"')
    run.write(Buffer.concat(Array.from({ length: 5000 }, (_, i) => line(`${i}`.padEnd(100)))))
    run.write(
      Buffer.concat([...lineFrames('stdout', 1_000n, longest, 'id'), ...lineFrames('stdout', 1_000n, longest, 'id2')]),
    )
    run.end()
    await run.ship(kafka, (done) => done)
    const lines = kafka.sent.map(({ value }) => JSON.parse(value.toString()))
    expect(lines.filter(({ number }) => number).map(({ number }) => number)).toEqual(
      Array.from({ length: 5002 }, (_, i) => i + 1),
    )
    expect(lines.filter(({ line }) => line === longest.toString())).toHaveLength(2)
    expect(lines.at(-1).end).toEqual({ stdout: 5002, stderr: 0 })
    expect(kafka.sent[0]!.headers['content-type']).toBe('application/vnd.tallyman.line+json')
  })

  it('journals that are full give the only segment of the largest run once it is closed, and keep the frame that is not whole', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { journalMax: 500_000 })
    run.add({}, Buffer.concat(Array.from({ length: 100 }, () => line('x'.repeat(1000)))))
    const away = new FakeProducer()
    away.missing.add('tallyman')
    const bytes = Buffer.concat(Array.from({ length: 600 }, (_, i) => line(`${i + 1}`.padEnd(1000))))
    const cut = bytes.length - 300
    run.write(bytes.subarray(0, cut))
    await run.ship(away, async () => {
      await expect.poll(() => run.closes.length).toBeGreaterThan(0)
      expect(run.losses).toEqual([])
      run.close()
      await expect.poll(() => run.losses).toEqual([{ source: 0, from: 1, count: 599, reason: 'journal-full' }])
    })
    expect(listSegments(run.folder).map(({ length }) => length)).toEqual([bytes.length / 600 - 300])
    expect(journalEnd(run.folder)).toBe(cut)
    run.write(bytes.subarray(cut), cut)
    run.end()
    const back = new FakeProducer()
    await run.ship(back, (done) => done)
    expect(texts(back).map((text) => text.trim())).toContainEqual(expect.stringMatching(/^600 600$/))
    expect(texts(back)).toHaveLength(101)
  })

  it('journals that are full of a topic that takes nothing give its lines, though another run always has some that are shipped', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { journalMax: 50_000 })
    const stuck = Buffer.concat(Array.from({ length: 100 }, () => line('s'.repeat(1000))))
    writeFileSync(segmentPath(run.add({ topic: 'audit' }, stuck), stuck.length), line('the last'))
    const kafka = new FakeProducer()
    kafka.missing.add('audit')
    await run.ship(kafka, async () => {
      const printing = setInterval(() => run.write(line('x')), 10)
      using _ended = { [Symbol.dispose]: () => clearInterval(printing) }
      await expect.poll(() => run.losses, { timeout: 5_000 }).toMatchObject([{ from: 1, reason: 'journal-full' }])
      expect(run.losses[0]!.count).toBeGreaterThanOrEqual(100)
    })
  })

  it('a run that is over gives its only segment, and still tells how many lines there were', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { journalMax: 50_000 })
    run.write(Buffer.concat(Array.from({ length: 100 }, () => line('y'.repeat(1000)))))
    run.close()
    run.end()
    const away = new FakeProducer()
    away.missing.add('tallyman')
    await run.ship(away, () => expect.poll(() => run.losses.length).toBe(1))
    expect(listSegments(run.folder)).toEqual([])
    const back = new FakeProducer()
    await run.ship(back, (done) => done)
    expect(decodeChunk(back.sent.at(-1)!.value)).toMatchObject({
      lines: 0,
      end: [100, 0],
      lost: [{ source: 0, from: 1, count: 100, reason: 'journal-full' }],
    })
  })

  it('a disk that is full gets the only segment back where all of it is shipped, also one that ends within a frame', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { cacheBytes: 10_000_000 })
    const kafka = new FakeProducer()
    const torn = line('torn').subarray(0, 9)
    run.write(Buffer.concat([...Array.from({ length: 100 }, () => line('z'.repeat(1000))), torn]))
    const end = run.written()
    await run.ship(kafka, async (_, shipper) => {
      await expect.poll(() => texts(kafka)).toHaveLength(100)
      shipper.makeRoom(true)
      await expect.poll(() => run.closes.length).toBeGreaterThan(0)
      run.close()
      await expect.poll(() => listSegments(run.folder)).toEqual([{ base: end - torn.length, length: torn.length }])
      run.write(line('torn').subarray(9), end)
      await expect.poll(() => texts(kafka)).toContain('101 torn')
    })
    expect(run.losses).toEqual([])
  })

  it('a disk that is full gets a segment back but for what is not shipped of it, also where others follow', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { cacheBytes: 10_000_000 })
    const kafka = new FakeProducer()
    run.write(Buffer.concat(Array.from({ length: 100 }, () => line('z'.repeat(1000)))))
    const shipped = run.written()
    await run.ship(kafka, async (_, shipper) => {
      await expect.poll(() => texts(kafka)).toHaveLength(100)
      kafka.missing.add('tallyman')
      run.write(line('between'))
      const end = run.written()
      run.write(line('behind'), end)
      shipper.makeRoom(true)
      await expect.poll(() => listSegments(run.folder).map(({ base }) => base)).toEqual([shipped, end])
      kafka.missing.clear()
      run.write(line('the last'), end)
      await expect.poll(() => texts(kafka).slice(100)).toEqual(['101 between', '102 behind', '103 the last'])
    })
    expect([run.losses, run.skips]).toEqual([[], []])
  })

  it('with on-full=block a run waits while the journals are nearly full, gives no line meanwhile, and goes on with Kafka', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { journalMax: 500_000, onFull: 'block', blockMs: 60_000 })
    const away = new FakeProducer()
    away.missing.add('tallyman')
    const bytes = Buffer.concat(Array.from({ length: 450 }, (_, i) => line(`${i + 1}`.padEnd(1000))))
    for (let at = 0; at < bytes.length; at += 100_001) run.write(bytes.subarray(at, at + 100_001), at)
    await run.ship(away, async () => {
      await expect.poll(() => run.held()).toBe(true)
      away.missing.clear()
      run.write(line('the last'), bytes.length)
      await expect.poll(() => run.held()).toBe(false)
      await expect.poll(() => texts(away)).toHaveLength(451)
    })
    expect(run.losses).toEqual([])
  })

  it('with on-full=block a run waits for block-max, and then gives its oldest lines', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { journalMax: 500_000, onFull: 'block', blockMs: 50 })
    const away = new FakeProducer()
    away.missing.add('tallyman')
    const bytes = Buffer.concat(Array.from({ length: 1000 }, (_, i) => line(`${i + 1}`.padEnd(1000))))
    const half = 450_000
    run.write(bytes.subarray(0, half))
    await run.ship(away, async () => {
      await expect.poll(() => run.held()).toBe(true)
      await expect.poll(() => run.held()).toBe(false)
      run.write(bytes.subarray(half), half)
      await expect.poll(() => run.losses.length).toBeGreaterThan(0)
      expect(run.held()).toBe(false)
    })
  })

  it('syncing does not stumble over segments that come and go', async () => {
    using journal = temporaryFolder()
    const run = house(journal.path, { syncInterval: 5, journalMax: 300_000 })
    const away = new FakeProducer()
    away.missing.add('tallyman')
    const bytes = line('x'.repeat(10_000))
    await run.ship(away, async () => {
      for (let i = 0; i < 60; i++) run.write(bytes, i * bytes.length)
      await expect.poll(() => run.losses.length, { timeout: 5000 }).toBeGreaterThan(0)
    })
  })
})
