/**
 * Downloads the jars that setup/kafka/jars.txt pins into var/kafka/jars/.
 *
 * Invariants
 *  - A file stands in that folder only if its SHA-256 is the pinned one: it is written aside, checked, then renamed.
 *  - What stands there already with the right sum is not downloaded again; what is not in the list is removed.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const REPOSITORY = process.env['MAVEN_REPOSITORY'] ?? 'https://repo1.maven.org/maven2'
const TRIES = 4
const AT_ONCE = 8

const folder = join(import.meta.dirname, '../var/kafka/jars')
const list = join(import.meta.dirname, 'kafka/jars.txt')

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

const jars = readFileSync(list, 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [sum = '', path = ''] = line.split(/\s+/)
    return { sum, path, file: join(folder, basename(path)) }
  })

function isThere(file: string, sum: string): boolean {
  try {
    return sha256(readFileSync(file)) === sum
  } catch {
    return false
  }
}

async function download(url: string): Promise<Uint8Array> {
  const response = await fetch(url, { signal: AbortSignal.timeout(120_000) })
  if (!response.ok) throw new Error(`HTTP ${response.status}`)
  return new Uint8Array(await response.arrayBuffer())
}

async function get({ sum, path, file }: (typeof jars)[number]): Promise<void> {
  if (isThere(file, sum)) return
  const url = `${REPOSITORY}/${path}`
  for (let left = TRIES - 1; ; left--) {
    try {
      const bytes = await download(url)
      if (sha256(bytes) !== sum) throw new Error(`its SHA-256 is ${sha256(bytes)}, not ${sum}`)
      writeFileSync(`${file}.part`, bytes)
      renameSync(`${file}.part`, file)
      return
    } catch (error) {
      if (left === 0) {
        const { message, cause } = error as Error
        const why = cause instanceof Error ? `${message}: ${cause.message}` : message
        throw new Error(`${url} could not be downloaded: ${why}`, { cause: error })
      }
      await sleep(1000)
    }
  }
}

mkdirSync(folder, { recursive: true })
const wanted = new Set(jars.map(({ file }) => basename(file)))
for (const name of readdirSync(folder)) if (!wanted.has(name)) rmSync(join(folder, name))

const queue = [...jars]
const worker = async () => {
  for (let jar = queue.shift(); jar; jar = queue.shift()) await get(jar)
}
try {
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
} catch (error) {
  console.error((error as Error).message)
  console.error('Make Maven Central reachable, or name a mirror of it in MAVEN_REPOSITORY, and run this again.')
  process.exit(1)
}
