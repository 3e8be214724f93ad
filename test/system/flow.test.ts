/** The whole way of a line: container, plugin, Kafka, consumer, file. Byte for byte, each line once. */
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { CAT, paced } from '../support/container.ts'
import { type House, startHouse } from '../support/house.ts'
import { MAX_LINE_BYTES, numberedLines, printed } from '../support/printed.ts'

const NEWLINE = 10
const PART_BYTES = 16_384

let house: House
let silentFolder: string
beforeAll(async () => {
  house = await startHouse('flow')
})
afterAll(() => house?.[Symbol.asyncDispose]())

/** Any bytes but newlines, NUL and `\r` and half UTF-8 among them. The same for the same seed. */
function anyBytes(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  let state = seed * 2_654_435_761 + length
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    const byte = state >>> 24
    bytes[i] = byte === NEWLINE ? 0 : byte
  }
  return bytes
}

const lines = (...all: (Buffer | string)[]): Buffer =>
  Buffer.concat(all.flatMap((line) => [Buffer.from(line), Buffer.from('\n')]))

/** Every awkward line, in an order of the seed's own. */
function awkward(seed: number): Buffer {
  const sizes = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 50_000, 200_000, 2 * PART_BYTES, 1, 0]
  const turned = [...sizes.slice(seed % sizes.length), ...sizes.slice(0, seed % sizes.length)]
  return lines(
    ...turned.map((size, i) => anyBytes(size, seed * 100 + i)),
    'progress 10 %\rprogress 20 %\r',
    '\0',
    Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0x80]),
    '2026-11-23T08:24:41.123Z web-1 a line that looks like another one’s',
    `${seed}`,
  )
}

it('one container with a million lines', async () => {
  const container = await house.run({ print: printed(numberedLines(1_000_000, 105)) })
  expect(await container.ended()).toBe(0)
  await house.landed(container)
})

it('twenty containers at once, with every size of line, any bytes, both sources and last lines without a newline', async () => {
  const unterminated = Buffer.from('the last words')
  const containers = await Promise.all(
    Array.from({ length: 20 }, (_, i) => {
      const stdout = i % 2 === 0 ? [awkward(i), unterminated] : [awkward(i)]
      const stderr = i % 3 === 0 ? [awkward(i + 50), anyBytes(PART_BYTES, i)] : [awkward(i + 50)]
      return house.create({
        print: printed(Buffer.concat(stdout), Buffer.concat(stderr)),
        command: i % 4 < 2 ? CAT : paced(1_000_000),
        // Half of them share a file.
        ...(i < 10 && { module: 'shared' }),
      })
    }),
  )
  await Promise.all(containers.map((container) => container.start()))
  await house.landed(...containers)
})

it('a line over the longest is cut, and every piece is there', async () => {
  const sizes = [MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 2 * MAX_LINE_BYTES, 600_000]
  const container = await house.run({
    print: printed(lines(...sizes.map((size) => anyBytes(size, size)), 'short'), anyBytes(300_000, 7)),
  })
  await house.landed(container)
})

it('a container that prints nothing leaves no file, and one that prints empty lines has them', async () => {
  const silent = await house.run({ print: printed('') })
  const empty = await house.run({ print: printed('\n\n\n', '\n') })
  expect(await silent.ended()).toBe(0)
  await house.landed(empty)
  silentFolder = house.folderOf(silent)
})

it('and when all has come to rest, nothing stands twice, and nothing where nothing was printed', async () => {
  await house.settled()
  expect(existsSync(dirname(silentFolder))).toBe(true)
  expect(existsSync(silentFolder)).toBe(false)
})
