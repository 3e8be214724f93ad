/**
 * run.json: what a run is, written once before StartLogging answers and never changed. With it a driver that was killed
 * finds its FIFOs and goes on. It holds no environment of the container: only what the log-opts selected of it.
 * The run's id is the name of its folder.
 */
import { randomUUID } from 'node:crypto'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as z from 'zod'
import { syncPath } from '../wire/durable.ts'
import { dropCheckpoint } from './checkpoint.ts'
import { makeRun, reserveDropped, runFolder, runsFolder } from './journal.ts'

const options = z.object({
  maxLineBytes: z.int().min(1),
  /** What is kept for `docker logs` of all runs of the container, once it is shipped. 0: nothing. */
  cacheBytes: z.int().min(0),
  /** What chooses the partition: the key of the records. */
  key: z.enum(['module', 'run']),
  /** Another topic than the plugin's own. */
  topic: z.string().optional(),
  format: z.enum(['chunk', 'json']).default('chunk'),
  /** What happens when the journals are full of what Kafka has not taken, or the disk takes nothing. */
  onFull: z.enum(['drop-oldest', 'block']).default('drop-oldest'),
  /** For how long in a row the container may be made to wait for that, ms. */
  blockMs: z.int().min(0).default(1_000),
})

/** What the log-opts say of how a run is handled, frozen when it starts. */
export type RunOptions = z.infer<typeof options>

const schema = z.object({
  v: z.literal(1),
  /** The FIFO that dockerd made for it. */
  file: z.string().startsWith('/'),
  service: z.string().min(1),
  module: z.string().min(1),
  host: z.string(),
  container: z.object({ id: z.string(), name: z.string(), image: z.string() }),
  attrs: z.record(z.string(), z.string()),
  /** When it was started, ms since 1970. */
  started: z.number(),
  options,
})

/** `run` is the run's id. */
export type RunRecord = z.infer<typeof schema> & { run: string }

/** What a run is, with a new id, before it is in the journal. */
export const describeRun = (description: Omit<RunRecord, 'v' | 'run'>): RunRecord => ({
  v: 1,
  run: randomUUID(),
  ...description,
})

/**
 * Makes the run's folder and its run.json; `makeDurable` has them survive a loss of power.
 * @throws Error of the file system, with nothing left of the folder
 */
export function writeRun(journal: string, { run, ...description }: RunRecord): void {
  makeRun(journal, run, (folder) => {
    reserveDropped(folder)
    writeFileSync(join(folder, 'run.json'), JSON.stringify(description), { mode: 0o600 })
  })
}

/** A new run in the journal. @throws as `writeRun` */
export function createRun(journal: string, description: Omit<RunRecord, 'v' | 'run'>): RunRecord {
  const record = describeRun(description)
  writeRun(journal, record)
  return record
}

/** Syncs what `createRun` made, in the pool's threads. */
export async function makeDurable(journal: string, { run }: RunRecord): Promise<void> {
  const folder = runFolder(journal, run)
  await Promise.all([join(folder, 'run.json'), folder, runsFolder(journal)].map(syncPath))
}

/** @throws Error saying what is wrong with the folder's name or the file */
export function readRun(journal: string, run: string): RunRecord {
  z.uuid({ error: 'the folder is not named by a UUID' }).parse(run)
  return { ...schema.parse(JSON.parse(readFileSync(join(runFolder(journal, run), 'run.json'), 'utf8'))), run }
}

const text = z.string().catch('')
const name = z.string().min(1).catch('unknown')

/**
 * What can be known of the run whose FIFO is `file` where its run.json is not understood: what a newer version wrote is mostly
 * the same, of one that is damaged nothing is left but the FIFO's name.
 * @param runJson text of it, where there is any
 * @param defaults of what it does not say
 */
export function guessRun(
  file: string,
  runJson: string | undefined,
  defaults: Pick<RunRecord, 'host' | 'options'>,
): Omit<RunRecord, 'v' | 'run'> {
  let json: unknown
  try {
    json = JSON.parse(runJson ?? '')
  } catch {
    // Nothing is known.
  }
  const id = basename(file)
  const container = z.object({
    id: z.string().min(1).catch(id),
    name: z.string().min(1).catch(id.slice(0, 12)),
    image: text,
  })
  const guess = z
    .object({
      service: name,
      module: name,
      container: container.catch({ id, name: id.slice(0, 12), image: '' }),
      attrs: schema.shape.attrs.catch({}),
      options: options.catch(defaults.options),
    })
    .parse(typeof json === 'object' && json !== null ? json : {})
  return { ...guess, file, host: defaults.host, started: Date.now() }
}

/**
 * Gives a run another id, where its line numbers are unknown: under the old id readers would take the lines that
 * are left for copies of lines that they have.
 */
export function renameRun(journal: string, record: RunRecord): RunRecord {
  const run = randomUUID()
  dropCheckpoint(runFolder(journal, record.run))
  renameSync(runFolder(journal, record.run), runFolder(journal, run))
  return { ...record, run }
}
