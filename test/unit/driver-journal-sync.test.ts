import { appendFileSync } from 'node:fs'
import { basename } from 'node:path'
import { expect, it } from 'vitest'
import { startOfRun } from '../../driver/checkpoint.ts'
import { JournalReader, segmentPath } from '../../driver/journal.ts'
import { JournalSync, type Waiting } from '../../driver/journal-sync.ts'
import { temporaryFolder } from '../support/folder.ts'

/** A shipment with segments of 100 bytes. */
function shipment(folder: string, written: number, acked: number, behindSince: number): Waiting {
  for (let base = 0; base < written; base += 100) appendFileSync(segmentPath(folder, base), Buffer.alloc(100))
  const reader = new JournalReader(folder)
  return { folder, reader, written, acked: { ...startOfRun(), offset: acked }, behindSince }
}

it('what Kafka has not taken for the interval is synced, once, with its folder; what it took, or what is new, is not', async () => {
  using late = temporaryFolder()
  using fresh = temporaryFolder()
  using taken = temporaryFolder()
  const synced: string[] = []
  const sync = new JournalSync(async (path) => void synced.push(path))
  const waiting = [
    shipment(late.path, 300, 150, 0),
    shipment(fresh.path, 100, 0, Number.POSITIVE_INFINITY),
    shipment(taken.path, 100, 100, 0),
  ]
  let rounds = 0
  const counted = {
    *[Symbol.iterator]() {
      rounds++
      yield* waiting
    },
  }
  sync.start(1, counted, (error) => expect.fail(error.message))
  await expect.poll(() => rounds).toBeGreaterThan(3)
  sync.stop()
  const segments = [100, 200].map((base) => basename(segmentPath(late.path, base)))
  expect(synced.map((path) => basename(path))).toEqual([...segments, basename(late.path)])
})
