/**
 * What patches/ does to kafkajs: CPU while idle and while sending, without which nothing else here fails but the figures; and that what
 * ails one partition or one broker keeps no other waiting.
 */
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
const metadataResponse = require('kafkajs/src/protocol/requests/metadata/v6/response')
const produceResponse = require('kafkajs/src/protocol/requests/produce/v7/response')
const BrokerPool = require('kafkajs/src/cluster/brokerPool')
const Cluster = require('kafkajs/src/cluster')
const createSendMessages = require('kafkajs/src/producer/sendMessages')
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

  it('sending leaves no large buffers to the collector', async () => {
    const value = Buffer.alloc(500_000, 'a line ')
    const batches: { buffer: Buffer }[] = []
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 40; i++) {
      const records = [Record({ key: Buffer.from('k'), value })]
      batches.push(await RecordBatch({ compression: COMPRESSIONS.zstd, records }))
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * value.length)
    expect(batches.every(({ buffer }) => buffer.length < 10_000)).toBe(true)
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

describe('kafkajs, patched, of a topic that lacks the leader of a partition', () => {
  const LEADER_NOT_AVAILABLE = 5
  const NOT_ENOUGH_REPLICAS = 19
  /** Partition i has the i-th of the leaders. */
  const metadataOf = (...leaders: number[]) => ({
    brokers: [],
    topicMetadata: [
      {
        ...{ topic: 't', topicErrorCode: 0 },
        partitionMetadata: leaders.map((leader, partitionId) => ({
          ...{ partitionId, leader },
          partitionErrorCode: leader < 0 ? LEADER_NOT_AVAILABLE : 0,
        })),
      },
    ],
  })
  const refused = (name: string) => Object.assign(new Error(name), { name })

  /** Brokers by their id, and leaders of the topic's partitions. One that is not among the brokers can't be reached. */
  function clusterOf(brokers: Record<number, object>, ...leaders: number[]) {
    const cluster = Object.create(Cluster.prototype)
    return Object.assign(cluster, {
      brokerPool: { metadata: metadataOf(...leaders) },
      findBroker: async ({ nodeId }: { nodeId: number }) => {
        const broker = brokers[nodeId]
        if (!broker) throw refused('KafkaJSConnectionError')
        return { nodeId, ...broker }
      },
      addMultipleTargetTopics: async () => {},
      refreshMetadataIfNecessary: async () => {},
      refreshMetadata: async () => {},
      isConnected: () => true,
    })
  }

  it('the metadata are taken, and an error of the topic itself is one', async () => {
    const metadata = metadataOf(1, -1)
    await expect(metadataResponse.parse(metadata)).resolves.toBe(metadata)
    metadata.topicMetadata[0]!.topicErrorCode = LEADER_NOT_AVAILABLE
    await expect(metadataResponse.parse(metadata)).rejects.toMatchObject({ type: 'LEADER_NOT_AVAILABLE' })
  })

  it.each([
    ['soon', [1, -1], 1_000],
    ['as ever where all have one', [1, 2], 60_000],
  ])('the metadata are asked for again %s', async (_, leaders, ms) => {
    const pool = new BrokerPool({ logger: silent, metadataMaxAge: 60_000 })
    pool.seedBroker = { connectionPool: {} }
    pool.findConnectedBroker = async () => ({ metadata: async () => metadataOf(...leaders) })
    const before = Date.now()
    await pool.refreshMetadata(['t'])
    expect(pool.metadataExpireAt).toBeGreaterThanOrEqual(before + ms)
    expect(pool.metadataExpireAt).toBeLessThan(before + ms + 30_000)
  })

  it('offsets are those of the partitions whose leaders can be asked', async () => {
    const listOffsets = async ({ topics }: { topics: { topic: string; partitions: { partition: number }[] }[] }) => ({
      responses: topics.map(({ topic, partitions }) => ({
        topic,
        partitions: partitions.map(({ partition }) => ({ partition, offset: '7' })),
      })),
    })
    const partitions = [0, 1, 2].map((partition) => ({ partition }))
    const asked = (...leaders: number[]) =>
      clusterOf({ 1: { listOffsets } }, ...leaders).fetchTopicsOffset([{ topic: 't', partitions }])
    await expect(asked(1, -1, 2)).resolves.toEqual([{ topic: 't', partitions: [{ partition: 0, offset: '7' }] }])
    await expect(asked(-1, -1, 2)).resolves.toEqual([{ topic: 't', partitions: [] }])
  })

  describe('a send', () => {
    type Produced = { topicData: { topic: string; partitions: { partition: number }[] }[] }
    /** A broker that stores what it gets, but for these partitions. */
    const storing = (...except: number[]) => ({
      produce: ({ topicData }: Produced) =>
        produceResponse.parse({
          topics: topicData.map(({ topic: topicName, partitions }) => ({
            topicName,
            partitions: partitions.map(({ partition }) => ({
              ...{ partition, baseOffset: '7' },
              errorCode: except.includes(partition) ? NOT_ENOUGH_REPLICAS : 0,
            })),
          })),
        }),
    })
    const send = (brokers: Record<number, object>, ...leaders: number[]) =>
      createSendMessages({
        logger: { ...silent, error: () => {} },
        cluster: clusterOf(brokers, ...leaders),
        partitioner: ({ message }: { message: { partition: number } }) => message.partition,
        eosManager: {
          ...{ acquireBrokerLock: async () => {}, releaseBrokerLock: async () => {}, isTransactional: () => false },
          ...{ getSequence: () => 0, updateSequence: () => {}, getProducerId: () => -1, getProducerEpoch: () => 0 },
        },
        retrier: (work: (bail: (error: Error) => void) => Promise<unknown>) => work((error) => Promise.reject(error)),
      })({ acks: -1, topicMessages: [{ topic: 't', messages: leaders.map((_, partition) => ({ partition })) }] })
    const stored = (...partitions: number[]) =>
      partitions.map((partition) => ({ topicName: 't', partition, errorCode: 0, baseOffset: '7' }))

    it('goes to those that have one', async () => {
      await expect(send({ 1: storing() }, 1, -1, 1)).resolves.toEqual(stored(0, 2))
    })

    it('that can’t reach a broker goes to the others, and tells what they have stored', async () => {
      await expect(send({ 1: storing() }, 1, 2, 1)).rejects.toMatchObject({
        ...{ name: 'KafkaJSConnectionError', replies: stored(0, 2) },
      })
    })

    it('that a broker does not answer, or refuses in part, tells what is stored', async () => {
      const gone = { produce: () => Promise.reject(refused('KafkaJSConnectionClosedError')) }
      const brokers = { 1: storing(1), 2: storing(), 3: { ...gone } }
      const outcome = send(brokers, 1, 1, 2, 3)
      await expect(outcome).rejects.toMatchObject({ type: 'NOT_ENOUGH_REPLICAS' })
      const { replies } = await outcome.catch((error: { replies: { partition: number; errorCode: number }[] }) => error)
      const said = replies.map(({ partition, errorCode }: { partition: number; errorCode: number }) => [
        partition,
        errorCode,
      ])
      expect(said.sort()).toEqual([
        [0, 0],
        [1, NOT_ENOUGH_REPLICAS],
        [2, 0],
      ])
    })
  })
})
