/** Readers of Kafka that are not ours, in an image of their own: what they make of our records, by docs/format.md alone. */
import { join } from 'node:path'
import { command, LABEL, repo } from './engine.ts'
import type { Kafka } from './kafka.ts'

const IMAGE = 'tallyman-test-readers'

async function read(...args: string[]): Promise<string> {
  await command('docker', 'build', '--quiet', '--tag', IMAGE, join(repo, 'test/support/readers'))
  return command('docker', 'run', '--rm', '--network', 'host', '--label', LABEL, IMAGE, ...args)
}

/** What a container printed, as a reader has it: each source's lines in base64, what is told as lost, and whether the run's end agrees. */
export type ReadRun = {
  stdout: string[]
  stderr: string[]
  lost: [src: 0 | 1, from: number, count: number, reason: string][]
  whole: boolean
}

/** What Python makes of a topic of chunks, by container. */
export async function readChunks(kafka: Kafka, topic: string): Promise<Record<string, ReadRun>> {
  return JSON.parse(await read('python3', '/chunks.py', kafka.brokers.join(), topic))
}

/**
 * The values of a topic's records, as kcat prints them, a line each.
 * @param format of a record, in kcat's words
 */
export async function readValues(kafka: Kafka, topic: string, format = '%s\\n'): Promise<string[]> {
  const from = ['-b', kafka.brokers.join(), '-t', topic, '-o', 'beginning']
  return (await read('kcat', '-C', '-q', '-e', ...from, '-f', format)).split('\n').filter(Boolean)
}
