/**
 * kafkajs's Cluster: connections to brokers and requests that kafkajs has and offers to no caller. Here is what we need of them.
 */
import type { Kafka } from 'kafkajs'

type Coordinator = { leaveGroup(member: { groupId: string; memberId: string }): Promise<unknown> }

/** A broker's answer to a fetch: what it says of a partition is for kafkajs's Batch. */
type Fetched = { responses: { topicName: string; partitions: { partition: number }[] }[] }

type FetchRequest = {
  /** How long the broker may wait for `minBytes`, ms. */
  maxWaitTime: number
  minBytes: number
  maxBytes: number
  isolationLevel: number
  topics: { topic: string; partitions: { partition: number; fetchOffset: string; maxBytes: number }[] }[]
}

export type Cluster = {
  connect(): Promise<void>
  disconnect(): Promise<void>
  addTargetTopic(topic: string): Promise<void>
  refreshMetadata(): Promise<void>
  findTopicPartitionMetadata(topic: string): { partitionId: number; leader: number }[]
  findBroker(of: { nodeId: number }): Promise<{ fetch(request: FetchRequest): Promise<Fetched> }>
  findGroupCoordinator(of: { groupId: string }): Promise<Coordinator>
  findGroupCoordinatorMetadata(of: { groupId: string; coordinatorType: number }): Promise<{
    coordinator: { host: string; port: number }
  }>
}

/** A cluster of the client's settings, not yet connected. */
export function clusterOf(kafka: Kafka): Cluster {
  const create = Object.getOwnPropertySymbols(kafka).find(
    ({ description }) => description === 'private:Kafka:createCluster',
  )!
  const clients = kafka as unknown as Record<symbol, (options: object) => Cluster>
  // As kafkajs makes one for a consumer: it sets no default of its own for these.
  return clients[create]!({ allowAutoTopicCreation: false, metadataMaxAge: 10_000, maxInFlightRequests: null })
}
