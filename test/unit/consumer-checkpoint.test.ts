import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Checkpoint, type Delta, newFile, type State } from '../../consumer/checkpoint.ts'
import { Ledger } from '../../consumer/ledger.ts'
import { ChunkEncoder, decodeChunk } from '../../wire/chunk.ts'
import { chunkOf } from '../support/chunk.ts'
import { temporaryFolder } from '../support/folder.ts'

const run = (high: number): Delta['runs'][0] => [
  'ab'.repeat(16),
  {
    ...{
      partition: 3,
      service: 'shop',
      module: 'web',
      host: 'h1',
      container: 'web-1',
      first: 1000,
      last: 2000,
      ended: false,
    },
    sources: [
      {
        high,
        written: high,
        doubled: 1,
        holes: [{ from: 1, to: 2, reason: 'gap', day: '2026-11-23' }],
        closed: { disk: 3 },
      },
      { high: 0, written: 0, doubled: 0, holes: [], closed: {} },
    ],
  },
]

const totals = (written: number): Delta['totals'][0] => [
  'key',
  {
    ...{ service: 'shop', module: 'web', day: '2026-11-23', host: 'h1' },
    ...{ written, doubled: 1, lost: { gap: 2 }, last: 2000 },
  },
]

const delta = (n: number): Delta => ({
  partitions: [[3, { next: n, tenure: 1 }]],
  files: [['shop/web/2026-11-23.log', { ...newFile(3), length: 100 * n }]],
  runs: [run(n)],
  totals: [totals(n)],
  index: [['2026-11-23', n]],
})

/** So many files that a few entries of them fill the checkpoint's file. */
const WIDE: Delta['files'] = Array.from({ length: 10_000 }, (_, i) => [
  `service-${i}/${'m'.repeat(60)}/2026-11-23.log`,
  { ...newFile(1), length: i },
])

/** The next lines of a run's stdout. */
const numbered = (run: number, first: number, count: number) =>
  chunkOf({
    ...{ run: String(run).padStart(32, '0'), service: 's', module: `m${run}`, host: 'h', attrs: {}, first: [first, 1] },
    container: { id: 'c', name: 'n', image: 'i' },
    lines: Array.from({ length: count }, (_, i) => ({
      ...{ source: 'stdout' as const, number: first + i, time: String(1_795_422_281_000_000_000n + BigInt(first)) },
      text: 'line',
    })),
  })

/** What the file at `path` says to a consumer that starts. */
function reread(path: string): State {
  const checkpoint = new Checkpoint(path)
  checkpoint.close()
  return checkpoint.state
}

/** A checkpoint with two entries; the offset at which the second begins. */
function twoEntries(path: string): number {
  const checkpoint = new Checkpoint(path)
  checkpoint.append(delta(1))
  const { size } = statSync(path)
  checkpoint.append(delta(2))
  checkpoint.close()
  return size
}

describe('the checkpoint', () => {
  it('says after a restart what was appended, and nothing of what was forgotten', () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'checkpoint')
    const checkpoint = new Checkpoint(path)
    checkpoint.append(delta(1))
    checkpoint.append({
      partitions: [],
      files: [['old.log', newFile(1)]],
      runs: [['gone', run(9)[1]]],
    })
    checkpoint.append({ partitions: [], files: [['old.log', undefined]], runs: [['gone', undefined]] })
    checkpoint.append({ totals: [['old', totals(9)[1]]] })
    checkpoint.append({ totals: [['old', undefined]] })
    checkpoint.close()
    const { partitions, files, runs } = reread(path)
    expect([...partitions]).toEqual(delta(1).partitions)
    expect([...files]).toEqual(delta(1).files)
    expect([...runs]).toEqual(delta(1).runs)
    expect([...reread(path).totals]).toEqual(delta(1).totals)
  })

  it('torn at any byte of its last entry, it is the one before, and can be appended to', () => {
    using folder = temporaryFolder()
    const whole = join(folder.path, 'whole')
    const begin = twoEntries(whole)
    const bytes = readFileSync(whole)
    for (let length = begin; length < bytes.length; length++) {
      const path = join(folder.path, 'torn')
      writeFileSync(path, bytes.subarray(0, length))
      const checkpoint = new Checkpoint(path)
      expect([...checkpoint.state.partitions], `torn at ${length}`).toEqual(delta(1).partitions)
      checkpoint.append(delta(3))
      checkpoint.close()
      expect([...reread(path).files]).toEqual(delta(3).files)
    }
  })

  it('with any byte of its last entry changed, it is the one before', () => {
    using folder = temporaryFolder()
    const whole = join(folder.path, 'whole')
    const begin = twoEntries(whole)
    const bytes = readFileSync(whole)
    for (let at = begin; at < bytes.length; at++) {
      const path = join(folder.path, 'changed')
      const changed = Buffer.from(bytes)
      changed[at]! ^= 0x55
      writeFileSync(path, changed)
      expect([...reread(path).runs], `changed at ${at}`).toEqual(delta(1).runs)
    }
  })

  it('with zeros behind its end, as a loss of power leaves them, it is whole', () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'checkpoint')
    twoEntries(path)
    appendFileSync(path, Buffer.alloc(4096))
    expect([...reread(path).partitions]).toEqual(delta(2).partitions)
  })

  it.each([
    ['empty', '', /no checkpoint of tallyman/],
    ['of somebody else', 'PK\x03\x04 what is this', /no checkpoint of tallyman/],
    ['of a newer version', 'tallyman checkpoint 5\nwhatever', /another version of tallyman/],
  ])('that is %s is refused and left as it is', (_, content, message) => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'checkpoint')
    writeFileSync(path, content)
    expect(() => new Checkpoint(path)).toThrow(message)
    expect(readFileSync(path, 'utf8')).toBe(content)
  })

  it.each(['constructor', '__proto__', 'toString', 'disk'])(
    'is read again where senders give up absurd numbers for the reason %s, and then for another one',
    (reason) => {
      using folder = temporaryFolder()
      const path = join(folder.path, 'checkpoint')
      const ledger = new Ledger()
      const checkpoint = new Checkpoint(path)
      const names = { service: 's', module: 'm', host: 'h', container: { id: 'c', name: 'n', image: 'i' }, attrs: {} }
      const sources = ['stdout', 'stderr'] as const
      for (const of of [reason, 'another']) {
        for (const run of ['00', '01']) {
          const lost = sources.map((source) => ({ source, from: 1, count: Number.MAX_SAFE_INTEGER - 1, reason: of }))
          const chunk = chunkOf({ run: run.repeat(16), ...names, first: [1, 1], lines: [], lost })
          ledger.enter(decodeChunk(new ChunkEncoder().encode(chunk)), '2026-11-23', 0)
        }
        checkpoint.append(ledger.takeChanges())
      }
      checkpoint.close()
      const [found] = reread(path).totals.values()
      expect(found!.lost).toEqual(ledger.state.totals.values().next().value!.lost)
      expect(Object.values(found!.lost).every(Number.isSafeInteger)).toBe(true)
      expect(found!.lost['another']).toBe(Number.MAX_SAFE_INTEGER)
    },
  )

  it('that holds a sum which left the integers, as it could be written before, is read', () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'checkpoint')
    const checkpoint = new Checkpoint(path)
    const totals = {
      service: 's',
      module: 'm',
      day: '',
      host: 'h',
      written: 1,
      doubled: 0,
      lost: { disk: -2.7e16 },
      last: 1,
    }
    checkpoint.append({ totals: [['key', totals]] })
    checkpoint.close()
    expect(reread(path).totals.get('key')).toEqual({ ...totals, lost: { disk: Number.MIN_SAFE_INTEGER } })
  })

  it('says after a restart all that the ledger has counted, also where a new file takes its place meanwhile', () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'checkpoint')
    const checkpoint = new Checkpoint(path)
    const ledger = new Ledger()
    let largest = 0
    for (let round = 0; round < 12; round++) {
      for (let run = 0; run < 20; run++) {
        if (run % 3 === round % 3) continue
        // A gap now and then, and copies.
        const first = 10 * round + (run === 7 && round === 8 ? 5 : run === 9 ? 0 : 1)
        ledger.enter(numbered(run, Math.max(1, first), 10), '2026-11-23', 0)
        ledger.wrote(numbered(run, 1, 10), '2026-11-23', 10)
      }
      checkpoint.append({ ...ledger.takeChanges(), files: WIDE })
      largest = Math.max(largest, statSync(path).size)
    }
    expect(largest).toBeGreaterThan(statSync(path).size)
    checkpoint.close()
    const { runs, totals } = reread(path)
    expect({ runs, totals }).toEqual(ledger.state)
    expect({ runs: checkpoint.state.runs, totals: checkpoint.state.totals }).toEqual(ledger.state)
  })

  it('of the version before is read, and one of this version takes its place', () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'checkpoint')
    twoEntries(path)
    const bytes = readFileSync(path)
    bytes.write('tallyman checkpoint 3\n', 'latin1')
    writeFileSync(path, bytes)
    const checkpoint = new Checkpoint(path)
    expect([...checkpoint.state.runs]).toEqual(delta(2).runs)
    expect(readFileSync(path, 'latin1')).toMatch(/^tallyman checkpoint 4\n/)
    checkpoint.append(delta(3))
    checkpoint.close()
    expect([...reread(path).runs]).toEqual(delta(3).runs)
  })

  it('does not grow with the number of entries', () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'checkpoint')
    const checkpoint = new Checkpoint(path)
    let largest = 0
    for (let n = 1; n <= 30; n++) {
      checkpoint.append({ ...delta(n), files: WIDE })
      largest = Math.max(largest, statSync(path).size)
    }
    checkpoint.close()
    expect(largest).toBeLessThan(10 * 1024 * 1024)
    const { partitions, files } = reread(path)
    expect([...partitions]).toEqual(delta(30).partitions)
    expect(files.size).toBe(10_000)
  })
})
