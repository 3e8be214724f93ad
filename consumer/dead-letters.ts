/**
 * Dead letters: records that can't be decoded, kept whole in `<root>/.tallyman/dead-letters/`, so that the next record is processed
 * and nothing is thrown away.
 *
 *   <name>.value   the record's value
 *   <name>.json    what is known of it beside that; a value without it is a letter that a kill cut off
 *
 * Invariants
 * - A letter is named by topic, partition and offset: read a second time after a crash it replaces itself.
 * - All of them take up `max` bytes at most. What does not fit is not kept, the oldest ones being what the fault can be found by; it
 *   is counted by partition, with its offsets, for Kafka holds it for as long as it holds anything: `dropped.json` beside the folder.
 * - A letter is older than KEEP_DAYS no more than a line is.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { KafkaMessage } from 'kafkajs'
import type { Logger } from 'pino'
import { z } from 'zod'
import { replaceFile, syncFolder } from '../wire/durable.ts'
import { codeOf } from './disk.ts'
import { pathComponent } from './names.ts'

export type Refused = {
  topic: string
  partition: number
  message: KafkaMessage
  /** How many records it stands for, from its own offset on; 1 where nothing is said. */
  records?: number
  reason: string
  text: string
}

const about = z.object({
  topic: z.string(),
  partition: z.int(),
  offset: z.string(),
  /** When Kafka appended it, ms since 1970. */
  timestamp: z.string(),
  reason: z.string(),
  message: z.string(),
  key: z.string().optional(),
  headers: z.record(z.string(), z.unknown()),
})
/** What is known of a letter. */
export type DeadLetter = z.infer<typeof about> & { name: string; bytes: number }

const dropped = z.object({
  partition: z.int(),
  records: z.int(),
  bytes: z.int(),
  /** Offsets of the first one and the last. */
  from: z.int(),
  to: z.int(),
})
/** Records of a partition that were not kept. */
export type Dropped = z.infer<typeof dropped>

const NAME = /^[\w.%~-]+-\d+-\d+$/
/** As file systems count. */
const BLOCK_BYTES = 4096

const onDisk = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES

const text = (value: Buffer | string | (Buffer | string)[] | null | undefined): unknown =>
  Array.isArray(value) ? value.map(text) : value?.toString()

export type DeadLettersOptions = {
  /** The folder of the root's own state. */
  state: string
  /** Bytes that all letters may take up. */
  max: number
  log: Logger
}

export class DeadLetters {
  /** Since the daemon started. */
  readonly counts = { dropped: 0, expired: 0, replayed: 0 }
  #folder: string
  #droppedPath: string
  #dropped: Map<number, Dropped>
  #max: number
  #log: Logger
  /** What each takes up, by its name. */
  #sizes = new Map<string, number>()
  #bytes = 0
  /** Up to when they were looked through. */
  #expired = 0

  constructor({ state, max, log }: DeadLettersOptions) {
    this.#folder = join(state, 'dead-letters')
    this.#droppedPath = join(state, 'dropped.json')
    this.#max = max
    this.#log = log
    this.#dropped = new Map(readDropped(this.#droppedPath, log).map((of) => [of.partition, of]))
    mkdirSync(this.#folder, { recursive: true })
    const files = readdirSync(this.#folder)
    for (const name of files.filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -5))) {
      if (NAME.test(name)) this.#count(name, this.#sizeOf(name))
    }
  }

  /** How many there are, and what they take up. */
  get kept(): { letters: number; bytes: number } {
    return { letters: this.#sizes.size, bytes: this.#bytes }
  }

  get max(): number {
    return this.#max
  }

  /** What was not kept for want of room. */
  get dropped(): Dropped[] {
    return [...this.#dropped.values()]
  }

  /** Names of all letters, by topic, partition and offset. */
  get names(): string[] {
    const parts = (name: string) => /^(.*)-(\d+)-(\d+)$/.exec(name)!
    return [...this.#sizes.keys()].sort((a, b) => {
      const [, topicA, partitionA, offsetA] = parts(a)
      const [, topicB, partitionB, offsetB] = parts(b)
      if (topicA !== topicB) return topicA! < topicB! ? -1 : 1
      return Number(partitionA) - Number(partitionB) || Number(offsetA) - Number(offsetB)
    })
  }

  /**
   * Keeps a record, durable when this returns, or counts it where there is no room. Called again after it threw it does so once.
   * @throws Error of the file system
   */
  keep(refused: Refused): void {
    const { topic, partition, message, records = 1, reason, text: why } = refused
    const { offset } = message
    // Of a batch that can't be inflated nothing tells when it was appended.
    const timestamp = message.timestamp || String(Date.now())
    const name = `${pathComponent(topic)}-${partition}-${offset}`
    const value = message.value ?? Buffer.alloc(0)
    const headers = Object.fromEntries(Object.entries(message.headers ?? {}).map(([key, of]) => [key, text(of)]))
    const known = { topic, partition, offset, timestamp, reason, message: why, key: message.key?.toString(), headers }
    const json = Buffer.from(`${JSON.stringify(known, undefined, 2)}\n`)
    const size = onDisk(value.length) + onDisk(json.length)
    const said = { topic, partition, offset, reason, why }
    if (!this.#sizes.has(name) && this.#bytes + size > this.#max) {
      this.#drop(partition, Number(offset), records, value.length)
      this.#log.error(
        { code: 'DEAD_LETTER_DROPPED', ...said },
        'a record could not be decoded, and DEAD_LETTERS_MAX leaves no room to keep it; Kafka has it for as long as its retention says. Replay or remove dead letters, or give them more room',
      )
      return
    }
    writeFileSync(this.#path(name, 'value'), value, { flush: true })
    writeFileSync(this.#path(name, 'json'), json, { flush: true })
    // With the folder's own name: who made it may have been killed before that was durable.
    for (const folder of [this.#folder, dirname(this.#folder)]) syncFolder(folder)
    this.#count(name, size)
    this.#log.error(
      { code: 'RECORD_UNDECODABLE', ...said, letter: name },
      'a record could not be decoded and is kept as a dead letter; its lines are missing from the files',
    )
  }

  /** What is known of a letter. @returns undefined for a name that no letter has */
  async about(name: string): Promise<DeadLetter | undefined> {
    return this.#look(name, async () => {
      const [json, { size }] = await Promise.all([readFile(this.#path(name, 'json')), stat(this.#path(name, 'value'))])
      return { ...about.parse(JSON.parse(json.toString())), name, bytes: size }
    })
  }

  /** A letter whole. @returns undefined for a name that no letter has */
  async read(name: string): Promise<{ letter: DeadLetter; value: Buffer } | undefined> {
    const letter = await this.about(name)
    const value = letter && (await this.#look(name, () => readFile(this.#path(name, 'value'))))
    return value && { letter, value }
  }

  #path(name: string, ending: 'json' | 'value'): string {
    return join(this.#folder, `${name}.${ending}`)
  }

  async #look<T>(name: string, look: () => Promise<T>): Promise<T | undefined> {
    if (!this.#sizes.has(name)) return undefined
    try {
      return await look()
    } catch (error) {
      // Somebody removed it by hand, or wrote something else into it.
      if (codeOf(error) === 'ENOENT') this.remove(name)
      else if (!(error instanceof SyntaxError || error instanceof z.ZodError)) throw error
      return undefined
    }
  }

  remove(name: string): void {
    // First what makes it a letter.
    for (const ending of ['json', 'value'] as const) rmSync(this.#path(name, ending), { force: true })
    this.#bytes -= this.#sizes.get(name) ?? 0
    this.#sizes.delete(name)
  }

  /** Removes letters that were appended before a moment, ms since 1970. */
  async expire(before: number): Promise<void> {
    if (before <= this.#expired) return
    let expired = 0
    for (const name of this.names) {
      const letter = await this.about(name)
      if (!letter || Number(letter.timestamp) >= before) continue
      this.remove(name)
      expired++
    }
    this.#expired = before
    if (expired === 0) return
    this.counts.expired += expired
    this.#log.error(
      { code: 'DEAD_LETTERS_EXPIRED', letters: expired },
      'dead letters that nobody replayed are older than KEEP_DAYS and were removed; their lines are lost',
    )
  }

  #drop(partition: number, offset: number, records: number, bytes: number): void {
    const known = this.#dropped.get(partition) ?? { partition, records: 0, bytes: 0, from: offset, to: -1 }
    // A second time, after a kill.
    if (offset <= known.to) return
    const dropped = new Map(this.#dropped)
    dropped.set(partition, {
      ...known,
      records: known.records + records,
      bytes: known.bytes + bytes,
      to: offset + records - 1,
    })
    // Counted once it is written: a disk that refuses it is asked again.
    replaceFile(this.#droppedPath, Buffer.from(JSON.stringify([...dropped.values()])), true)
    this.#dropped = dropped
    this.counts.dropped += records
  }

  #count(name: string, size: number): void {
    this.#bytes += size - (this.#sizes.get(name) ?? 0)
    this.#sizes.set(name, size)
  }

  #sizeOf(name: string): number {
    return (['json', 'value'] as const).reduce((sum, ending) => {
      const found = statSync(this.#path(name, ending), { throwIfNoEntry: false })
      return sum + onDisk(found?.size ?? 0)
    }, 0)
  }
}

function readDropped(path: string, log: Logger): Dropped[] {
  try {
    return z.array(dropped).parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof z.ZodError) {
      log.warn(
        { code: 'FILE_TAMPERED', file: path },
        'the count of records that were not kept as dead letters can not be read; it begins anew, and no line depends on it',
      )
    } else if (codeOf(error) !== 'ENOENT') throw error
    return []
  }
}
