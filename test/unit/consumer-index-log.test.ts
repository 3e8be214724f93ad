import { describe, expect, it } from 'vitest'
import { IndexLog, type Names, type Row, readIndex } from '../../consumer/index-log.ts'
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
})
