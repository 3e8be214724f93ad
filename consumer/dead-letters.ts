/**
 * Dead letters: records that can't be decoded, kept whole in `<root>/.tallyman/dead-letters/`, so that the next record is
 * processed and nothing is thrown away.
 *
 * A letter is named by topic, partition and offset: read a second time after a crash it replaces itself.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { KafkaMessage } from 'kafkajs'
import { pathComponent } from './names.ts'

export type DeadLetter = { topic: string; partition: number; message: KafkaMessage; reason: string; text: string }

const text = (value: Buffer | string | (Buffer | string)[] | null | undefined): unknown =>
  Array.isArray(value) ? value.map(text) : value?.toString()

/** Keeps the record's value as `<name>.value`, and what is known of it beside that as `<name>.json`. @returns the name */
export function keepDeadLetter(state: string, { topic, partition, message, reason, text: why }: DeadLetter): string {
  const folder = join(state, 'dead-letters')
  mkdirSync(folder, { recursive: true })
  const name = `${pathComponent(topic)}-${partition}-${message.offset}`
  writeFileSync(join(folder, `${name}.value`), message.value ?? Buffer.alloc(0), { flush: true })
  const about = {
    topic,
    partition,
    offset: message.offset,
    timestamp: message.timestamp,
    reason,
    message: why,
    key: text(message.key),
    headers: Object.fromEntries(Object.entries(message.headers ?? {}).map(([key, value]) => [key, text(value)])),
  }
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(about, undefined, 2)}\n`, { flush: true })
  return name
}
