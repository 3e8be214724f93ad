/** What patches/ does to kafkajs, without which nothing here fails but the figures: CPU while idle, and while sending. */
import { createRequire } from 'node:module'
import { describe, expect, it } from 'vitest'
import { COMPRESSIONS } from '../../wire/kafka.ts'

const require = createRequire(import.meta.url)
const Connection = require('kafkajs/src/network/connection')
const RequestQueue = require('kafkajs/src/network/requestQueue')
const Encoder = require('kafkajs/src/protocol/encoder')
const Decoder = require('kafkajs/src/protocol/decoder')
const Record = require('kafkajs/src/protocol/recordBatch/record/v0')
const { RecordBatch } = require('kafkajs/src/protocol/recordBatch/v0')
const crc32C = require('kafkajs/src/protocol/recordBatch/crc32C')
const decodeBatch = require('kafkajs/src/protocol/recordBatch/v0/decoder')

const silent = { namespace: () => silent, debug: () => {}, warn: () => {} }
const queue = () =>
  new RequestQueue({
    maxInFlightRequests: 1,
    requestTimeout: 1000,
    enforceRequestTimeout: false,
    clientId: 'c',
    broker: 'b',
    logger: silent,
  })

describe('kafkajs, patched', () => {
  it('an idle connection has no timer', () => {
    const idle = queue()
    idle.scheduleCheckPendingRequests()
    expect(idle.throttleCheckTimeoutId).toBeNull()
  })

  it('a throttled connection looks again when the throttle is over', () => {
    const throttled = queue()
    throttled.maybeThrottle(5000)
    throttled.scheduleCheckPendingRequests()
    expect(throttled.throttleCheckTimeoutId).not.toBeNull()
    throttled.destroy()
  })

  it('an encoder that was written into another gives its buffer back', () => {
    const inner = new Encoder()
    inner.writeBufferInternal(Buffer.alloc(100_000, 1))
    const { buffer } = inner.buf
    const outer = new Encoder().writeEncoder(inner)
    expect(buffer.detached).toBe(true)
    expect(outer.buffer.equals(Buffer.alloc(100_000, 1))).toBe(true)
  })

  it('of a record batch nothing is held but the batch', async () => {
    const values = [Buffer.alloc(200_000, 'a line '), Buffer.from('a small one')]
    const records = values.map((value) => Record({ key: Buffer.from('k'), value }))
    const batch = await RecordBatch({ compression: COMPRESSIONS.zstd, records, lastOffsetDelta: 1 })
    expect(records.map((record) => record.buf.buffer.detached)).toEqual([true, false])
    expect(values.map((value) => value.length)).toEqual([200_000, 11])
    const decoded = await decodeBatch(new Decoder(batch.buffer))
    expect(decoded.records.map(({ value }: { value: Buffer }) => value)).toEqual(values)
  })

  it('what the socket brought is given back once it is put together', () => {
    const connection = new Connection({ host: 'h', port: 1, logger: silent })
    const payloads: Buffer[] = []
    connection.requestQueue = { fulfillRequest: ({ payload }: { payload: Buffer }) => payloads.push(payload) }
    const frame = (byte: number, length: number) => {
      const bytes = Buffer.alloc(8 + length, byte)
      bytes.writeInt32BE(4 + length, 0)
      return bytes
    }
    const bytes = Buffer.concat([frame(1, 200_000), frame(2, 5), frame(3, 200_000)])
    const pieces = Array.from({ length: 5 }, (_, i) =>
      Buffer.from(new Uint8Array(bytes.subarray(i * 81_000, (i + 1) * 81_000))),
    )
    for (const piece of pieces) connection.processData(piece)
    expect(payloads).toEqual([1, 2, 3].map((byte, i) => Buffer.alloc([200_000, 5, 200_000][i]!, byte)))
    expect(pieces.map(({ buffer }) => (buffer as ArrayBuffer).detached)).toEqual([false, true, true, true, true])
  })

  it.each([['zstd'], ['gzip'], ['none']] as const)(
    'a record batch, %s, is as long as it says and has the checksum of its bytes',
    async (name) => {
      const records = ['one', 'two'].map((value, i) =>
        Record({ key: Buffer.from('k'), value: Buffer.from(value), offsetDelta: i }),
      )
      const compression = COMPRESSIONS[name]
      const { buffer } = await RecordBatch({ compression, records, lastOffsetDelta: 1 })
      expect(buffer.readInt32BE(8)).toBe(buffer.length - 12)
      expect(buffer.readUInt32BE(17)).toBe(crc32C(buffer.subarray(21)))
      expect(buffer.readInt32BE(57)).toBe(2)
      const decoded = await decodeBatch(new Decoder(buffer))
      expect(decoded.records.map(({ value }: { value: Buffer }) => value.toString())).toEqual(['one', 'two'])
    },
  )

  it('the checksum is that of RFC 3720', () => {
    expect(crc32C(Buffer.from('123456789'))).toBe(0xe306_9283)
  })

  it('a buffer from the pool is left alone', () => {
    const pooled = Buffer.from('a small one')
    Encoder.release(pooled)
    expect(pooled.toString()).toBe('a small one')
  })
})
