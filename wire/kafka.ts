/**
 * The connection to Kafka: one place that knows kafkajs's habits, for driver and consumer alike.
 *
 * - zstd is Node's own; output is capped, because a record batch of a few KB can claim to inflate to anything.
 * - Seeds are asked before one is taken (seeds.ts).
 * - kafkajs logs into ours. Its own errors are retries to us: only the caller knows whether a line was lost, so
 *   nothing of kafkajs is passed on above `warn`.
 */
import { constants, unzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import kafkajs, { type Kafka as KafkaClient, type KafkaConfig } from 'kafkajs'
import type { Logger } from 'pino'
import { clusterOf } from './cluster.ts'
import { type CompressedBatch, deferredRecords } from './deferred-records.ts'
import { kafkaSecurity, type SecuritySettings } from './security.ts'
import { answeringBrokers } from './seeds.ts'
import type { Sockets } from './sockets.ts'

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs

/** A batch that claims to inflate beyond this is refused by the decompressor. */
export const MAX_INFLATED_BYTES = 64 * 1024 * 1024

/**
 * Level 1: on logs 3 saves a tenth of the bytes and costs half as much CPU again. A window and a table that stay in the processor's
 * nearest cache cost a quarter less than the level's own, and of logs of seven kinds the bytes were the same to within three in a hundred.
 */
const ZSTD_PARAMS = {
  [constants.ZSTD_c_compressionLevel]: 1,
  [constants.ZSTD_c_windowLog]: 18,
  [constants.ZSTD_c_hashLog]: 12,
}

/**
 * What zstd makes of so many bytes at most (ZSTD_compressBound, and one more so that the output is never full). Given that much at
 * once, and told how much comes, it works from where the bytes lie: else it copies them into a window of its own first.
 */
const compressedBound = (bytes: number): number => bytes + (bytes >> 8) + 65

const inflatedPieceBytes = (compressed: number): number => Math.min(Math.max(16 * compressed, 16 * 1024), 1024 * 1024)

/**
 * In this thread: the work is the same in another one, and handing it over comes on top. The output's room is let go of at once: left
 * to the collector it brought a full collection every few dozen sends, a tenth of the driver's time.
 */
function compressZstd(buffer: Buffer): Buffer {
  const packed = zstdCompressSync(buffer, {
    chunkSize: Math.max(1024, compressedBound(buffer.length)),
    pledgedSrcSize: buffer.length,
    params: ZSTD_PARAMS,
  }) as Buffer<ArrayBuffer>
  const compressed = Buffer.from(packed)
  // A small one lies in Buffer's pool, with others.
  if (packed.buffer.byteLength !== Buffer.poolSize) packed.buffer.transfer(0)
  return compressed
}

// Inflated in this thread: the work is the same elsewhere, and handing it over comes on top.
const inflateZstd = (compressed: Buffer): Buffer =>
  zstdDecompressSync(compressed, {
    // A piece that is full to the last byte costs another one.
    chunkSize: Math.min(zstdContentBytes(compressed) ?? inflatedPieceBytes(compressed.length), MAX_INFLATED_BYTES) + 64,
    maxOutputLength: MAX_INFLATED_BYTES,
  })
const inflateGzip = (compressed: Buffer): Buffer =>
  unzipSync(compressed, { chunkSize: inflatedPieceBytes(compressed.length), maxOutputLength: MAX_INFLATED_BYTES })

/** How large a zstd frame says that its content is, where it does (RFC 8878, 3.1.1.1). */
function zstdContentBytes(frame: Buffer): number | undefined {
  const descriptor = frame[4] ?? 0
  const single = (descriptor >> 5) & 1
  const at = 5 + (1 - single) + [0, 1, 2, 4][descriptor & 3]!
  const width = [single, 2, 4, 8][descriptor >> 6]!
  if (width === 0 || frame.length < at + width) return undefined
  if (width === 8) return Number(frame.readBigUInt64LE(at))
  return frame.readUIntLE(at, width) + (width === 2 ? 256 : 0)
}

const gzip = CompressionCodecs[CompressionTypes.GZIP]!()

CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async ({ buffer }: { buffer: Buffer }) => compressZstd(buffer),
  decompress: async (buffer: Buffer) => inflateZstd(buffer),
  defer: (batch: CompressedBatch) => deferredRecords(batch, inflateZstd),
})

CompressionCodecs[CompressionTypes.GZIP] = () => ({
  compress: gzip.compress,
  decompress: async (buffer: Buffer) => inflateGzip(buffer),
  defer: (batch: CompressedBatch) => deferredRecords(batch, inflateGzip),
})

/** Codecs that a record batch may be compressed with, by their names in the settings. */
export const COMPRESSIONS = { zstd: CompressionTypes.ZSTD, gzip: CompressionTypes.GZIP, none: CompressionTypes.None }
export type Compression = keyof typeof COMPRESSIONS

/** kafkajs's name of the error that Kafka answered with, also where kafkajs wraps it; undefined for any other error. */
export function protocolError(error: unknown): string | undefined {
  const { type, cause } = error as { type?: string; cause?: unknown }
  return type ?? (cause ? protocolError(cause) : undefined)
}

export type KafkaOptions = {
  brokers: string[]
  clientId: string
  logger: Logger
  /** How the connection is secured, where it is. */
  security?: SecuritySettings
  /** How long a request may stay unanswered before kafkajs gives it up, ms. */
  requestTimeout?: number
  retry?: NonNullable<KafkaConfig['retry']>
  /** Where it has its connections from, to be cut off. */
  sockets?: Sockets
}

/**
 * A kafkajs client that speaks zstd and logs into `logger`. Connects nothing yet.
 * @throws Error for a certificate or password file that can't be read
 */
export function kafkaClient(options: KafkaOptions): KafkaClient {
  const { ssl, sasl } = options.security ? kafkaSecurity(options.security) : {}
  return new Kafka({
    brokers: () => answeringBrokers(options.brokers, ssl),
    ...(ssl && { ssl }),
    ...(sasl && { sasl }),
    clientId: options.clientId,
    requestTimeout: options.requestTimeout ?? 10_000,
    connectionTimeout: 3_000,
    ...(options.retry && { retry: options.retry }),
    ...(options.sockets && { socketFactory: options.sockets.create }),
    logLevel: logLevel.WARN,
    logCreator:
      () =>
      ({ level, namespace, log }) => {
        const { message, timestamp: _, logger: __, ...rest } = log
        options.logger[level <= logLevel.WARN ? 'warn' : 'debug']({ kafkajs: namespace, ...rest }, message)
      },
  })
}

/** kafkajs's number for the coordinator of a group, as opposed to that of a transaction. */
const GROUP = 0

/**
 * Where the coordinator of a group is, host:port, as the others say.
 * @param topic any that is there: with it come the addresses of the brokers
 * @throws Error when Kafka can't be asked
 */
export async function coordinatorOf(kafka: KafkaClient, groupId: string, topic: string): Promise<string> {
  const cluster = clusterOf(kafka)
  await cluster.connect()
  try {
    await cluster.addTargetTopic(topic)
    const { coordinator } = await cluster.findGroupCoordinatorMetadata({ groupId, coordinatorType: GROUP })
    return `${coordinator.host}:${coordinator.port}`
  } finally {
    cluster.disconnect().catch(() => {})
  }
}

/**
 * Takes a member out of a consumer group: a request that kafkajs has and offers to no caller. A member that is not in the group
 * is no error.
 * @throws Error when Kafka can't be asked
 */
export async function leaveGroup(kafka: KafkaClient, groupId: string, memberId: string): Promise<void> {
  const cluster = clusterOf(kafka)
  await cluster.connect()
  try {
    const coordinator = await cluster.findGroupCoordinator({ groupId })
    await coordinator.leaveGroup({ groupId, memberId })
  } catch (error) {
    if (protocolError(error) !== 'UNKNOWN_MEMBER_ID') throw error
  } finally {
    await cluster.disconnect()
  }
}
