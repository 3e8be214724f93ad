/**
 * A backlog: a topic full of chunks as the driver cuts them, of any number of modules that print in turn, each from one container.
 *
 * All modules together print `linesPerSecond`, so a chunk of one among many spans more time: its lines have times of their own,
 * and its column of times is the wide one.
 */
import { randomBytes } from 'node:crypto'
import type { Kafka } from 'kafkajs'
import { ChunkEncoder, MAX_DATA_BYTES, MAX_LINES } from '../wire/chunk.ts'
import { type OutgoingRecord, Producer } from '../wire/producer.ts'
import { partitionOf, recordHeaders, recordKey } from '../wire/record.ts'

/** What the driver sends to one partition at a time. */
const BATCH_BYTES = 768 * 1024
const INT32_MAX = 2 ** 31 - 1

export const SERVICE = 'bench'
const HOST = 'host-1'

export type Backlog = {
  topic: string
  partitions: number
  modules: number
  /** Lines a chunk, as many as the driver puts into one at most. */
  chunkLines: number
  /** Of all modules; a multiple of modules × chunkLines. */
  lines: number
  /** Of all modules together, until `ended`. */
  linesPerSecond?: number
  /** When the last line was printed, ms since 1970; now, unless it is said. */
  ended?: number
  /** What is printed, over and over again, lines of `lineBytes` and a newline each. */
  text: Buffer
  lineBytes: number
  /** Each chunk is a run of its own, of which no end comes. */
  runEach?: boolean
}

/** The module that is number `i`, and the name of its container. All are equally long, so that a line costs the same bytes in each. */
export const moduleName = (i: number): string => `module-${String(i).padStart(5, '0')}`

/** Creates the topic where it is not there yet, and fills it. @throws Error for chunks that the driver would not make */
export async function fill(kafka: Kafka, backlog: Backlog): Promise<void> {
  const { topic, partitions, modules, lines, chunkLines, text, lineBytes, linesPerSecond = 100_000, runEach } = backlog
  const { ended = Date.now() } = backlog
  const admin = kafka.admin()
  await admin.connect()
  const configEntries = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }]
  await admin.createTopics({
    waitForLeaders: true,
    topics: [{ topic, numPartitions: partitions, replicationFactor: 1, configEntries }],
  })
  await admin.disconnect()
  const producer = new Producer(
    () => kafka,
    { failed: (error) => console.error(`bench: ${error.message}`), recovered: () => {} },
    { compression: 'zstd', acks: 'all' },
  )
  if (chunkLines > MAX_LINES || chunkLines * lineBytes > MAX_DATA_BYTES || lines % (modules * chunkLines) !== 0)
    throw new Error(
      `${lines} lines of ${modules} modules can't be cut into chunks of ${chunkLines} as the driver makes them`,
    )
  const encoder = new ChunkEncoder()
  const runs = Array.from({ length: modules }, () => new Uint8Array(randomBytes(16)))
  const step = (1e9 / linesPerSecond) * modules
  const began = BigInt(ended) * 1_000_000n - BigInt(Math.ceil((lines / linesPerSecond) * 1e9))
  const data = withoutNewlines(text, lineBytes)
  const linesOfText = data.length / lineBytes
  const batches = Array.from({ length: partitions }, (): { records: OutgoingRecord[]; bytes: number } => ({
    records: [],
    bytes: 0,
  }))
  const send = async (partition: number) => {
    const { records } = batches[partition]!
    batches[partition] = { records: [], bytes: 0 }
    if (records.length > 0) await producer.send(topic, records)
  }
  const rounds = lines / modules / chunkLines
  let printed = 0
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < modules; i++) {
      const name = moduleName(i)
      const from = printed % linesOfText
      // The next ones, from the beginning again where the text ends within them.
      const begin = (from + chunkLines <= linesOfText ? from : 0) * lineBytes
      printed += chunkLines
      const value = encoder.encode({
        ...{ run: runEach ? randomBytes(16) : runs[i]!, service: SERVICE, module: name, host: HOST, attrs: {} },
        container: { id: 'c0ffee'.repeat(10), name, image: 'image' },
        first: [runEach ? 1 : round * chunkLines + 1, 1],
        lines: chunkLines,
        src: new Uint8Array(Math.ceil(chunkLines / 8)),
        t0: began + BigInt(Math.floor(round * chunkLines * step)),
        dt: times(chunkLines, step),
        len: new Uint32Array(chunkLines).fill(lineBytes),
        flags: undefined,
        data: data.subarray(begin, begin + chunkLines * lineBytes),
        lost: [],
        end: undefined,
      })
      const key = recordKey(SERVICE, name)
      const partition = partitionOf(key, partitions)
      if (batches[partition]!.bytes + value.length > BATCH_BYTES) await send(partition)
      const batch = batches[partition]!
      batch.records.push({
        partition,
        key,
        headers: recordHeaders({ service: SERVICE, module: name, host: HOST }),
        value: Buffer.from(value),
      })
      batch.bytes += value.length
    }
  }
  for (let partition = 0; partition < partitions; partition++) await send(partition)
  producer.stop()
}

/** ns behind the first line, `step` apart. */
function times(lines: number, step: number): Int32Array | BigInt64Array {
  return lines * step <= INT32_MAX
    ? Int32Array.from({ length: lines }, (_, i) => Math.floor(i * step))
    : BigInt64Array.from({ length: lines }, (_, i) => BigInt(Math.floor(i * step)))
}

function withoutNewlines(text: Buffer, lineBytes: number): Uint8Array {
  const lines = text.length / (lineBytes + 1)
  const data = new Uint8Array(lines * lineBytes)
  for (let i = 0; i < lines; i++)
    data.set(text.subarray(i * (lineBytes + 1), i * (lineBytes + 1) + lineBytes), i * lineBytes)
  return data
}
