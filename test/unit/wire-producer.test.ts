/** The producer, over clients that behave as kafkajs does on a bad day: what counts as sent, and what is tried again. */
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import type { Kafka, Producer as KafkaProducer, ProducerRecord, RecordMetadata } from 'kafkajs'
import { describe, expect, it } from 'vitest'
import { type OutgoingRecord, Producer, type ProducerLimits } from '../../wire/producer.ts'
import type { Sockets } from '../../wire/sockets.ts'

type Reply = (sent: ProducerRecord) => Promise<RecordMetadata[]>

const record = (partition: number): OutgoingRecord => ({
  partition,
  key: 'shop/web',
  headers: { service: 'shop' },
  value: Buffer.from(`to ${partition}`),
})

/** As kafkajs replies when all went well: an entry for each partition. */
const stored: Reply = async ({ topic, messages }) =>
  [...new Set(messages.map(({ partition }) => partition!))].map((partition) => ({
    topicName: topic,
    partition,
    errorCode: 0,
    baseOffset: '41',
  }))
const altered =
  (change: (entry: RecordMetadata) => RecordMetadata[]): Reply =>
  async (sent) =>
    (await stored(sent)).flatMap(change)
const failing =
  (message: string, type?: string, wrapped = false): Reply =>
  () => {
    const error = Object.assign(new Error(message), type !== undefined && { type })
    return Promise.reject(wrapped ? new Error('retries exceeded', { cause: error }) : error)
  }
/** A failure that tells what was stored of the partitions all the same, as kafkajs does (patches/). */
const withReplies =
  (fail: Reply, partitions: number[]): Reply =>
  async (sent) => {
    const replies = (await stored(sent)).filter(({ partition }) => partitions.includes(partition))
    return fail(sent).catch((error) => Promise.reject(Object.assign(error, { replies })))
  }
const hanging: Reply = () => new Promise(() => {})

/** A producer over clients of which each replies as told, in turn, and what is seen of them from outside. */
function producing(
  clients: Reply[][],
  limits: Partial<ProducerLimits> = {},
  inPart = false,
  connecting: (client: number) => Promise<void> = async () => {},
) {
  const seen = {
    clients: 0,
    disconnected: 0,
    sockets: [] as Sockets[],
    batches: [] as ProducerRecord[],
    failed: [] as [message: string, attempts: number][],
    recovered: [] as number[],
  }
  const connect = (sockets: Sockets): Kafka => {
    seen.sockets.push(sockets)
    const client = seen.clients++
    const told = clients[client]
    if (told === undefined) throw new Error('more clients than expected')
    const replies = [...told]
    const producer: Partial<KafkaProducer> = {
      connect: () => connecting(client),
      disconnect: async () => void seen.disconnected++,
      send: (sent) => {
        seen.batches.push(sent)
        const reply = replies.shift()
        return reply ? reply(sent) : Promise.reject(new Error('more batches than expected'))
      },
    }
    return { producer: () => producer } as unknown as Kafka
  }
  const producer = new Producer(
    connect,
    {
      failed: ({ message }, attempts) => void seen.failed.push([message, attempts]),
      recovered: (attempts) => void seen.recovered.push(attempts),
    },
    { compression: 'zstd', acks: 'all', inPart },
    { attemptTimeout: 60_000, backoff: 1, maxBackoff: 4, ...limits },
  )
  return { producer, seen }
}

describe('a send', () => {
  it('asks for every in-sync replica, and keeps partition, key, headers and value', async () => {
    const { producer, seen } = producing([[stored]])
    const records = [record(3), record(5)]
    expect(await producer.send('lines', records)).toBe(0)
    expect(seen.batches).toEqual([expect.objectContaining({ acks: -1, topic: 'lines', messages: records })])
    expect(seen).toMatchObject({ failed: [], recovered: [] })
  })

  it('keeps its client while all goes well', async () => {
    const { producer, seen } = producing([[stored, stored, stored]])
    for (let i = 0; i < 3; i++) await producer.send('lines', [record(i)])
    expect(seen).toMatchObject({ clients: 1, disconnected: 0 })
  })

  it.each<[string, Reply]>([
    ['is empty', async () => []],
    ['leaves out one of the partitions', altered((entry) => (entry.partition === 1 ? [] : [entry]))],
    ['is of another topic', altered((entry) => [{ ...entry, topicName: 'other' }])],
    ['says an error', altered((entry) => [{ ...entry, errorCode: 3 }])],
    ['says no offset', altered(({ baseOffset: _, ...entry }) => [entry])],
    ['says offset -1', altered((entry) => [{ ...entry, baseOffset: '-1' }])],
  ])('is no success when the reply %s: it is sent again, by another client', async (_, reply) => {
    const { producer, seen } = producing([[reply], [stored]])
    expect(await producer.send('lines', [record(0), record(1)])).toBe(1)
    // What the old client took for the topic's partitions must not be asked again.
    expect(seen).toMatchObject({ clients: 2, disconnected: 1 })
  })

  it.each<[string, Reply, number[]]>([
    ['a reply leaves out', altered((entry) => (entry.partition === 1 ? [] : [entry])), [0]],
    ['a reply leaves out, as it does all others', async () => [], []],
    ['can’t be reached', withReplies(failing('no connection'), [0]), [0]],
    ['can’t be reached, as no other can', withReplies(failing('no connection'), []), []],
    ['has too few replicas', withReplies(failing('too few', 'NOT_ENOUGH_REPLICAS', true), [0]), [0]],
  ])('in part ends as refused where a partition %s, and says what is acknowledged', async (_, reply, acknowledged) => {
    const { producer, seen } = producing([[reply], [stored]], {}, true)
    const refused = await producer.send('lines', [record(0), record(1)]).catch((error) => error)
    expect(refused).toMatchObject({ name: 'RefusedError', reason: 'no-leader', acknowledged: new Set(acknowledged) })
    expect(refused.message).toContain(`partition ${acknowledged.length} of topic lines`)
    expect(await producer.send('lines', [record(1)])).toBe(0)
    expect(seen).toMatchObject({ clients: 2, disconnected: 1, failed: [] })
  })

  it('that is refused for one partition tells which others are acknowledged', async () => {
    const { producer } = producing([[withReplies(failing('too large', 'MESSAGE_TOO_LARGE', true), [1])]])
    await expect(producer.send('lines', [record(0), record(1)])).rejects.toMatchObject({
      ...{ name: 'RefusedError', reason: 'too-large', acknowledged: new Set([1]) },
    })
  })

  it.each(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'])(
    'that Kafka refuses with %s is not repeated',
    async (type) => {
      const { producer, seen } = producing([[failing('too large', type), stored]])
      await expect(producer.send('lines', [record(0)])).rejects.toMatchObject({
        name: 'RefusedError',
        reason: 'too-large',
      })
      await producer.send('lines', [record(0)])
      expect(seen).toMatchObject({ clients: 1, failed: [] })
    },
  )

  it.each<[string, boolean]>([
    ['UNKNOWN_TOPIC_OR_PARTITION', false],
    ['UNKNOWN_TOPIC_OR_PARTITION', true],
    ['TOPIC_AUTHORIZATION_FAILED', false],
  ])(
    'that Kafka refuses with %s (wrapped by kafkajs: %s) is not repeated, and its client goes',
    async (type, wrapped) => {
      const { producer, seen } = producing([[failing('no', type, wrapped)], [stored]])
      await expect(producer.send('lines', [record(0)])).rejects.toMatchObject({ reason: 'no-partition' })
      expect(await producer.send('lines', [record(0)])).toBe(0)
      expect(seen).toMatchObject({ clients: 2, failed: [] })
    },
  )

  it('that failed is tried again with a new client each time, and tells so', async () => {
    const { producer, seen } = producing([[failing('a')], [failing('b', 'NOT_LEADER_FOR_PARTITION')], [stored]])
    expect(await producer.send('lines', [record(0)])).toBe(2)
    expect(seen.batches).toHaveLength(3)
    expect(seen).toMatchObject({
      clients: 3,
      disconnected: 2,
      failed: [
        ['a', 1],
        ['b', 2],
      ],
      recovered: [2],
    })
  })

  it('an attempt that was given up while it connected sends nothing beside the next one', async () => {
    const late = Promise.withResolvers<void>()
    const connecting = (client: number) => (client === 0 ? late.promise : Promise.resolve())
    const { producer, seen } = producing([[stored], [stored, stored]], { attemptTimeout: 10 }, false, connecting)
    expect(await producer.send('lines', [record(0)])).toBe(1)
    late.resolve()
    expect(await producer.send('lines', [record(1)])).toBe(0)
    expect(seen.batches.map(({ messages }) => messages)).toEqual([[record(0)], [record(1)]])
  })

  it('the connections of a client that is given up are cut', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const { producer, seen } = producing([[hanging], [stored]], { attemptTimeout: 50 })
    const accepted = once(server, 'connection')
    const sent = producer.send('lines', [record(0)])
    const socket = seen.sockets[0]!.create({ host: '127.0.0.1', port, ssl: undefined as never, onConnect: () => {} })
    socket.on('error', () => {})
    await accepted
    await sent
    expect(socket.destroyed).toBe(true)
    server.close()
  })

  it('that hangs is given up, and its client with it', async () => {
    const { producer, seen } = producing([[hanging], [stored]], { attemptTimeout: 10 })
    expect(await producer.send('lines', [record(0)])).toBe(1)
    expect(seen).toMatchObject({
      clients: 2,
      disconnected: 1,
      failed: [['Kafka did not answer within 10 ms', 1]],
      recovered: [1],
    })
  })
})

describe('stop', () => {
  it.each<[string, Reply]>([
    ['hangs', hanging],
    ['fails', failing('no broker')],
  ])('ends a send that %s: it rejects and does not count', async (_, reply) => {
    // An hour until anything else would end it.
    const { producer, seen } = producing([[reply]], { attemptTimeout: 3.6e6, backoff: 3.6e6, maxBackoff: 3.6e6 })
    const sent = producer.send('lines', [record(0)])
    const rejected = expect(sent).rejects.toThrow()
    await expect.poll(() => seen.batches.length + seen.failed.length).toBeGreaterThan(0)
    producer.stop()
    await rejected
    expect(seen).toMatchObject({ clients: 1, disconnected: 1, recovered: [] })
  })

  it('ends also what comes later', async () => {
    const { producer, seen } = producing([])
    producer.stop()
    await expect(producer.send('lines', [record(0)])).rejects.toThrow('the producer was stopped')
    expect(seen.clients).toBe(0)
  })
})
