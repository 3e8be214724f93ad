/**
 * What a driver finds on the disk when it starts, damaged in every way that a disk, an operator or another version can: it starts, says
 * what is wrong, and reads each container's pipe. The driver is a real process, dockerd's part is played by the test.
 */
import { closeSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { basename, join } from 'node:path'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { startOfRun, writeCheckpoint } from '../../driver/checkpoint.ts'
import { Driver } from '../../driver/driver.ts'
import { holdFifos } from '../../driver/fifos.ts'
import { reserveDropped, runFolder, runsFolder, segmentPath, writeDropped, writeGap } from '../../driver/journal.ts'
import { readLeftRun } from '../../driver/left-run.ts'
import { createRun } from '../../driver/run.ts'
import { settingsSchema } from '../../driver/settings.ts'
import { readSettings } from '../../wire/settings.ts'
import { DriverProcess, type LogRow, NO_KAFKA, Pipe } from '../support/driver-process.ts'
import { startRequest } from '../support/fed-run.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame } from '../support/log-entry.ts'
import { runOptions } from '../support/run.ts'
import { PAGE, smallDisk } from '../support/small-disk.ts'
import { until } from '../support/until.ts'

const line = (text: string) => frame({ source: 'stdout', time: 1_000n, line: Buffer.from(text) })

/** More than a pipe holds, whatever its size. */
const MUCH = Buffer.concat(Array.from({ length: 6_000 }, (_, i) => line(`${i}`.padEnd(100))))

const description = {
  file: '/f',
  service: 'shop',
  module: 'api',
  host: 'h1',
  container: { id: 'c1', name: 'api-1', image: 'api:1' },
  attrs: {},
  started: 0,
  options: runOptions(),
}

/** All that the journals hold, by service. */
function journalled(journal: string): Map<string, number> {
  const bytes = new Map<string, number>()
  for (const run of readdirSync(runsFolder(journal))) {
    const folder = runFolder(journal, run)
    const { service } = JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8'))
    for (const name of readdirSync(folder).filter((name) => name.endsWith('.segment')))
      bytes.set(service, (bytes.get(service) ?? 0) + readFileSync(join(folder, name)).length)
  }
  return bytes
}

function writes(fd: number, bytes: Uint8Array): boolean {
  try {
    return writeSync(fd, bytes) === bytes.length
  } catch {
    return false
  }
}

/** Takes all the room that a disk has. */
function fill(file: string): void {
  const fd = openSync(file, 'w')
  while (writes(fd, Buffer.alloc(PAGE)));
  closeSync(fd)
}

describe('a run that an earlier driver left', () => {
  const started = (journal: string) => createRun(journal, description)
  const state = (offset: number, next: [number, number]) => ({
    ...startOfRun(),
    offset,
    partition: 3,
    lines: { next, pending: startOfRun().lines.pending },
  })

  it('goes on with its numbers where all of its segments were given up', () => {
    using journal = temporaryFolder()
    const { run } = started(journal.path)
    writeCheckpoint(runFolder(journal.path, run), state(5000, [51, 1]), true)
    const left = readLeftRun(journal.path, run)
    expect(left).toMatchObject({ end: 5000, record: { run }, checkpoint: { offset: 5000, lines: { next: [51, 1] } } })
    expect(left.doubt).toBeUndefined()
  })

  it('goes on behind what was dropped since, noted or not', () => {
    for (const note of [writeGap, writeDropped]) {
      using journal = temporaryFolder()
      const { run } = started(journal.path)
      const folder = runFolder(journal.path, run)
      reserveDropped(folder)
      writeCheckpoint(folder, state(5000, [51, 1]), true)
      note(folder, { offset: 5000, lines: [7, 0] })
      expect(readLeftRun(journal.path, run)).toMatchObject({ end: 5000, record: { run }, checkpoint: { offset: 5000 } })
    }
  })

  it('goes on from its checkpoint where the end of its journal is gone, and that is said', () => {
    using journal = temporaryFolder()
    const { run } = started(journal.path)
    const folder = runFolder(journal.path, run)
    writeFileSync(segmentPath(folder, 0), Buffer.alloc(1000))
    writeCheckpoint(folder, state(5000, [51, 1]), true)
    const left = readLeftRun(journal.path, run)
    expect(left).toMatchObject({ end: 5000, record: { run }, checkpoint: { lines: { next: [51, 1] } } })
    expect(left.doubt?.wrong).toMatch(/1000.*5000/)
  })

  it.each([
    ['is missing and the first segment too', undefined, 4000],
    ['is unreadable, and nothing of the journal is left', Buffer.from('garbage'), undefined],
    ['stands before the first segment', state(100, [2, 1]), 4000],
  ])('gets another id where the checkpoint %s', (_, checkpoint, base) => {
    using journal = temporaryFolder()
    const { run } = started(journal.path)
    const folder = runFolder(journal.path, run)
    if (Buffer.isBuffer(checkpoint)) writeFileSync(join(folder, 'checkpoint'), checkpoint)
    else if (checkpoint) writeCheckpoint(folder, checkpoint, true)
    if (base !== undefined) writeFileSync(segmentPath(folder, base), Buffer.alloc(1000))
    const left = readLeftRun(journal.path, run)
    expect(left.record.run).not.toBe(run)
    expect(left).toMatchObject({
      end: base === undefined ? 0 : base + 1000,
      checkpoint: { offset: base ?? 0, lines: { next: [1, 1] } },
      doubt: { renamed: run },
    })
  })
})

describe('a container whose run.json', () => {
  it.each([
    ['is cut off', (text: string) => text.slice(0, 40), 'unknown'],
    ['is empty', () => '', 'unknown'],
    ['is null', () => 'null', 'unknown'],
    ['is of a newer version', (text: string) => text.replace('"v":1', '"v":2'), 'shop'],
    ['has an option that is not known', (text: string) => text.replace('"chunk"', '"avro"'), 'shop'],
    ['is missing', () => undefined, 'unknown'],
  ])('%s is read on by the next driver, never blocks, and what was is set aside', async (_, damage, service) => {
    using folder = temporaryFolder()
    const first = await DriverProcess.start(folder.path)
    const pipe = new Pipe(folder.path, 'f1f0'.repeat(16))
    expect(await first.post('LogDriver.StartLogging', JSON.parse(startRequest(pipe.file, { service: 'shop' })))).toBe(
      '',
    )
    await pipe.feed(line('before'))
    await until('it is journalled', () => journalled(folder.path).get('shop') === line('before').length, 10)
    await first.kill()

    const [run] = readdirSync(runsFolder(folder.path))
    const runJson = join(runFolder(folder.path, run!), 'run.json')
    const damaged = damage(readFileSync(runJson, 'utf8'))
    if (damaged === undefined) rmSync(runJson)
    else writeFileSync(runJson, damaged)
    await using second = await DriverProcess.start(folder.path)
    await pipe.feed(MUCH)
    await until('it is journalled', () => journalled(folder.path).get(service) === MUCH.length, 10)
    expect(readdirSync(join(folder.path, 'set-aside'))).toHaveLength(1)
    await until('both are said', () => second.log.filter(({ code }) => code === 'JOURNAL_FOREIGN').length === 2)
    pipe.close()
  })
})

describe('files of a run', () => {
  const checkpoint = {
    ...startOfRun(),
    offset: line('before').length,
    partition: 3,
    lines: { next: [2, 1] as [number, number], pending: startOfRun().lines.pending },
  }
  /** Each file that a run may have beside its segments. */
  const write: Record<string, (folder: string) => void> = {
    'run.json': () => {},
    checkpoint: (folder) => writeCheckpoint(folder, checkpoint, false),
    [`${checkpoint.offset.toString(16).padStart(16, '0')}.gap`]: (folder) =>
      writeGap(folder, { offset: checkpoint.offset, lines: [3, 1] }),
    [`${checkpoint.offset.toString(16).padStart(16, '0')}.hole`]: (folder) =>
      writeFileSync(join(folder, `${checkpoint.offset.toString(16).padStart(16, '0')}.hole`), '{"until":30}'),
    dropped: (folder) => writeDropped(folder, { offset: checkpoint.offset, lines: [3, 1] }),
  }

  it('damaged at any byte, or cut off anywhere, keep no driver from starting and no pipe from being read', async () => {
    using folder = temporaryFolder()
    const cases: { name: string; damage: (bytes: Buffer) => Buffer }[] = []
    const sample = createRun(folder.path, { ...description, file: join(folder.path, 'f-0000') })
    for (const [name, writes] of Object.entries(write)) {
      writes(runFolder(folder.path, sample.run))
      const { length } = readFileSync(join(runFolder(folder.path, sample.run), name))
      for (let at = 0; at < length; at++) {
        cases.push({ name, damage: (bytes) => bytes.subarray(0, at) })
        cases.push({ name, damage: (bytes) => Buffer.from(bytes.map((byte, i) => (i === at ? byte ^ 0xff : byte))) })
      }
    }
    rmSync(runFolder(folder.path, sample.run), { recursive: true })
    const files = cases.map((_, i) => join(folder.path, `f-${`${i}`.padStart(4, '0')}`))
    Pipe.make(files)
    for (const [i, { name, damage }] of cases.entries()) {
      const { run } = createRun(folder.path, { ...description, file: files[i]! })
      const of = runFolder(folder.path, run)
      writeFileSync(segmentPath(of, 0), line('before'))
      write[name]!(of)
      writeFileSync(join(of, name), damage(readFileSync(join(of, name))))
    }
    const pipes = files.map((file) => new Pipe(folder.path, basename(file)))
    await using driver = await DriverProcess.start(folder.path)
    pipes.map((pipe, i) => pipe.write(line(`after ${i}.`)))
    const missing = () => {
      const all = readdirSync(runsFolder(folder.path)).flatMap((run) =>
        readdirSync(runFolder(folder.path, run))
          .filter((file) => file.endsWith('.segment'))
          .map((file) => readFileSync(join(runFolder(folder.path, run), file), 'latin1')),
      )
      const text = all.join('')
      return cases.flatMap(({ name }, i) => (text.includes(`after ${i}.`) ? [] : [`${name} ${i}`]))
    }
    await until(
      () => `each pipe is read: ${missing()}`,
      () => missing().length === 0,
      30,
    )
    // Each that is not understood is said, and its FIFO, which is then one that nobody knows, as is that of a run.json that names another.
    const said = (what: RegExp) => driver.log.filter(({ msg }) => what.test(msg)).length
    const setAside = said(/was set aside/)
    expect(setAside).toBeGreaterThan(100)
    expect(said(/a FIFO is there whose run is not known/)).toBeGreaterThanOrEqual(setAside)
    expect(said(/the journal of a run holds is sent again/)).toBeGreaterThan(10)
    expect(driver.log.filter(({ level }) => level > 50)).toEqual([])
    for (const pipe of pipes) pipe.close()
  }, 120_000)
})

describe('the driver starts', () => {
  it('where a file with a password is gone since, and says that Kafka is away; the first time it refuses to', async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, 'password')
    const security = {
      KAFKA_SASL_MECHANISM: 'plain',
      KAFKA_SASL_USERNAME: 'us',
      KAFKA_SASL_PASSWORD_FILE: file,
    }
    await expect(DriverProcess.start(folder.path, security)).rejects.toThrow(/KAFKA_SASL_PASSWORD_FILE.*can't be read/)
    createRun(folder.path, description)
    await using driver = await DriverProcess.start(folder.path, security)
    await until('that is said', () =>
      driver.log.some(({ code, error }) => code === 'KAFKA_AWAY' && /password/.test(`${error}`)),
    )
  })

  it.each([['runs is a file', (journal: string) => writeFileSync(runsFolder(journal), 'no folder')]])(
    'where %s, and says so',
    async (_, damage) => {
      using folder = temporaryFolder()
      damage(folder.path)
      await using driver = await DriverProcess.start(folder.path)
      const pipe = new Pipe(folder.path, 'fifo')
      expect(
        await driver.post('LogDriver.StartLogging', JSON.parse(startRequest(pipe.file, { service: 'shop' }))),
      ).toBe('')
      await pipe.feed(MUCH)
      await until('it is journalled', () => journalled(folder.path).get('shop') === MUCH.length, 10)
      expect(driver.log.filter(({ code }) => code === 'JOURNAL_FOREIGN')).toHaveLength(1)
      pipe.close()
    },
  )

  it.runIf(process.getuid?.() === 0)(
    'on a disk that is full: containers are refused in words and leave nothing, until there is room',
    async () => {
      using disk = smallDisk(256)
      using elsewhere = temporaryFolder()
      const filler = join(disk.path, 'filler')
      fill(filler)
      await using driver = await DriverProcess.start(disk.path)
      const pipe = new Pipe(elsewhere.path, 'fifo')
      const request = JSON.parse(startRequest(pipe.file, { service: 'shop' }))
      expect(await driver.post('LogDriver.StartLogging', request)).toMatch(/can't write its journal.*ENOSPC/)
      expect(readdirSync(runsFolder(disk.path))).toEqual([])
      rmSync(filler)
      const other = new Pipe(elsewhere.path, 'other')
      expect(await driver.post('LogDriver.StartLogging', { ...request, File: other.file })).toBe('')
      await other.feed(line('after'))
      await until('it is journalled', () => journalled(disk.path).get('shop') === line('after').length, 10)
      for (const each of [pipe, other]) each.close()
    },
  )

  it.runIf(process.getuid?.() === 0)(
    'on a disk that is full where a FIFO is there whose run is not known: it is read, and its run is one once there is room',
    async () => {
      using disk = smallDisk(256)
      const pipe = new Pipe(disk.path, 'fifo')
      const filler = join(disk.path, 'filler')
      fill(filler)
      const first = await DriverProcess.start(disk.path)
      await pipe.feed(MUCH)
      await until('that is said', () => first.log.some(({ msg }) => /takes nothing for a container/.test(msg)))
      expect(readdirSync(runsFolder(disk.path))).toEqual([])
      rmSync(filler)
      await until('there is a run', () => readdirSync(runsFolder(disk.path)).length === 1, 10)
      await pipe.feed(line('after'))
      await until('it is journalled', () => journalled(disk.path).get('unknown')! >= line('after').length, 10)
      await first.kill()
      await using second = await DriverProcess.start(disk.path)
      await pipe.feed(line('later'))
      await until('it is journalled', () => journalled(disk.path).get('unknown')! >= 2 * line('after').length, 10)
      expect(readdirSync(runsFolder(disk.path))).toHaveLength(1)
      expect(second.log.filter(({ code }) => code === 'JOURNAL_FOREIGN')).toEqual([])
      pipe.close()
    },
  )

  it.runIf(process.getuid?.() === 0)(
    'one run for a FIFO whose start is asked for again while it waits for room on the disk',
    async () => {
      using disk = smallDisk(256)
      using elsewhere = temporaryFolder()
      await using driver = await DriverProcess.start(disk.path)
      const filler = join(disk.path, 'filler')
      fill(filler)
      const pipe = new Pipe(elsewhere.path, 'fifo')
      const request = JSON.parse(startRequest(pipe.file, { service: 'shop' }))
      const asked = [1, 2].map(() => driver.post('LogDriver.StartLogging', request))
      setTimeout(() => rmSync(filler), 200)
      expect(await Promise.all(asked)).toEqual(['', ''])
      expect(readdirSync(runsFolder(disk.path))).toHaveLength(1)
      await pipe.feed(line('after'))
      await until('it is journalled', () => journalled(disk.path).get('shop') === line('after').length, 10)
      pipe.close()
    },
  )

  it('where there are more runs than it takes at once: each FIFO is read, and those that are over wait', async () => {
    using folder = temporaryFolder()
    const over = Array.from({ length: 4 }, (_, i) =>
      createRun(folder.path, { ...description, file: join(folder.path, `gone-${i}`) }),
    )
    for (const { run } of over) writeFileSync(segmentPath(runFolder(folder.path, run), 0), line('over'))
    const [known, unknown] = ['known', 'unknown'].map((name) => new Pipe(folder.path, name)) as [Pipe, Pipe]
    createRun(folder.path, { ...description, file: known.file })
    const rows: LogRow[] = []
    const settings = readSettings(settingsSchema, { KAFKA_BROKERS: NO_KAFKA, METRICS_ADDR: 'off' }, [], 'now')
    const log = pino({}, { write: (row: string) => void rows.push(JSON.parse(row)) })
    const driver = new Driver({ journal: folder.path, host: 'h1', settings, log, slots: 3 })
    try {
      await driver.recover(holdFifos(folder.path))
      for (const pipe of [known, unknown]) await pipe.feed(MUCH)
      expect(rows.find(({ code }) => code === 'RUNS_EXHAUSTED')).toMatchObject({ runs: 3 })
    } finally {
      await driver.stop()
    }
    for (const pipe of [known, unknown]) pipe.close()
  })

  it('where a FIFO is there that dockerd has just made: its StartLogging gives it its names', async () => {
    using folder = temporaryFolder()
    const pipe = new Pipe(folder.path, 'fifo')
    await using driver = await DriverProcess.start(folder.path)
    expect(await driver.post('LogDriver.StartLogging', JSON.parse(startRequest(pipe.file, { service: 'shop' })))).toBe(
      '',
    )
    await pipe.feed(MUCH)
    await until('it is journalled', () => journalled(folder.path).get('shop') === MUCH.length, 10)
    expect(readdirSync(runsFolder(folder.path))).toHaveLength(1)
    pipe.close()
  })
})
