import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { linesQuery, tailQuery } from '../../consumer/api-schema.ts'
import { FileLines } from '../../consumer/context.ts'
import type { Events } from '../../consumer/event-stream.ts'
import { FileReader } from '../../consumer/file-reader.ts'
import { type Names, readIndex } from '../../consumer/index-log.ts'
import type { LineFormat } from '../../consumer/layout.ts'
import { readLines } from '../../consumer/lines.ts'
import { parseLines } from '../../consumer/stored-line.ts'
import { readTail } from '../../consumer/tail.ts'
import { filesOf, NOON, type Said, topicOf } from '../support/landing.ts'
import { type LineEvent, linesOf, Reading } from '../support/reading.ts'

const HOUR_MS = 3_600_000

type Printed = { module: string; run: number; source: 'stdout' | 'stderr'; ms: number; text: string }

/** Records of runs, each of one host and module; lines of a record are in any order of time. */
const printed = fc.record({
  run: fc.integer({ min: 1, max: 4 }),
  lines: fc.array(
    fc.record({
      source: fc.constantFrom('stdout' as const, 'stderr' as const),
      ms: fc.oneof(fc.nat({ max: 20 }), fc.nat({ max: 14 * HOUR_MS })).map((ms) => NOON + ms),
      text: fc.oneof(fc.string(), fc.constantFrom('an error', 'INFO all is well', '', 'ünï\u2028cödé "quoted"\\')),
    }),
    { minLength: 1, maxLength: 12 },
  ),
})

/** An end of a range, after noon: often the very moment of a line. */
const edge = fc.option(fc.oneof(fc.nat({ max: 21 }), fc.nat({ max: 15 * HOUR_MS })), { nil: undefined })

const MODULES = ['web', 'web', 'db', 'cache']

function saidOf(records: { run: number; lines: Omit<Printed, 'module' | 'run'>[] }[]): {
  said: Said[]
  all: Printed[]
} {
  const next = new Map<number, number>()
  const all: Printed[] = []
  const said = records.map(({ run, lines }): Said => {
    const clean = lines.map((line) => ({ ...line, text: line.text.replaceAll('\n', '').toWellFormed() }))
    const first = next.get(run) ?? 1
    next.set(run, first + clean.length)
    const module = MODULES[run - 1]!
    all.push(...clean.map((line) => ({ ...line, module, run })))
    return { partition: run % 2, module, run, first, count: clean.length, host: `h${run % 2}`, printed: clean }
  })
  return { said, all }
}

const shown = ({ time, module, container, source, line }: LineEvent) =>
  `${Date.parse(time)} ${module} ${container} ${source} ${line}`
const expected = ({ ms, module, run, source, text }: Printed) => `${ms} ${module} c${run} ${source} ${text}`

describe('lines', () => {
  it.each(['text', 'jsonl'] as LineFormat[])(
    'are those of all files, sorted by time, in %s',
    { timeout: 120_000 },
    async (format) => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(printed, { minLength: 1, maxLength: 12 }),
          fc.record({
            since: edge,
            until: edge,
            limit: fc.integer({ min: 1, max: 40 }),
            last: fc.boolean(),
            source: fc.constantFrom(undefined, 'stdout', 'stderr'),
            host: fc.constantFrom(undefined, 'h0', 'h*'),
            target: fc.constantFrom(undefined, 's/web', '*/d*', 'c4', 's'),
            include: fc.constantFrom(undefined, 'err?or', '^INFO'),
            exclude: fc.constantFrom(undefined, 'all'),
          }),
          fc.nat(),
          fc.boolean(),
          async (records, { since, until, ...query }, saved, small) => {
            await using reading = await Reading.create({ format, ...(small && { indexCache: 1 }) })
            const { said, all } = saidOf(records)
            // What is behind the last checkpoint is in no log of the index yet.
            await reading.land(said)
            void saved
            const at = (ms: number | undefined) => (ms === undefined ? undefined : new Date(NOON + ms).toISOString())
            const events = await reading.events('lines', { ...query, since: at(since), until: at(until) })
            const named: Record<string, (line: Printed) => boolean> = {
              's/web': ({ module }) => module === 'web',
              '*/d*': ({ module }) => module === 'db',
              c4: ({ run }) => run === 4,
              s: () => true,
            }
            const wanted = all
              .filter(({ ms }) => ms >= NOON + (since ?? 0) && ms < NOON + (until ?? Number.POSITIVE_INFINITY))
              .filter(({ source }) => query.source === undefined || source === query.source)
              .filter(({ run }) => query.host !== 'h0' || run % 2 === 0)
              .filter((line) => query.target === undefined || named[query.target]!(line))
              .filter(({ text }) => query.include === undefined || new RegExp(query.include).test(text))
              .filter(({ text }) => query.exclude === undefined || !new RegExp(query.exclude).test(text))
              .sort((a, b) => a.ms - b.ms)
            const lines = linesOf(events)
            expect(events.at(-1)).toEqual({
              ...{ type: 'end', lines: Math.min(wanted.length, query.limit), limited: wanted.length > query.limit },
              partial: [],
            })
            const sorted = lines.toSorted(
              (a, b) =>
                Date.parse(a.time) - Date.parse(b.time) ||
                (a.file < b.file ? -1 : a.file > b.file ? 1 : a.position - b.position),
            )
            expect(lines).toEqual(sorted)
            expect(new Set(lines.map(({ at }) => at)).size).toBe(lines.length)
            // Lines of the same moment stand in the order of files, which the oracle does not know.
            const times = (some: Printed[]) => some.map(({ ms }) => ms)
            const cut = query.last ? wanted.slice(-query.limit) : wanted.slice(0, query.limit)
            expect(lines.map(({ time }) => Date.parse(time))).toEqual(times(cut))
            if (wanted.length <= query.limit) expect(lines.map(shown).sort()).toEqual(wanted.map(expected).sort())
            else for (const line of lines) expect(wanted.map(expected)).toContain(shown(line))
          },
        ),
        { numRuns: 40 },
      )
    },
  )
})

it('raw: lines have the times of their rows, and ranges, limits and sources go by those', {
  timeout: 120_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(printed, fc.boolean()), { minLength: 1, maxLength: 12 }),
      fc.record({
        since: edge,
        until: edge,
        limit: fc.integer({ min: 1, max: 40 }),
        last: fc.boolean(),
        source: fc.constantFrom(undefined, 'stdout', 'stderr'),
        target: fc.constantFrom(undefined, 's/web', 'c4'),
        include: fc.constantFrom(undefined, 'err?or'),
      }),
      fc.boolean(),
      async (records, { since, until, ...query }, small) => {
        await using reading = await Reading.create({ format: 'raw', ...(small && { indexCache: 1 }) })
        const { said } = saidOf(records.map(([record]) => record))
        for (const [i, stored] of topicOf(said).entries()) {
          await reading.life.land(stored)
          if (records[i]![1]) reading.life.save()
        }
        reading.life.writer.flush()
        const at = (ms: number | undefined) => (ms === undefined ? undefined : NOON + ms)
        const [from, to] = [at(since), at(until)]
        const wanted = rawLines(reading)
          .filter(({ ms }) => ms >= (from ?? 0) && ms < (to ?? Number.POSITIVE_INFINITY))
          .filter(({ stderr }) => query.source === undefined || stderr === (query.source === 'stderr'))
          .filter(({ names }) => query.target !== 's/web' || names.module === 'web')
          .filter(({ names }) => query.target !== 'c4' || names.container === 'c4')
          .filter(({ text }) => query.include === undefined || new RegExp(query.include).test(text))
          .sort((a, b) => a.ms - b.ms || (a.file < b.file ? -1 : a.file > b.file ? 1 : a.position - b.position))
        const cut = query.last ? wanted.slice(-query.limit) : wanted.slice(0, query.limit)
        const iso = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString())
        const events = await reading.events('lines', { ...query, since: iso(from), until: iso(to) })
        expect(
          linesOf(events).map(({ at, time, source, host, container, line }) => [
            at,
            Date.parse(time),
            source,
            host,
            container,
            line,
          ]),
        ).toEqual(
          cut.map(({ file, position, ms, stderr, names, text }) => [
            ...[`${file}:${position}`, ms, stderr ? 'stderr' : 'stdout', names.host, names.container, text],
          ]),
        )
        expect(events.at(-1)).toMatchObject({
          type: 'end',
          lines: cut.length,
          limited: wanted.length > query.limit,
          partial: [],
        })
      },
    ),
    { numRuns: 60 },
  )
})

/** Every line of a root in the `raw` format: its files cut at newlines, each with what the row says that its first byte lies in. */
function rawLines({ root, life }: Reading) {
  const written = [...life.index.lengths].flatMap(([day, length]) =>
    readIndex(join(root, '.tallyman'), day, length).toArray().flat(),
  )
  const rows = [...written, ...[...life.index.pending.values()].flat()]
  return Object.entries(filesOf(root)).flatMap(([file]) => {
    const bytes = readFileSync(join(root, file))
    const lines: { file: string; position: number; ms: number; stderr: boolean; names: Names; text: string }[] = []
    for (let position = 0; position < bytes.length; ) {
      const end = bytes.indexOf(10, position)
      const row = rows.find(
        (row) => row.file === file && position >= row.position && position < row.position + row.bytes,
      )!
      const text = bytes.toString('utf8', position, end)
      lines.push({ file, position, ms: row.tmin, stderr: row.numbers[0][0] === 0, names: row.names!, text })
      position = end + 1
    }
    return lines
  })
}

const names = { service: 's', module: 'm', host: 'h', container: 'c' }
const stretch = { file: 's/m/2026-11-23.log', position: 0, lines: 1, stderr: 0, tmin: NOON, tmax: NOON }

it.each([
  'null',
  '3',
  '[]',
  '{"line":"x"}',
  '{"time":"2026-11-23T12:00:00Z"}',
  '{"time":{"toString":1,"valueOf":1},"line":"x"}',
  '{"time":"2026-11-23T12:00:00Z","line":{"toString":1,"valueOf":1}}',
])('%s in a jsonl file, which nothing here wrote, is shown as it is', (text) => {
  const bytes = Buffer.from(`${text}\n`)
  const lines = parseLines({ ...stretch, bytes: bytes.length, names: { ...names, format: 'jsonl' } }, bytes)
  expect(lines).toMatchObject([{ text, time: NOON }])
})

it('neighbours are found over stretches of more lines than a call may have arguments', async () => {
  const many = Buffer.alloc(200_000, '\n')
  const text = { readRange: async () => many } as Pick<FileReader, 'readRange'> as FileReader
  const parts = [0, 1, 2].map((i) => ({
    ...{ ...stretch, position: i * many.length, bytes: many.length, lines: many.length },
    names: { ...names, format: 'raw' as const },
  }))
  const around = await new FileLines(text, parts).around(many.length, 2, many.length + 1)
  expect(around?.lines.map(({ position }) => position)).toHaveLength(many.length + 4)
  expect(around?.lines[0]?.position).toBe(many.length - 2)
  expect(around?.untold).toBe(0)
  const torn = await new FileLines(text, parts.toSpliced(1, 1)).around(2 * many.length, many.length + 2, 0)
  expect(torn?.lines.map(({ position }) => position)).toContain(many.length - 1)
  expect(torn?.untold).toBe(many.length)
})

describe('once the client has left', () => {
  const may = () => true
  const access = { name: 'somebody', services: ['*'], may }
  const nowhere = { include: 'in no line' }
  const streams: Record<string, (reading: Reading, signal: AbortSignal) => Events> = {
    lines: ({ history }, signal) => readLines(history, linesQuery.parse(nowhere), { may, signal }),
    'the last lines': ({ history }, signal) =>
      readLines(history, linesQuery.parse({ ...nowhere, last: 'true' }), { may, signal }),
    'a tail with history': ({ history, hub }, signal) =>
      readTail(history, hub, tailQuery.parse({ ...nowhere, last: 10 }), {
        access,
        wire: { format: 'ndjson', packing: undefined },
        signal,
      }),
    'a tail from a cursor on': ({ history, hub }, signal) =>
      readTail(history, hub, tailQuery.parse({ ...nowhere, cursor: '' }), {
        access,
        wire: { format: 'ndjson', packing: undefined },
        signal,
      }),
  }

  it.each(Object.keys(streams))('%s: no further file is read', async (stream) => {
    await using reading = await Reading.create()
    await reading.land(
      Array.from({ length: 8 }, (_, i) => ({
        ...{ partition: 0, module: `m${i}`, run: i + 1, first: 1, count: 10, ms: NOON + i },
      })),
    )
    const gone = new AbortController()
    const { text } = reading.history
    const read = vi.spyOn(text, 'readRange').mockImplementation(async (file, position, bytes) => {
      gone.abort()
      return FileReader.prototype.readRange.call(text, file, position, bytes)
    })
    for await (const _ of streams[stream]!(reading, gone.signal));
    expect(read).toHaveBeenCalledTimes(1)
    expect(reading.hub.readers).toBe(0)
  })
})
