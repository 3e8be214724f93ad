/** The consumer's process: settings, the root and what it holds, the subscription, HTTP. */
import { realpathSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import pkg from '../package.json' with { type: 'json' }
import { Group } from '../wire/group.ts'
import { kafkaClient } from '../wire/kafka.ts'
import { kafkaSecurity } from '../wire/security.ts'
import { SettingsError } from '../wire/settings.ts'
import type { Sockets } from '../wire/sockets.ts'
import type { ConsumerStatus, RunRow } from './api-schema.ts'
import { Checkpoint } from './checkpoint.ts'
import { Days } from './days.ts'
import { deadLetterRoutes } from './dead-letter-routes.ts'
import { DeadLetters } from './dead-letters.ts'
import { disk } from './disk.ts'
import { DiskSpace } from './disk-space.ts'
import { ConsumerError } from './errors.ts'
import type { RunsOf } from './fan-out.ts'
import { FileReader } from './file-reader.ts'
import { housekeepingOf } from './housekeeping.ts'
import { httpApi } from './http-api.ts'
import { Hub } from './hub.ts'
import { IndexLog } from './index-log.ts'
import { Landing } from './landing.ts'
import { Layout } from './layout.ts'
import { copyOf, expiredOf, Ledger } from './ledger.ts'
import { answerLedger, countOf, owedOf } from './ledger-api.ts'
import { kafkaLedgerLog } from './ledger-log.ts'
import { ledgerRoutes } from './ledger-routes.ts'
import { LedgerTopic } from './ledger-topic.ts'
import { isLoopback } from './loopback.ts'
import { Manifests } from './manifests.ts'
import { Membership } from './membership.ts'
import { Metrics } from './metrics.ts'
import { Peers } from './peers.ts'
import { readingRoutes } from './reading-routes.ts'
import { Reindex } from './reindex.ts'
import { reindexRoutes } from './reindex-routes.ts'
import { sender } from './replay.ts'
import { openRoot, probe } from './root.ts'
import { RowCache } from './row-cache.ts'
import { consumerSettings, type Settings } from './settings.ts'
import { Slots } from './slots.ts'
import { Subscriber } from './subscriber.ts'
import { tailCursor } from './tail.ts'
import { Tokens } from './tokens.ts'
import { ensureTopics, ledgerTopicOf } from './topic.ts'
import { verify } from './verify.ts'
import { Writer } from './writer.ts'

/** A stop takes no longer: Docker kills ten seconds after it asked. */
const STOP_MS = 9_000

/** EX_CONFIG of sysexits.h. */
const EXIT_SETTINGS = 78

function settingsOrExit(): Settings {
  try {
    return consumerSettings(process.env)
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    process.stderr.write(`tallyman consumer: ${error.message}\n`)
    process.exit(EXIT_SETTINGS)
  }
}

const settings = settingsOrExit()
/** Names that containers chose stand in the log, and some terminals obey control characters that JSON lets through. */
const escapeControls = (line: string): string =>
  line.replace(/[\x7f-\x9f]/g, (control) => `\\u00${control.charCodeAt(0).toString(16)}`)
const log = pino({ level: settings.LOG_LEVEL, base: null, hooks: { streamWrite: escapeControls } })
// kafkajs tells each retry of its own; what matters of that the subscriber says once.
const kafkaLog = log.child(
  {},
  { level: settings.LOG_LEVEL === 'debug' || settings.LOG_LEVEL === 'trace' ? 'debug' : 'silent' },
)

/** Nothing is lost: what is claimed and not in the checkpoint is written by the next process. */
function failed(error: unknown): never {
  log.fatal(
    { err: error, code: error instanceof ConsumerError ? error.code : undefined },
    'the consumer could not go on',
  )
  process.exit(1)
}

try {
  const root = openRoot(settings.ROOT)
  const checkpoint = new Checkpoint(join(root.state, 'checkpoint'))
  const { files, runs, totals, index: indexed } = checkpoint.state
  const index = new IndexLog(root.state, indexed)
  const ledger = new Ledger(copyOf({ runs, totals }), expiredOf(checkpoint.state))
  const hub: Hub = new Hub({
    readerBytes: settings.TAIL_BUFFER,
    memory: settings.TAIL_MEMORY,
    lengths: () => writer.lengths,
    cursor: () => tailCursor(checkpoint.state),
  })
  const writer = new Writer({
    root: root.path,
    files,
    openFiles: settings.OPEN_FILES,
    log,
    register: (named) => checkpoint.append({ files: named }),
    flushed: () => hub.flushed(),
  })
  checkpoint.watch(() => hub.durable())
  const layout = new Layout(settings.LINE_FORMAT, new Days(settings.TZ_FILES), settings.KEEP_DAYS)
  const letters = new DeadLetters({ state: root.state, max: settings.DEAD_LETTERS_MAX, log })
  const landing = new Landing({
    ...{ topic: settings.KAFKA_TOPIC, letters, ledger, layout, writer, index, hub },
  })
  const connect = (requestTimeout?: number, sockets?: Sockets) =>
    kafkaClient({
      brokers: settings.KAFKA_BROKERS,
      clientId: settings.KAFKA_CLIENT_ID,
      security: settings,
      logger: kafkaLog,
      ...(requestTimeout !== undefined && { requestTimeout }),
      ...(sockets && { sockets }),
    })
  const group = new Group({
    connect,
    tls: kafkaSecurity(settings).ssl,
    groupId: settings.KAFKA_GROUP,
    topic: settings.KAFKA_TOPIC,
    fetchBytes: settings.KAFKA_FETCH_BYTES,
  })
  const ledgerTopic = new LedgerTopic({
    log: kafkaLedgerLog(ledgerTopicOf(settings), group, (sockets) => connect(undefined, sockets), log),
    group: settings.KAFKA_GROUP,
    owner: root.uuid,
    state: checkpoint.state,
    logger: log,
  })
  const membership = new Membership(root.state)
  const space = new DiskSpace(root.path, settings.MIN_FREE)
  const metrics: Metrics = new Metrics(
    () => landing.counts,
    () => subscriber.lag,
    () => countOf([...ledger.state.totals.values(), ...owedOf(subscriber.claimed)]),
  )
  metrics.figure('tail_readers', 'Readers that follow lines as they land.', () => hub.readers)
  metrics.figure('tail_lines_missed_total', 'Lines that were left out for readers that were slow.', () => hub.missed)
  metrics.figure(
    'files_tampered_total',
    'Files that were truncated, replaced or removed while they were written.',
    () => writer.tampered,
  )
  metrics.figure('disk_free_bytes', "Bytes that are free on the root's disk.", () => space.now.free)
  metrics.figure('disk_paused', '1 while nothing is written because MIN_FREE would not be kept.', () =>
    Number(space.paused),
  )
  const subscriber = new Subscriber({
    group,
    ledgerTopic,
    topic: settings.KAFKA_TOPIC,
    brokers: settings.KAFKA_BROKERS,
    rootPath: root.path,
    owner: root.uuid,
    checkpoint,
    ledger,
    landing,
    writer,
    index,
    log,
    admit: () => space.admit(),
    probe: (bytes) => probe(root, bytes),
    connected: async (kafka, admin, again) => {
      await membership.leaveForTheDead(kafka, settings.KAFKA_GROUP)
      // A topic that somebody deletes while we run is his to make again, and what was suitable is so still.
      if (!again) await ensureTopics(admin, settings, log)
    },
    joined: (memberId) => membership.joined(memberId),
    failed,
    landed: (times) => metrics.landed(times),
  })
  metrics.figure(
    'partitions_leaderless',
    'Partitions that are not read because they have no leader that can be reached.',
    () => subscriber.leaderless.size,
  )
  metrics.figure('records_expired_total', 'Records that Kafka dropped before they were read.', () =>
    checkpoint.state.partitions.values().reduce((sum, { expired = 0 }) => sum + expired, 0),
  )
  const manifests = new Manifests(checkpoint)
  const rows = new RowCache({
    ...{ state: root.state, index, files, reindexed: checkpoint.state.reindexed, runs: ledger.state.runs },
    ...{ format: settings.LINE_FORMAT, maxBytes: settings.INDEX_CACHE },
  })
  const text = new FileReader({ root: root.path, files: checkpoint.state.files })
  const reindex = new Reindex({
    ...{ state: root.state, disk, checkpoint, index, text, runs: ledger.state.runs, settings, log, failed },
    namesOf: (row) => rows.namesOf(row),
    kafka: group,
    checkpointed: (work) => subscriber.checkpointed(work),
  })
  const housekeeping = housekeepingOf({
    ...{ root, settings, checkpoint, manifests, landing, writer, index, layout, ledger, letters },
    ...{ subscriber, reindex, space, metrics, log },
  })
  const self = { name: settings.CONSUMER_NAME ?? hostname(), uuid: root.uuid }
  const status = (): ConsumerStatus => {
    const reason = subscriber.trouble
    return {
      ...{ name: self.name, root: root.uuid, version: pkg.version },
      ...{ ready: reason === undefined, ...(reason !== undefined && { reason }) },
      lag: subscriber.lag.reduce((sum, [, records]) => sum + records, 0),
      ...{ timeZone: settings.TZ_FILES, lineFormat: settings.LINE_FORMAT, keepDays: settings.KEEP_DAYS },
      disk: space.now,
    }
  }
  const { TOKENS_FILE, TLS_CERT_FILE, TLS_KEY_FILE } = settings
  const peers = new Peers({
    urls: settings.PEERS,
    tokenFile: settings.PEERS_TOKEN_FILE,
    self,
  })
  const runsOf: RunsOf = (query, { may }) =>
    answerLedger(ledger.state, [], { ...query, by: 'run' }, may, Date.now()).rows as RunRow[]
  const api = await httpApi({
    log,
    tokens: TOKENS_FILE ? new Tokens(TOKENS_FILE, log) : undefined,
    certificate: TLS_CERT_FILE && TLS_KEY_FILE ? { cert: TLS_CERT_FILE, key: TLS_KEY_FILE } : undefined,
    requests: settings.RATE_LIMIT,
    streams: settings.STREAMS_MAX,
    idleMs: settings.SEARCH_IDLE,
    several: { peers, runsOf },
    trouble: () => subscriber.trouble,
    metrics: metrics.registry,
    routes: [
      ledgerRoutes({
        ledger: ledger.state,
        claimed: () => subscriber.claimed,
        disown: (root) => ledgerTopic.disown(root),
        verify: (query, may) => verify(root.path, checkpoint.state, query, may, owedOf(subscriber.claimed)),
      }),
      readingRoutes({
        ...{ history: { rows, text }, overview: { rows, manifests, ledger: ledger.state }, hub },
        ...{ root: realpathSync(root.path), files: checkpoint.state.files },
        ...{ format: settings.LINE_FORMAT, searches: new Slots(settings.SEARCHES_MAX), status },
      }),
      reindexRoutes({ reindex, peers }),
      deadLetterRoutes({
        letters,
        topic: settings.KAFKA_TOPIC,
        send: sender((sockets) => connect(undefined, sockets), settings.KAFKA_TOPIC),
      }),
    ],
  })

  const stop = async (signal: string): Promise<void> => {
    log.info({ signal }, 'stopping')
    // A kill does no harm, and the group need not wait for longer than that.
    setTimeout(() => {
      log.warn('what was in hand did not end in time; nothing is lost, the next start goes on from the checkpoint')
      process.exit(1)
    }, STOP_MS)
    const [left] = await Promise.all([subscriber.stop(), housekeeping.stop(), api.close()])
    if (subscriber.brokenOff) {
      log.info({ ...landing.counts }, 'stopped; what was claimed and is not written the next start writes')
      process.exit(1)
    }
    if (left) membership.left()
    writer.close()
    checkpoint.close()
    log.info({ ...landing.counts }, 'stopped; every line that was claimed is written')
    process.exit(0)
  }
  process.once('SIGTERM', stop)
  process.once('SIGINT', stop)

  if (!isLoopback(settings.HTTP_ADDR.host) && !TLS_CERT_FILE) {
    log.warn({ http: settings.HTTP_ADDR }, 'HTTP is served beyond loopback without TLS: tokens travel in the clear')
  }
  await api.listen({ host: settings.HTTP_ADDR.host, port: settings.HTTP_ADDR.port })
  log.info(
    { root: root.path, uuid: root.uuid, http: settings.HTTP_ADDR, topic: settings.KAFKA_TOPIC },
    'tallyman consumer is up',
  )
  housekeeping.start()
  await subscriber.start()
  // Not before: on a root with many runs it would keep lines from landing for a second.
  rows.warm().catch((error) => log.warn({ err: error }, "today's index could not be read beforehand"))
} catch (error) {
  failed(error)
}
