/**
 * Waits until all that was printed is in files, and says what is not when the time is up: drain.ts JOURNAL SECONDS
 * (JOURNAL is a folder, or `none`). `make down` runs it in a container, which may read the journal.
 *
 * Invariants
 *  - It only reads: the plugin ships its journal and the consumer its topic, as always.
 *  - A run is shipped when its folder is gone or its checkpoint stands at its end; a record is consumed when the group
 *    has claimed it, and the consumer writes what it has claimed before it ends.
 */
import { existsSync, readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import pino from 'pino'
import { readCheckpoint } from '../driver/checkpoint.ts'
import { Frame, readFrame } from '../driver/frames.ts'
import { JournalReader, journalEnd, runFolder, runsFolder } from '../driver/journal.ts'
import { kafkaClient } from '../wire/kafka.ts'

const BROKERS = ['127.0.0.1:9092']
const TOPIC = 'tallyman'
const GROUP = 'tallyman'
const BLOCK = 1024 * 1024

const [journal = 'none', seconds = '30'] = process.argv.slice(2)
const deadline = Date.now() + Number(seconds) * 1000

function checkpointOf(folder: string): number {
  try {
    return readCheckpoint(folder)?.offset ?? 0
  } catch {
    return 0
  }
}

/** Lines that end behind the checkpoint, up to the first bytes that are no frame. */
function unshippedLines(folder: string): number {
  const reader = new JournalReader(folder)
  const block = new Uint8Array(BLOCK)
  const frame = new Frame()
  const end = journalEnd(folder)
  let lines = 0
  for (let offset = checkpointOf(folder); offset < end; ) {
    const bytes = reader.read(block, 0, Math.min(BLOCK, end - offset), offset)
    let at = 0
    for (let next = readFrame(block, at, bytes, frame); next > 0; next = readFrame(block, at, bytes, frame)) {
      at = next
      if (!frame.partial || frame.last) lines++
    }
    if (at === 0) break
    offset += at
  }
  reader.close()
  return lines
}

/** Folders of the runs that are not shipped to their end. */
function unshippedRuns(): string[] {
  if (journal === 'none' || !existsSync(runsFolder(journal))) return []
  return readdirSync(runsFolder(journal))
    .filter((name) => !name.startsWith('.'))
    .map((run) => runFolder(journal, run))
    .filter((folder) => {
      try {
        return checkpointOf(folder) < journalEnd(folder)
      } catch {
        return false // gone since it was listed
      }
    })
}

const admin = kafkaClient({
  brokers: BROKERS,
  clientId: 'tallyman-drain',
  logger: pino({ level: 'silent' }),
  requestTimeout: 5_000,
  retry: { retries: 1 },
}).admin()

/** Records that the group has not claimed; undefined when Kafka does not tell. */
async function unclaimedRecords(): Promise<number | undefined> {
  try {
    await admin.connect()
    if (!(await admin.listTopics()).includes(TOPIC)) return 0
    const ends = await admin.fetchTopicOffsets(TOPIC)
    const [group] = await admin.fetchOffsets({ groupId: GROUP, topics: [TOPIC] })
    const claimed = new Map(group?.partitions.map(({ partition, offset }) => [partition, Number(offset)]))
    return ends.reduce(
      (sum, { partition, low, high }) => sum + Number(high) - Math.max(claimed.get(partition) ?? -1, Number(low)),
      0,
    )
  } catch {
    return undefined
  } finally {
    await admin.disconnect().catch(() => {})
  }
}

let runs = unshippedRuns()
let records = runs.length > 0 ? undefined : await unclaimedRecords()
while ((runs.length > 0 || records !== 0) && Date.now() < deadline) {
  await sleep(500)
  runs = unshippedRuns()
  if (runs.length === 0) records = await unclaimedRecords()
}
records ??= await unclaimedRecords()

const lines = runs.reduce((sum, folder) => sum + unshippedLines(folder), 0)
if (lines > 0) console.log(`${lines} lines in the plugin's journal never reached Kafka, and go with the plugin`)
if (records === undefined) console.log('Kafka does not answer: what it holds and no file has yet goes with it')
else if (records > 0) console.log(`${records} records in Kafka never reached the consumer, and go with Kafka`)
if (lines === 0 && records === 0) console.log('every line is in its file')
process.exit(0)
