/** The worker that shipping runs in: wires the shipper to Kafka and to main, and keeps an outage down to a few lines of log. */
import { type MessagePort, workerData } from 'node:worker_threads'
import pino from 'pino'
import type { LostRange } from '../wire/chunk.ts'
import { kafkaClient } from '../wire/kafka.ts'
import { Producer } from '../wire/producer.ts'
import type { Sockets } from '../wire/sockets.ts'
import { Topics } from '../wire/topics.ts'
import type { ShippingCheckpoint } from './checkpoint.ts'
import type { ErrorCode } from './errors.ts'
import type { RunRecord } from './run.ts'
import type { Settings } from './settings.ts'
import { Shipper } from './shipper.ts'
import { type Health, MAX_CONTAINERS, ShippingMetrics } from './shipping-metrics.ts'
import { Slots } from './slots.ts'

export type ShipperData = { slots: SharedArrayBuffer; port: MessagePort; journal: string; settings: Settings }

export type ShipperRequest =
  | { type: 'add'; slot: number; record: RunRecord; checkpoint: ShippingCheckpoint }
  | { type: 'keep'; record: RunRecord; checkpoint: ShippingCheckpoint }
  | { type: 'metrics' }
  | { type: 'make-room'; wanted: boolean }
  | { type: 'stop' }

/** `metrics` answers `metrics`, `stopped` answers `stop`, once every checkpoint is written. */
export type ShipperReport =
  | { type: 'done'; slot: number }
  | { type: 'removed'; record: RunRecord }
  | { type: 'close-segment'; slot: number }
  | { type: 'metrics'; text: string; health: Health }
  | { type: 'stopped' }

/** While an outage lasts it is told this often. */
const REMIND_MS = 60_000

/** A run that can't be read or built is tried again after this long. */
const RETRY_MS = 2_000

const { slots: memory, port, journal, settings } = workerData as ShipperData
const log = pino({ level: settings.LOG_LEVEL, base: { thread: 'shipper' } })
const report = (message: ShipperReport): void => port.postMessage(message)

// kafkajs tells each retry of its own: what matters of that is said once by `failed` below.
const kafkaLog = pino({ level: settings.LOG_LEVEL === 'debug' || settings.LOG_LEVEL === 'trace' ? 'warn' : 'silent' })
const remindedAt = new Map<string, number>()

/** Whether it may be told again; the first time always. */
function due(what: string, first: boolean): boolean {
  const now = performance.now()
  if (!first && now - (remindedAt.get(what) ?? Number.NEGATIVE_INFINITY) < REMIND_MS) return false
  remindedAt.set(what, now)
  return true
}

/** So many containers are named. */
const TOLD_CONTAINERS = 10
/** Why lines are given up, and by container how many were since it began. */
const GIVEN_UP: Record<string, { code: ErrorCode; message: string; lines: Map<string, number> }> = {
  'journal-full': {
    code: 'JOURNAL_FULL',
    message:
      'the journals are full, so the oldest lines of the largest one are given up and counted; see to Kafka, or raise JOURNAL_MAX',
    lines: new Map(),
  },
  disk: {
    code: 'JOURNAL_REFUSED',
    message: "lines were dropped, and are counted, because the journal's disk took nothing; make room on it",
    lines: new Map(),
  },
  damaged: {
    code: 'JOURNAL_DAMAGED',
    message:
      "parts of the journal are no frames of dockerd or can't be read, so their lines are given up, and as many counted as are to be expected in them; see to the disk",
    lines: new Map(),
  },
  'too-large': {
    code: 'LINE_TOO_LARGE',
    message:
      "Kafka refuses lines for their size, so they are given up and counted; raise the topic's max.message.bytes",
    lines: new Map(),
  },
}

/** Lines go again and again while such a thing lasts: told when it begins, then each minute with how many by then, and whose. */
function tellGivenUp(container: string, range: LostRange): void {
  const { code, message, lines } = GIVEN_UP[range.reason]!
  lines.set(container, (lines.get(container) ?? 0) + range.count)
  if (lines.size > MAX_CONTAINERS) lines.delete(lines.keys().next().value!)
  if (!due(range.reason, false)) return
  const largest = [...lines].sort(([, a], [, b]) => b - a).slice(0, TOLD_CONTAINERS)
  const sum = lines.values().reduce((sum, count) => sum + count, 0)
  log.error({ code, lines: sum, containers: Object.fromEntries(largest), last: { container, ...range } }, message)
}

const connect = (sockets: Sockets) =>
  kafkaClient({
    brokers: settings.KAFKA_BROKERS,
    clientId: settings.KAFKA_CLIENT_ID,
    security: settings,
    logger: kafkaLog,
    requestTimeout: 5_000,
    sockets,
  })

function tellKafkaAway(error: Error, attempts: number): void {
  metrics.failed()
  if (!due('KAFKA_AWAY', attempts === 1)) return
  log.warn(
    { code: 'KAFKA_AWAY', attempts, brokers: settings.KAFKA_BROKERS, error: error.message },
    'Kafka takes no lines; the journal keeps them and they are sent as soon as it does. If this lasts, check KAFKA_BROKERS',
  )
}

const producer = new Producer(
  connect,
  {
    failed: tellKafkaAway,
    recovered(attempts, ms) {
      log.info({ attempts, ms: Math.round(ms) }, 'Kafka takes lines again')
    },
  },
  { compression: settings.KAFKA_COMPRESSION, acks: settings.KAFKA_ACKS, inPart: true },
)

/** Topics that it was last said of that they are there. */
const there = new Set<string>()

const topics = new Topics(connect, {
  found(topic, partitions) {
    // One whose records Kafka refuses is found again after each.
    if (!there.has(topic)) log.info({ topic, partitions }, 'the topic is there')
    there.add(topic)
    shipper.found()
  },
  leaderless(topic, partitions) {
    shipper.found()
    if (partitions.size === 0 || !due('PARTITION_AWAY', false)) return
    log.warn(
      { code: 'PARTITION_AWAY', topic, partitions: [...partitions] },
      'these partitions have no leader, or none that can be reached; the journal keeps their lines, and those of others go on. If this lasts, see to the brokers that hold them',
    )
  },
  failed(topic, error, missing, attempts) {
    if (!missing) return tellKafkaAway(error, attempts)
    if (topic === settings.KAFKA_TOPIC) metrics.away()
    if (!due(`TOPIC_MISSING ${topic}`, attempts === 1 && there.has(topic))) return
    there.delete(topic)
    log.warn(
      { code: 'TOPIC_MISSING', topic, attempts, error: error.message },
      'Kafka does not have the topic, or not for us; the journal keeps its lines and they are sent as soon as it is there. Create it: the consumer does so for KAFKA_TOPIC',
    )
  },
})

const shipper: Shipper = new Shipper({
  journal,
  journalMax: settings.JOURNAL_MAX,
  runsMax: settings.RUNS_MAX,
  topic: settings.KAFKA_TOPIC,
  linger: settings.LINGER,
  syncInterval: settings.JOURNAL_SYNC,
  retryMs: RETRY_MS,
  slots: new Slots(memory),
  producer,
  topics,
  events: {
    done: (slot) => report({ type: 'done', slot }),
    removed: (record) => report({ type: 'removed', record }),
    numbered: (lines) => metrics.numbered(lines),
    closeSegment: (slot) => report({ type: 'close-segment', slot }),
    acknowledged: (sent) => metrics.acknowledged(sent),
    skipped(run, where) {
      metrics.skipped(where.bytes)
      if (!due('skipped', false)) return
      log.error(
        { code: 'JOURNAL_DAMAGED', run, ...where },
        "bytes in the journal are no frames of dockerd, or can't be read, and were passed over; lines in them are lost",
      )
    },
    stumbled({ run, container }, error, gaveUp) {
      if (!due(gaveUp ? 'gave up' : 'stumbled', false)) return
      log[gaveUp ? 'error' : 'warn'](
        { code: 'RUN_STUMBLED', run, container: container.name, err: error },
        gaveUp
          ? 'what stands in the way of a run is given up: its lines are counted as lost, and the run goes on behind it'
          : "the lines of a run can't be sent; it is tried again, and others go on",
      )
    },
    refused(topic, { reason, message, acknowledged }, runs) {
      if (topic === settings.KAFKA_TOPIC && reason !== 'too-large' && acknowledged.size === 0) metrics.away()
      // That is told of the partitions.
      if (reason === 'no-leader' || !due('KAFKA_REFUSED', false)) return
      log.warn(
        { code: 'KAFKA_REFUSED', topic, reason, runs, error: message },
        'Kafka refuses batches; nothing is lost by that, they go again in another form',
      )
    },
    diskRefused(error) {
      if (!due('JOURNAL_REFUSED', false)) return
      log.warn(
        { code: 'JOURNAL_REFUSED', error: error.message },
        "the journal's disk takes no checkpoint; nothing is lost, but what is not in one is sent again after a restart. Make room on the disk",
      )
    },
    lost({ container: { name: container } }, range) {
      metrics.lost(container, range.reason, range.count)
      tellGivenUp(container, range)
    },
  },
})

const metrics = new ShippingMetrics(() => shipper.state)

let stopping = false
port.on('message', (request: ShipperRequest) => {
  if (request.type === 'add') return shipper.add(request.slot, request.record, request.checkpoint)
  if (request.type === 'keep') return shipper.keep(request.record, request.checkpoint)
  if (request.type === 'make-room') return shipper.makeRoom(request.wanted)
  if (request.type === 'metrics') {
    void metrics.text().then((text) => report({ type: 'metrics', text, health: metrics.health }))
    return
  }
  stopping = true
  shipper.stop()
  report({ type: 'stopped' })
})

try {
  await shipper.loop()
} catch (error) {
  if (!stopping) throw error
}
