/** The topics, that of the lines and that of the ledger: made where they are missing, and checked for what the files depend on. */
import type { Admin, ITopicConfig } from 'kafkajs'
import type { Logger } from 'pino'
import { ConsumerError } from './errors.ts'
import type { Settings } from './settings.ts'

const TIMESTAMP_TYPE = 'message.timestamp.type'
const LOG_APPEND_TIME = 'LogAppendTime'
/** Kafka's number for a topic as a resource whose configuration is asked for (org.apache.kafka.common.config.ConfigResource). */
const RESOURCE_TOPIC = 2

/** The ledger's topic keeps the last value of each key, and is cleaned often, for it is read as a whole. */
const LEDGER_CONFIG = [
  { name: 'cleanup.policy', value: 'compact' },
  { name: 'segment.ms', value: String(10 * 60_000) },
  { name: 'segment.bytes', value: String(16 * 1024 * 1024) },
  { name: 'min.cleanable.dirty.ratio', value: '0.1' },
]

/** Where the ledger of a topic is. */
export const ledgerTopicOf = ({ KAFKA_TOPIC, KAFKA_LEDGER_TOPIC }: Settings): string =>
  KAFKA_LEDGER_TOPIC ?? `${KAFKA_TOPIC}-ledger`

/**
 * Sees to it that the topics are there. A record's append time decides where a misdated line goes, so the broker has to stamp
 * it: with a sender's clock, or a second copy's, the files would not be a function of the log.
 * @throws ConsumerError when the topic has another timestamp type
 */
export async function ensureTopics(admin: Admin, settings: Settings, log: Logger): Promise<void> {
  const topic = settings.KAFKA_TOPIC
  const there = await admin.listTopics()
  if (!there.includes(topic)) {
    const configEntries = [{ name: TIMESTAMP_TYPE, value: LOG_APPEND_TIME }]
    await createTopic(admin, settings, log, { topic, numPartitions: settings.KAFKA_PARTITIONS, configEntries })
  }
  await checkTopic(admin, settings)
  const ledger = ledgerTopicOf(settings)
  if (there.includes(ledger)) return
  try {
    const numPartitions = 1 + settings.KAFKA_PARTITIONS
    await createTopic(admin, settings, log, { topic: ledger, numPartitions, configEntries: LEDGER_CONFIG })
  } catch (error) {
    // A consumer that is the only one of its group can do without.
    log.warn(
      { code: 'LEDGER_TOPIC_MISSING', topic: ledger, error: (error as Error).message },
      'the topic of the ledger is missing and can’t be created; without it no partition can be taken over from another root. Create it, with cleanup.policy=compact',
    )
  }
}

/** @throws ConsumerError when the topic has another timestamp type. @throws Error when it is not there */
async function checkTopic(admin: Admin, settings: Settings): Promise<void> {
  const topic = settings.KAFKA_TOPIC
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: RESOURCE_TOPIC, name: topic, configNames: [TIMESTAMP_TYPE] }],
  })
  const type = resources[0]?.configEntries.find(({ configName }) => configName === TIMESTAMP_TYPE)?.configValue
  if (type === LOG_APPEND_TIME) return
  throw new ConsumerError(
    'TOPIC_UNSUITABLE',
    `topic ${topic} has ${TIMESTAMP_TYPE}=${type}, and needs ${LOG_APPEND_TIME}; set it with: kafka-configs.sh --bootstrap-server ${settings.KAFKA_BROKERS[0]} --alter --entity-type topics --entity-name ${topic} --add-config ${TIMESTAMP_TYPE}=${LOG_APPEND_TIME}`,
  )
}

async function createTopic(
  admin: Admin,
  settings: Settings,
  log: Logger,
  topic: Pick<ITopicConfig, 'configEntries'> & { topic: string; numPartitions: number },
): Promise<void> {
  const { brokers } = await admin.describeCluster()
  const replicationFactor = Math.min(settings.KAFKA_REPLICATION, brokers.length)
  if (replicationFactor < settings.KAFKA_REPLICATION) {
    log.warn(
      { topic: topic.topic, wanted: settings.KAFKA_REPLICATION, brokers: brokers.length },
      'the topic gets fewer replicas than KAFKA_REPLICATION asks for, because there are fewer brokers: lines are lost if these lose their disks',
    )
  }
  const created = await admin.createTopics({ waitForLeaders: true, topics: [{ ...topic, replicationFactor }] })
  if (created) {
    log.info({ topic: topic.topic, partitions: topic.numPartitions, replicationFactor }, 'created the topic')
  }
}
