/** Frames that dockerd would never write: whatever stands in one, the chunk that carries it is one that readers take. */
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { startOfRun } from '../../driver/checkpoint.ts'
import { ChunkBuilder } from '../../driver/chunks.ts'
import { containerInfo, namedContainer } from '../../driver/container.ts'
import { Cursor } from '../../driver/cursor.ts'
import { INTAKE_LIMITS, Intake } from '../../driver/intake.ts'
import { JournalReader, segmentPath } from '../../driver/journal.ts'
import { eventfd } from '../../driver/kernel.ts'
import { Slots } from '../../driver/slots.ts'
import { type Chunk, ChunkEncoder, decodeChunk, type SourcePair } from '../../wire/chunk.ts'
import { meaningOf } from '../support/chunk.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame } from '../support/log-entry.ts'

const NAMES = { service: 's', module: 'm', host: 'h', attrs: {}, lost: [], end: undefined, run: new Uint8Array(16) }
const CONTAINER = { id: 'c', name: 'n', image: 'i' }

/** What a reader makes of the chunk that these bytes become. */
function read(bytes: Uint8Array, container = CONTAINER) {
  using folder = temporaryFolder()
  writeFileSync(segmentPath(folder.path, 0), bytes)
  const reader = new JournalReader(folder.path)
  const chunk = new ChunkBuilder()
  const cursor = new Cursor(reader, startOfRun(), 1024)
  chunk.begin(cursor.lines.next, 1_000_000)
  cursor.advance(chunk, bytes.length, true, () => false)
  cursor.lines.finish(chunk)
  reader.close()
  const decoded = decodeChunk(new ChunkEncoder().encode({ ...chunk.seal(), ...NAMES, container }))
  return { ...decoded, skipped: cursor.state(0).skipped }
}

/** The frames of the corpus: what hand and fuzzing made, a file each, and in `frames.json` what each is taken for. */
const CORPUS = join(import.meta.dirname, '../corpus')

/** Has intake journal these bytes of a FIFO, ships them, and reads what readers get: lines, with their sources and numbers, and what is lost. */
function passed(bytes: Uint8Array): string[] {
  using folder = temporaryFolder()
  const file = join(folder.path, 'fifo')
  execFileSync('mkfifo', [file])
  const writer = openSync(file, constants.O_RDWR)
  const slots = new Slots()
  const slot = slots.claim(0)!
  const events = { ended: () => intake.stop(), diskRefused: () => expect.unreachable(), diskRecovered: () => {} }
  const intake: Intake = new Intake(slots, eventfd(), events, { ...INTAKE_LIMITS, segmentBytes: 300 })
  writeSync(writer, bytes)
  intake.open(slot, folder.path, file, { blockMs: 0 })
  closeSync(writer)
  intake.loop(() => {})
  expect(slots.written(slot)).toBe(bytes.length)

  const reader = new JournalReader(folder.path)
  const chunk = new ChunkBuilder()
  const cursor = new Cursor(reader, startOfRun(), 1024)
  const encoder = new ChunkEncoder()
  const told: string[] = []
  const seal = (end?: SourcePair) => {
    const { lost } = cursor
    cursor.lost = []
    const encoded = encoder.encode({ ...chunk.seal(), ...NAMES, container: CONTAINER, lost, end })
    told.push(...wordsOf(decodeChunk(encoded)))
    chunk.begin(cursor.lines.next, 1_000_000)
    return true
  }
  chunk.begin(cursor.lines.next, 1_000_000)
  while (!cursor.advance(chunk, bytes.length, true, seal)) {
    seal()
    cursor.passGap((range) => cursor.lost.push(range))
    chunk.begin(cursor.lines.next, 1_000_000)
  }
  cursor.lines.finish(chunk)
  seal([cursor.lines.next[0] - 1, cursor.lines.next[1] - 1])
  reader.close()
  return told
}

const wordsOf = (chunk: Chunk): string[] => {
  const { lines, lost = [], end } = meaningOf(chunk)
  return [
    ...lost.map(({ source, from, count, reason }) => `${source} ${from} to ${from + count - 1}: ${reason}`),
    ...lines.map((line) => {
      const said = 'text' in line ? line.text : `base64 ${line.base64}`
      return [line.source, line.number, line.time, ...(line.flags ?? []), JSON.stringify(said)].join(' ')
    }),
    ...(end ? [`end ${end.join()}`] : []),
  ]
}

const line = (time: bigint) => frame({ source: 'stdout', time, line: Buffer.from('x') })

/** A frame with more fields than are known. */
function withFields(bytes: Buffer, fields: Buffer): Buffer {
  const all = Buffer.concat([bytes, fields])
  all.writeUInt32BE(all.length - 4)
  return all
}

describe('a chunk is one that readers take', () => {
  it('whenever its lines were printed, as far as 64 bits say it', () => {
    const time = fc.oneof(
      fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
      fc.constantFrom(0n, -1n, 1n << 63n, (1n << 63n) - 1n, 1_795_422_281_000_000_000n),
    )
    fc.assert(
      fc.property(fc.array(time, { minLength: 1, maxLength: 20 }), (times) => {
        const { lines, t0, dt, skipped } = read(Buffer.concat(times.map(line)))
        expect(lines).toBe(times.length)
        expect(skipped).toBe(0)
        const signed = times.map((each) => BigInt.asIntN(64, each))
        expect([...dt].map((each) => t0 + BigInt(each))).toEqual(signed.map((each) => (each < 0n ? 0n : each)))
      }),
      { numRuns: 300 },
    )
  })

  it('where a time takes more bytes than a varint of 64 bits', () => {
    const bytes = frame({ source: 'stdout', time: 0n, line: Buffer.alloc(0) })
    const time = Buffer.from([0x10, ...Array.from({ length: 9 }, () => 0xff), 0x7f, 0x1a, 1, 0x78])
    expect(read(Buffer.concat([line(1n << 62n), withFields(bytes, time), line(5n)])).lines).toBe(3)
  })

  it('whatever fields are not known, by any number', () => {
    const field = fc
      .tuple(fc.integer({ min: 7, max: 2 ** 28 }), fc.uint8Array({ maxLength: 20 }))
      .map(([number, value]) => {
        const tag: number[] = []
        let rest = number * 8 + 2
        for (; rest > 0x7f; rest = Math.floor(rest / 128)) tag.push((rest % 128) | 0x80)
        return Buffer.from([...tag, rest, value.length, ...value])
      })
    fc.assert(
      fc.property(fc.array(fc.array(field, { maxLength: 3 }), { minLength: 1, maxLength: 10 }), (frames) => {
        const { lines, skipped } = read(
          Buffer.concat(frames.map((fields) => withFields(line(1n), Buffer.concat(fields)))),
        )
        expect({ lines, skipped }).toEqual({ lines: frames.length, skipped: 0 })
      }),
      { numRuns: 300 },
    )
  })

  const taken: Record<string, string[]> = JSON.parse(readFileSync(join(CORPUS, 'frames.json'), 'utf8'))

  it.each(readdirSync(join(CORPUS, 'frames')))('of the corpus: %s', (name) => {
    expect(passed(readFileSync(join(CORPUS, 'frames', name)))).toEqual(taken[name])
  })

  it('whatever a container is called', () => {
    const info = containerInfo.parse({
      ContainerID: 'c'.repeat(9000),
      ContainerName: `/${'n'.repeat(254)}\u{1f600}`,
      ContainerImageName: 'i'.repeat(100_000),
    })
    const { container } = read(line(1n), namedContainer(info))
    expect(Object.values(container).map((text) => text.length)).toEqual([255, 255, 255])
  })
})
