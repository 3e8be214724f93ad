/**
 * A disk that takes bytes and refuses to make them durable, really: what the kernel says afterwards is that all is well. Looked at after
 * it was mounted anew, for until then the page cache hides what is missing.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { Checkpoint, newFile } from '../../consumer/checkpoint.ts'
import { FailingDisk } from '../support/failing-disk.ts'
import { temporaryFolder } from '../support/folder.ts'
import { filesOf, Life, landAll, topicOf } from '../support/landing.ts'

const MODULES = 6

it('lines that a disk lost are written again by the next life, to the same places', async () => {
  using calm = temporaryFolder()
  using folder = temporaryFolder()
  await using disk = await FailingDisk.mount(join(folder.path, 'disk'), 'continue')
  const said = (first: number, count: number) =>
    Array.from({ length: MODULES }, (_, i) => ({ partition: 0, module: `m${i}`, run: i + 1, first, count, bytes: 60 }))
  const topic = topicOf([...said(1, 40), ...said(41, 200), ...said(241, 40)])
  await landAll(calm.path, topic)
  await landAll(disk.path, topic.slice(0, MODULES))
  /** Lands what is not in the checkpoint yet. @returns what the disk says when that is to be durable */
  const live = async (until: number): Promise<unknown> => {
    const life = new Life(disk.path)
    try {
      for (const stored of topic.slice(life.next(0), until)) await life.land(stored)
      life.save()
      return undefined
    } catch (error) {
      return error
    } finally {
      life.end()
    }
  }
  disk.refuse()
  expect(String(await live(2 * MODULES))).toMatch(/i\/o error|errno 5/)
  disk.relent()
  expect(await live(topic.length)).toBeUndefined()
  await disk.remount()
  const [files, expected] = [filesOf(disk.path), filesOf(calm.path)]
  expect(Object.keys(files)).toEqual(Object.keys(expected))
  for (const [file, text] of Object.entries(expected)) expect(files[file] === text, file).toBe(true)
  const next = new Life(disk.path)
  expect(next.next(0)).toBe(topic.length)
  next.end()
})

it('an entry of the checkpoint that a disk refused is durable once it is taken', async () => {
  using folder = temporaryFolder()
  await using disk = await FailingDisk.mount(join(folder.path, 'disk'), 'continue')
  const path = join(disk.path, 'state')
  mkdirSync(path)
  const checkpoint = new Checkpoint(join(path, 'checkpoint'))
  disk.refuse()
  const names = Array.from({ length: 4_000 }, (_, i) => `s/m${i}/2026-11-23.log`)
  const append = () => checkpoint.append({ files: names.map((name) => [name, newFile(0)]) })
  expect(append).toThrow(/i\/o error/)
  expect(append).toThrow(/i\/o error/)
  disk.relent()
  append()
  checkpoint.close()
  await disk.remount()
  const again = new Checkpoint(join(path, 'checkpoint'))
  expect([...again.state.files.keys()]).toEqual(names)
  again.close()
})
