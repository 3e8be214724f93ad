import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FifoError } from '../../driver/fifos.ts'
import { Intake } from '../../driver/intake.ts'
import { eventfd } from '../../driver/kernel.ts'
import { Slots } from '../../driver/slots.ts'
import { temporaryFolder } from '../support/folder.ts'

const OPTIONS = { blockMs: 1000 }
const LIMITS = { segmentBytes: 1000, retryMs: 100 }

function house(pipeBytes = 1024 * 1024) {
  const slots = new Slots()
  const ended: number[] = []
  const intake: Intake = new Intake(
    slots,
    eventfd(),
    {
      ended(slot) {
        ended.push(slot)
        intake.stop()
      },
      diskRefused: (slot, errno) => expect.fail(`slot ${slot} refused with ${errno}`),
      diskRecovered: () => {},
    },
    { ...LIMITS, pipeBytes },
  )
  return { slots, intake, ended }
}

/** A FIFO as dockerd makes and holds it. */
function fifo(path: string): number {
  execFileSync('mkfifo', [path])
  return openSync(path, constants.O_RDWR)
}

/** The size of a FIFO's pipe: F_GETPIPE_SZ. */
const pipeBytes = (path: string): number =>
  Number(execFileSync('perl', ['-e', 'open my $fifo, "+<", $ARGV[0]; print fcntl $fifo, 1032, 0', path]))

const journalled = (folder: string) =>
  Buffer.concat(
    readdirSync(folder)
      .filter((name) => name.endsWith('.segment'))
      .sort()
      .map((name) => readFileSync(join(folder, name))),
  ).toString()

describe('intake', () => {
  it('journals what the FIFO gives, verbatim, up to the end of the stream', () => {
    using folder = temporaryFolder()
    const { slots, intake, ended } = house()
    const file = join(folder.path, 'fifo')
    const writer = fifo(file)
    const slot = slots.claim(0)!
    writeSync(writer, 'before it is opened, ')
    intake.open(slot, folder.path, file, OPTIONS)
    writeSync(writer, 'after it, and left behind')
    closeSync(writer)
    intake.loop(() => {})
    expect(journalled(folder.path)).toBe('before it is opened, after it, and left behind')
    expect(slots.written(slot)).toBe(46)
    expect(slots.ended(slot)).toBe(true)
    expect(ended).toEqual([slot])
  })

  it('goes on in a segment of its own behind what an earlier driver journalled', () => {
    using folder = temporaryFolder()
    const { slots, intake } = house()
    const file = join(folder.path, 'fifo')
    const writer = fifo(file)
    writeFileSync(join(folder.path, '0000000000000000.segment'), 'earlier, ')
    // A driver that was killed between opening a segment and filling it.
    writeFileSync(join(folder.path, '0000000000000009.segment'), '')
    writeSync(writer, 'later')
    closeSync(writer)
    // Without a writer the FIFO's buffer is gone: hold it as dockerd does until intake has it.
    const held = openSync(file, constants.O_RDWR)
    writeSync(held, 'later')
    intake.open(slots.claim(9)!, folder.path, file, OPTIONS)
    closeSync(held)
    intake.loop(() => {})
    expect(journalled(folder.path)).toBe('earlier, later')
  })

  it('begins a new segment when one is full', () => {
    using folder = temporaryFolder()
    const { slots, intake } = house()
    const file = join(folder.path, 'fifo')
    const writer = fifo(file)
    writeSync(writer, 'a'.repeat(1500))
    intake.open(slots.claim(0)!, folder.path, file, OPTIONS)
    writeSync(writer, 'b')
    closeSync(writer)
    intake.loop(() => {})
    expect(readdirSync(folder.path)).toEqual(['0000000000000000.segment', '00000000000005dc.segment', 'fifo'])
    expect(journalled(folder.path)).toBe(`${'a'.repeat(1500)}b`)
  })

  it('a stream without a byte leaves no file', () => {
    using folder = temporaryFolder()
    const { slots, intake } = house()
    const file = join(folder.path, 'fifo')
    const writer = fifo(file)
    intake.open(slots.claim(0)!, folder.path, file, OPTIONS)
    closeSync(writer)
    intake.loop(() => {})
    expect(readdirSync(folder.path)).toEqual(['fifo'])
  })

  it('pipes together stay within their bytes: with many runs they are small, and none grows beyond that', () => {
    using folder = temporaryFolder()
    const { slots, intake } = house(400 * 1024)
    const files = Array.from({ length: 5 }, (_, i) => join(folder.path, `fifo-${i}`))
    const writers = files.map(fifo)
    for (const file of files) intake.open(slots.claim(0)!, folder.path, file, OPTIONS)
    expect(files.map(pipeBytes)).toEqual([65_536, 65_536, 65_536, 16_384, 16_384])
    for (const writer of writers) closeSync(writer)
  })

  it('a run that is held is left alone, and goes on where it was once it is not', () => {
    using folder = temporaryFolder()
    const { slots, intake, ended } = house()
    const file = join(folder.path, 'fifo')
    const writer = fifo(file)
    const slot = slots.claim(0)!
    slots.hold(slot, true)
    writeSync(writer, 'it waits')
    intake.open(slot, folder.path, file, OPTIONS)
    expect(slots.written(slot)).toBe(0)
    slots.hold(slot, false)
    closeSync(writer)
    intake.loop(() => {})
    expect(journalled(folder.path)).toBe('it waits')
    expect(ended).toEqual([slot])
  })

  it('a file that is missing or is no FIFO is refused, whatever it is', () => {
    using folder = temporaryFolder()
    const { slots, intake } = house()
    const plain = join(folder.path, 'plain')
    writeFileSync(plain, 'precious')
    for (const file of [plain, join(folder.path, 'missing'), folder.path]) {
      expect(() => intake.open(slots.claim(0)!, folder.path, file, OPTIONS)).toThrow(FifoError)
    }
    expect(readFileSync(plain, 'utf8')).toBe('precious')
  })
})
