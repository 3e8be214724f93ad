/** Record batches as a fetch brings them: encoded by kafkajs, decoded with what patches/ adds to it. */
import { createRequire } from 'node:module'
import { describe, expect, it } from 'vitest'
import type { FetchedRecord } from '../../wire/deferred-records.ts'
import { InflateError } from '../../wire/deferred-records.ts'
import { COMPRESSIONS, type Compression, MAX_INFLATED_BYTES } from '../../wire/kafka.ts'

const require = createRequire(import.meta.url)
const Decoder = require('kafkajs/src/protocol/decoder')
const Record = require('kafkajs/src/protocol/recordBatch/record/v0')
const { RecordBatch } = require('kafkajs/src/protocol/recordBatch/v0')
const decodeBatch = require('kafkajs/src/protocol/recordBatch/v0/decoder')

/** Where a batch's compressed records begin: behind offset, length and what is fixed. */
const RECORDS_AT = 61

async function encoded(
  values: Buffer[],
  { compression = 'zstd' as Compression, lastOffsetDelta = values.length - 1 } = {},
): Promise<Buffer> {
  const records = values.map((value, offsetDelta) =>
    Record({ offsetDelta, key: Buffer.from('k'), value, headers: { name: `${offsetDelta}` } }),
  )
  const batch = await RecordBatch({
    ...{ compression: COMPRESSIONS[compression], records, lastOffsetDelta },
    ...{ firstOffset: 1000, firstTimestamp: 5, maxTimestamp: 5 },
  })
  return Buffer.from(batch.buffer)
}

const decoded = async (bytes: Buffer): Promise<FetchedRecord[]> => (await decodeBatch(new Decoder(bytes))).records

const values = [Buffer.alloc(300_000, 'the same line again\n'), Buffer.from('a small one'), Buffer.alloc(0)]

describe('deferred records', () => {
  it.each(['zstd', 'gzip', 'none'] as const)('%s: say what was stored', async (compression) => {
    const records = await decoded(await encoded(values, { compression }))
    expect(records.map(({ offset }) => offset)).toEqual(['1000', '1001', '1002'])
    expect(records.map(({ value }) => value)).toEqual(values)
    expect(records.map(({ key, headers }) => `${key} ${headers?.['name']}`)).toEqual(['k 0', 'k 1', 'k 2'])
    expect(records.map(({ timestamp }) => timestamp)).toEqual(['5', '5', '5'])
  })

  it('are inflated once, and not before one is looked at', async () => {
    const bytes = await encoded(values)
    const records = await decoded(bytes)
    const before = process.memoryUsage().arrayBuffers
    expect(records.map(({ offset }) => offset)).toHaveLength(3)
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100_000)
    expect(records[1]!.value!.buffer).toBe(records[0]!.value!.buffer)
  })

  it('are given back with the last one, and inflated again for whoever looks again', async () => {
    const records = await decoded(await encoded(values))
    const { value } = records[0]!
    expect(records.map(({ release }) => release !== undefined)).toEqual([false, false, true])
    records[2]!.release!()
    expect(value).toHaveLength(0)
    expect(records[0]!.value).toEqual(values[0])
  })

  it('leave memory that they share alone', async () => {
    const small = [Buffer.from('a'), Buffer.from('b')]
    const records = await decoded(await encoded(small))
    const { value } = records[0]!
    records[1]!.release!()
    expect(value).toEqual(small[0])
  })

  it('of a batch with gaps, as a compacted topic has them, have the offsets that they were given', async () => {
    const bytes = await encoded(values, { lastOffsetDelta: 5 })
    expect((await decoded(bytes)).map(({ offset, value }) => [offset, value?.length])).toEqual([
      ['1000', 300_000],
      ['1001', 11],
      ['1002', 0],
    ])
  })

  it('of a damaged batch throw, each of them, and hand out the batch', async () => {
    const bytes = await encoded(values)
    bytes.fill(0xff, RECORDS_AT + 4)
    const records = await decoded(bytes)
    for (const record of records) {
      const error = thrown(() => record.value)
      expect(error).toBeInstanceOf(InflateError)
      expect(error).toMatchObject({ firstOffset: '1000', records: 3, compressed: bytes.subarray(RECORDS_AT) })
      expect(error.message).toMatch(/^the batch of 3 records from offset 1000 on can't be inflated: /)
    }
  })

  it('that inflate to more than is taken throw', async () => {
    const records = await decoded(await encoded([Buffer.alloc(MAX_INFLATED_BYTES)]))
    expect(() => records[0]!.value).toThrow(InflateError)
  })
})

function thrown(work: () => unknown): Error {
  try {
    work()
  } catch (error) {
    return error as Error
  }
  throw new Error('nothing was thrown')
}
