/** The topic: made where it is missing, and checked for what the files depend on. */
import type { Admin } from 'kafkajs'
import type { Logger } from 'pino'
import { ConsumerError } from './errors.ts'
import type { Settings } from './settings.ts'

const TIMESTAMP_TYPE = 'message.timestamp.type'
const LOG_APPEND_TIME = 'LogAppendTime'
/** Kafka's number for a topic as a resource whose configuration is asked for (org.apache.kafka.common.config.ConfigResource). */
const RESOURCE_TOPIC = 2

/**
 * Sees to it that the topic is there. A record's append time decides where a misdated line goes, so the broker has to stamp
 * it: with a sender's clock, or a second copy's, the files would not be a function of the log.
 * @throws ConsumerError when the topic has another timestamp type
 */
export async function ensureTopic(admin: Admin, settings: Settings, log: Logger): Promise<void> {
  const topic = settings.KAFKA_TOPIC
  if (!(await admin.listTopics()).includes(topic)) await createTopic(admin, settings, log)
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

async function createTopic(admin: Admin, settings: Settings, log: Logger): Promise<void> {
  const { brokers } = await admin.describeCluster()
  const replicationFactor = Math.min(settings.KAFKA_REPLICATION, brokers.length)
  if (replicationFactor < settings.KAFKA_REPLICATION) {
    log.warn(
      { wanted: settings.KAFKA_REPLICATION, brokers: brokers.length },
      'the topic gets fewer replicas than KAFKA_REPLICATION asks for, because there are fewer brokers: lines are lost if these lose their disks',
    )
  }
  const created = await admin.createTopics({
    waitForLeaders: true,
    topics: [
      {
        topic: settings.KAFKA_TOPIC,
        numPartitions: settings.KAFKA_PARTITIONS,
        replicationFactor,
        configEntries: [{ name: TIMESTAMP_TYPE, value: LOG_APPEND_TIME }],
      },
    ],
  })
  if (created) {
    log.info(
      { topic: settings.KAFKA_TOPIC, partitions: settings.KAFKA_PARTITIONS, replicationFactor },
      'created the topic',
    )
  }
}
