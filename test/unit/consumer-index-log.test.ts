import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { encode } from '@msgpack/msgpack'
import { describe, expect, it } from 'vitest'
import { type Damage, damageOf, IndexLog, type Names, type Row, readIndex } from '../../consumer/index-log.ts'
import { temporaryFolder } from '../support/folder.ts'

const DAY = '2026-11-23'
const NAMES: Names = { service: 's', module: 'm', host: 'h', container: 'c', format: 'raw' }

/** A row of ten bytes, of one line of stdout or of stderr. */
const row = (position: number, source: 'stdout' | 'stderr', n: number, names = NAMES): Omit<Row, 'bytes' | 'crc'> => ({
  ...{ file: `s/m/${DAY}.log`, position, lines: 1, run: '01'.repeat(16), names, tmin: n, tmax: n },
  numbers:
    source === 'stdout'
      ? [
          [n, n],
          [0, 0],
        ]
      : [
          [0, 0],
          [n, n],
        ],
})

function rowsOf(rows: Omit<Row, 'bytes' | 'crc'>[]): Row[] {
  using folder = temporaryFolder()
  const index = new IndexLog(folder.path, new Map())
  for (const each of rows) index.add(DAY, each, Buffer.alloc(10, 'x'))
  const [[, length] = ['', 0]] = index.sync()
  return [...readIndex(folder.path, DAY, length)].flat()
}

describe('the index', () => {
  it('what follows a row of its run joins it', () => {
    expect(rowsOf([row(0, 'stdout', 1), row(10, 'stdout', 2)])).toMatchObject([
      {
        position: 0,
        bytes: 20,
        lines: 2,
        numbers: [
          [1, 2],
          [0, 0],
        ],
        tmin: 1,
        tmax: 2,
      },
    ])
  })

  it('a row spans ten seconds at most', () => {
    const rows = rowsOf([row(0, 'stdout', 1), row(10, 'stdout', 10_001), row(20, 'stdout', 10_002)])
    expect(rows.map(({ tmin, tmax }) => [tmin, tmax])).toEqual([
      [1, 10_001],
      [10_002, 10_002],
    ])
  })

  it('raw: stdout and stderr never share a row', () => {
    const rows = rowsOf([row(0, 'stdout', 1), row(10, 'stderr', 1), row(20, 'stderr', 2), row(30, 'stdout', 2)])
    expect(rows.map(({ position, lines, numbers }) => [position, lines, ...numbers])).toEqual([
      [0, 1, [1, 1], [0, 0]],
      [10, 2, [0, 0], [1, 2]],
      [30, 1, [2, 2], [0, 0]],
    ])
  })

  it('text: they do, for a line says itself of which it is', () => {
    const names: Names = { ...NAMES, format: 'text' }
    expect(rowsOf([row(0, 'stdout', 1, names), row(10, 'stderr', 1, names)])).toMatchObject([{ lines: 2 }])
  })

  it('read from any block on, and over restarts, rows have the names that they were given', () => {
    using folder = temporaryFolder()
    const lengths = new Map<string, number>()
    const places = [0]
    const all: Row[] = []
    let index = new IndexLog(folder.path, lengths)
    for (let i = 0; i < 60; i++) {
      // A new container now and then: named in the block that it first stands in.
      const names: Names = { ...NAMES, format: 'text', container: `c${Math.floor(i / 7)}`, host: `h${i % 3}` }
      index.add(DAY, { ...row(i * 10, 'stdout', i + 1, names), run: String(i % 3).padStart(32, '0') }, Buffer.alloc(10))
      for (const [day, length] of index.sync()) {
        lengths.set(day, length)
        places.push(length)
      }
      if (i % 25 === 24) index = new IndexLog(folder.path, lengths)
      all.push(...readIndex(folder.path, DAY, places.at(-1)!, places.at(-2)!).toArray().flat())
    }
    expect(all.map(({ position, names }) => [position, names!.container, names!.host])).toEqual(
      Array.from({ length: 60 }, (_, i) => [i * 10, `c${Math.floor(i / 7)}`, `h${i % 3}`]),
    )
    const length = places.at(-1)!
    for (const [i, place] of places.entries())
      expect(readIndex(folder.path, DAY, length, place).toArray().flat()).toEqual(all.slice(i))
  })

  it('a damaged block costs its own rows: names that come behind it are right', () => {
    using folder = temporaryFolder()
    const index = new IndexLog(folder.path, new Map())
    const places = [0]
    for (let i = 0; i < 5; i++) {
      index.add(DAY, row(i * 10, 'stdout', i + 1, { ...NAMES, container: `c${i}` }), Buffer.alloc(10))
      places.push(...index.sync().map(([, length]) => length))
    }
    const path = join(folder.path, 'index', DAY)
    const bytes = readFileSync(path)
    const length = places.at(-1)!
    // Its payload, and its length, by which the next one would be found.
    for (const at of [places[2]! + 20, places[2]!]) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 0x40
      writeFileSync(path, changed)
      const damage: Damage[] = []
      const rows = readIndex(folder.path, DAY, length, 0, (each) => damage.push(each))
        .toArray()
        .flat()
      expect(rows.map(({ position, names }) => [position, names!.container])).toEqual([
        [0, 'c0'],
        [10, 'c1'],
        [30, 'c3'],
        [40, 'c4'],
      ])
      expect(damage).toEqual([{ from: places[2], to: places[3] }])
      expect(() => readIndex(folder.path, DAY, length).toArray()).toThrow(`is damaged from byte ${places[2]} on`)
      expect([...damageOf(folder.path, DAY, length)].filter(Boolean)).toEqual(damage)
    }
  })

  it('blocks that were written before rows said their names are read as they are', () => {
    using folder = temporaryFolder()
    mkdirSync(join(folder.path, 'index'))
    const run = '0a'.repeat(16)
    const rows = [
      [0, 0, 100, 2, 0, [1, 2], [0, 0], 1000, 1001, 7],
      [0, 100, 50, 1, 1, [0, 0], [1, 1], 1002, 1002, 8],
    ]
    const named = [run, 's', 'm', 'h', 'c', 'jsonl']
    const payload = encode({ files: [`s/m/${DAY}.log`], runs: [run, named], rows })
    const header = Buffer.alloc(8)
    header.writeUInt32LE(payload.length, 0)
    header.writeUInt32LE(crc32(payload), 4)
    writeFileSync(join(folder.path, 'index', DAY), Buffer.concat([header, payload]))
    expect(
      readIndex(folder.path, DAY, 8 + payload.length)
        .toArray()
        .flat(),
    ).toEqual([
      expect.objectContaining({ position: 0, bytes: 100, run, tmin: 1000, tmax: 1001, crc: 7 }),
      expect.objectContaining({
        position: 100,
        run,
        names: { ...NAMES, format: 'jsonl' },
        numbers: [
          [0, 0],
          [1, 1],
        ],
      }),
    ])
  })
})
