/** What kafkajs has and does not tell of, as far as we use it (src/consumer/batch.js, src/cluster/index.js, src/broker/index.js). */
declare module 'kafkajs/src/consumer/batch.js' {
  import type { KafkaMessage } from 'kafkajs'

  /** One partition's part of an answer to a fetch. Leaves out control records and what was aborted. */
  export default class Batch {
    constructor(topic: string, fetchedOffset: string, partitionData: object)
    messages: KafkaMessage[]
    rawMessages: KafkaMessage[]
    /** Of the last record, also of one that was left out. */
    lastOffset(): string
  }
}
