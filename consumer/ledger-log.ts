/** The ledger's topic as it is in Kafka: read apart from the group, and written with all replicas in sync asked. */
import type { Kafka } from 'kafkajs'
import type { Logger } from 'pino'
import type { Group } from '../wire/group.ts'
import { Producer } from '../wire/producer.ts'
import type { Sockets } from '../wire/sockets.ts'
import type { LedgerLog } from './ledger-topic.ts'

/** @param connect makes a client to write with, that has its connections from these */
export function kafkaLedgerLog(
  topic: string,
  group: Pick<Group, 'extents' | 'read'>,
  connect: (sockets: Sockets) => Kafka,
  log: Logger,
): LedgerLog {
  const events = {
    failed: (error: Error, attempts: number) =>
      log.debug({ topic, attempts, error: error.message }, 'the ledger’s topic takes nothing; it is tried again'),
    recovered: () => {},
  }
  const producer = new Producer(connect, events, { compression: 'zstd', acks: 'all' })
  return {
    extents: () => group.extents(topic),
    async *read(partition, from, to) {
      for await (const messages of group.read(partition, from, to, topic)) {
        yield messages.map(({ key, value }) => ({ key: key?.toString() ?? '', value: value?.toString() ?? null }))
      }
    },
    async append(partition, rows) {
      const records = rows.map(({ key, value }) => ({
        ...{ partition, key, headers: {} },
        value: value === null ? null : Buffer.from(value),
      }))
      await producer.send(topic, records)
    },
  }
}
