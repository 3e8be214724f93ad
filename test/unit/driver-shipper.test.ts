import { appendFileSync, existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readCheckpoint, startOfRun } from '../../driver/checkpoint.ts'
import { listSegments, runFolder, segmentPath } from '../../driver/journal.ts'
import { createRun, type RunRecord } from '../../driver/run.ts'
import { Shipper } from '../../driver/shipper.ts'
import { Slots } from '../../driver/slots.ts'
import { decodeChunk, type LostRange } from '../../wire/chunk.ts'
import { type OutgoingRecord, type Producer, RefusedError } from '../../wire/producer.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame, lineFrames } from '../support/log-entry.ts'

/** A Kafka that keeps what it is sent; `hold` makes it acknowledge nothing until `release`. */
class FakeProducer implements Pick<Producer, 'partitions' | 'send' | 'stop'> {
  sent: OutgoingRecord[] = []
  /** Records from which on a batch is too large, bytes. */
  limit = Number.POSITIVE_INFINITY
  count = 12
  #held: PromiseWithResolvers<void> | undefined
  #stopped = Promise.withResolvers<never>()
  partitions = async () => this.count
  hold() {
    this.#held = Promise.withResolvers<void>()
  }
  async send(records: OutgoingRecord[]) {
    if (records.some(({ partition }) => partition >= this.count))
      throw new RefusedError('no-partition', 'no such partition')
    const bytes = records.reduce((sum, { value }) => sum + value.length, 0)
    if (bytes > this.limit) throw new RefusedError('too-large', `${bytes} bytes`)
    // Copied, as a network would: the arena is used again after the acknowledgement.
    this.sent.push(...records.map((record) => ({ ...record, value: Buffer.from(record.value) })))
    await Promise.race([this.#held?.promise, this.#stopped.promise])
    return 0
  }
  async stop() {
    this.#stopped.promise.catch(() => {})
    this.#stopped.reject(new Error('stopped'))
  }
}

const line = (text: string) => frame({ source: 'stdout', time: 1_000n, line: Buffer.from(text) })

/** A journal with one run, and a shipper that is started and stopped as a driver is. */
function house(journal: string, { journalMax = Number.POSITIVE_INFINITY, cacheBytes = 0, runsMax = 10 } = {}) {
  const slots = new Slots()
  const record: RunRecord = createRun(journal, {
    file: '/f',
    service: 'shop',
    module: 'api',
    host: 'h1',
    container: { id: 'c1', name: 'api-1', image: 'api:1' },
    attrs: {},
    started: 0,
    options: { maxLineBytes: 256 * 1024, cacheBytes, key: 'module' },
  })
  const folder = runFolder(journal, record.run)
  const slot = slots.claim(0)!
  const skips: number[] = []
  const removed: string[] = []
  const losses: LostRange[] = []
  let kept: RunRecord | undefined
  return {
    folder,
    record,
    /** Has the shipper keep a run that is over. */
    keep(over: RunRecord) {
      kept = over
    },
    written: () => slots.written(slot),
    skips,
    losses,
    removed,
    /** Journals bytes as intake does. */
    write(bytes: Uint8Array, base = 0) {
      appendFileSync(segmentPath(folder, base), bytes)
      slots.addWritten(slot, bytes.length)
      slots.ring()
    },
    end() {
      slots.end(slot)
      slots.ring()
    },
    /** Runs a shipper from the checkpoint on until `until` resolves. */
    async ship(producer: FakeProducer, until: (done: Promise<void>) => Promise<unknown>) {
      const done = Promise.withResolvers<void>()
      const shipper = new Shipper({
        journal,
        journalMax,
        runsMax,
        topic: 'tallyman',
        slots,
        producer: producer as unknown as Producer,
        events: {
          done: () => done.resolve(),
          acknowledged: () => {},
          diskRefused: (error) => expect.fail(error.message),
          removed: ({ run }) => removed.push(run),
          skipped: (_run, _offset, bytes) => skips.push(bytes),
          refused: () => {},
          lost: (_run, range) => losses.push(range),
        },
      })
      if (kept) shipper.keep(kept, readCheckpoint(runFolder(journal, kept.run))!)
      shipper.add(slot, record, readCheckpoint(folder) ?? startOfRun())
      const loop = shipper.loop().catch(() => {})
      await until(done.promise)
      await shipper.stop()
      await loop
    },
  }
}

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
    await run.ship(kafka, (done) => done)
    expect(texts(kafka)).toEqual(['1 before', '2 after'])
    expect(run.skips.reduce((a, b) => a + b)).toBe(111)
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
    expect(texts(kafka)).toEqual(['1 kept', '2 kept'])
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
    kafka.send = (records) => {
      batches.push(records.reduce((sum, { value }) => sum + value.length, 0))
      return send(records)
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
    await run.ship(away, () => expect.poll(() => run.losses.length).toBeGreaterThan(1))
    const kept = readCheckpoint(run.folder)!
    const held = readdirSync(run.folder).filter((name) => name.endsWith('.segment'))
    expect(held.reduce((sum, name) => sum + statSync(join(run.folder, name)).size, 0)).toBeLessThanOrEqual(500_000)

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
})
