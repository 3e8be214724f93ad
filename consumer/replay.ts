/**
 * Replay: dead letters that can be decoded by now go back to Kafka, into the partition that they came from, and land as any record does.
 *
 * So nothing of what landing depends on is different for them: a replayed line lands once, in the root of whoever holds the partition
 * now, and the hole that its record left in the ledger is taken back. A letter is removed once Kafka has its record. Killed in
 * between it is replayed again, and the ledger drops the second copy.
 */
import type { Kafka } from 'kafkajs'
import { ChunkError } from '../wire/chunk.ts'
import { type OutgoingRecord, Producer } from '../wire/producer.ts'
import { decodeRecord } from '../wire/record.ts'
import type { Sockets } from '../wire/sockets.ts'
import { within } from '../wire/within.ts'
import type { ReplayAnswer } from './api-schema.ts'
import type { DeadLetter, DeadLetters } from './dead-letters.ts'
import { ConsumerError } from './errors.ts'

/** Whoever asks for a replay does not wait longer than this for Kafka. */
const SEND_MS = 15_000
/** Values that are sent at once: what brokers take in one batch. */
const BATCH_BYTES = 512 * 1024

export type ReplayOptions = {
  letters: DeadLetters
  /** The topic that we read: letters of another one stay. */
  topic: string
  /** Resolves once Kafka has the records. */
  send(records: OutgoingRecord[]): Promise<void>
}

/** Sends records to a topic. @param connect makes a client. @throws ConsumerError when Kafka does not take it in time */
export const sender =
  (connect: (sockets: Sockets) => Kafka, topic: string): ReplayOptions['send'] =>
  async (records) => {
    const events = { failed: () => {}, recovered: () => {} }
    const producer = new Producer(connect, events, { compression: 'zstd', acks: 'all' })
    try {
      await within(SEND_MS, producer.send(topic, records), new AbortController().signal)
    } catch (error) {
      const { message } = error as Error
      throw new ConsumerError('KAFKA_AWAY', `Kafka does not take what is to be replayed: ${message}. Try it again`)
    } finally {
      producer.stop()
    }
  }

/** @returns how many lines a letter holds, or why it can't be decoded */
export function linesOf(
  { headers }: DeadLetter,
  value: Buffer,
): { lines: number } | { reason: string; message: string } {
  try {
    return { lines: decodeRecord({ value, headers: textHeaders(headers) }).lines }
  } catch (error) {
    if (!(error instanceof ChunkError)) throw error
    return { reason: error.reason, message: error.message }
  }
}

/**
 * Replays letters.
 * @param names which ones
 * @param may which services' letters
 * @throws what `send` throws; letters of before that are replayed
 */
export async function replay(
  { letters, topic, send }: ReplayOptions,
  names: readonly string[],
  may: (letter: DeadLetter) => boolean,
): Promise<ReplayAnswer> {
  const answer: ReplayAnswer = { replayed: [], failed: [], partial: [] }
  let batch: { name: string; lines: number; record: OutgoingRecord }[] = []
  let bytes = 0
  const flush = async (): Promise<void> => {
    if (batch.length === 0) return
    await send(batch.map(({ record }) => record))
    for (const { name, lines } of batch) {
      letters.remove(name)
      letters.counts.replayed++
      answer.replayed.push({ name, lines })
    }
    batch = []
    bytes = 0
  }
  for (const name of names) {
    const found = await letters.read(name)
    if (!found || !may(found.letter)) continue
    const { letter, value } = found
    const decoded = linesOf(letter, value)
    if ('reason' in decoded) answer.failed.push({ name, ...decoded })
    else if (letter.topic !== topic) {
      const message = `it is of topic ${letter.topic}, and this consumer reads ${topic}`
      answer.failed.push({ name, reason: 'other-topic', message })
    } else {
      if (bytes + value.length > BATCH_BYTES) await flush()
      const headers = textHeaders(letter.headers)
      batch.push({
        name,
        lines: decoded.lines,
        record: { partition: letter.partition, key: letter.key ?? '', headers, value: Buffer.from(value) },
      })
      bytes += value.length
    }
  }
  await flush()
  return answer
}

const textHeaders = (headers: Record<string, unknown>): Record<string, string> =>
  Object.fromEntries(
    Object.entries(headers).filter((header): header is [string, string] => typeof header[1] === 'string'),
  )
