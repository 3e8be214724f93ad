/** A disk that takes bytes and does not keep them: the kernel tells of it with one sync, and with the next one no more. */
import { beforeEach, expect, it, vi } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { filesOf, Life, landAll, topicOf } from '../support/landing.ts'

/** What fails, once. */
const refused = vi.hoisted(() => new Set<'fdatasync' | 'syncfs'>())

const refuse = vi.hoisted(() => (what: 'fdatasync' | 'syncfs') => {
  if (refused.delete(what)) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
})

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>()
  const fdatasyncSync = (fd: number) => {
    refuse('fdatasync')
    fs.fdatasyncSync(fd)
  }
  return { ...fs, fdatasyncSync, default: { ...fs, fdatasyncSync } }
})
vi.mock('../../consumer/kernel.ts', async (original) => {
  const kernel = await original<typeof import('../../consumer/kernel.ts')>()
  const syncFileSystem = (fd: number) => {
    refuse('syncfs')
    kernel.syncFileSystem(fd)
  }
  return { ...kernel, syncFileSystem }
})

beforeEach(() => refused.clear())

it.each([
  { how: 'one by one', files: 3, openFiles: 64, sync: 'fdatasync' as const },
  { how: 'all at once', files: 40, openFiles: 64, sync: 'syncfs' as const },
  { how: 'all at once, most of them closed', files: 40, openFiles: 4, sync: 'syncfs' as const },
])('refused once while files are synced $how: the checkpoint never says that they are written', async (of) => {
  using root = temporaryFolder()
  const topic = topicOf(
    Array.from({ length: of.files }, (_, i) => ({ partition: 0, module: `m${i}`, run: i + 1, first: 1, count: 2 })),
  )
  const life = new Life(root.path, of.openFiles)
  for (const stored of topic) await life.land(stored)
  life.writer.flush()
  refused.add(of.sync)
  for (const _ of [1, 2, 3]) expect(() => life.save()).toThrow(/EIO/)
  life.end()
  expect(life.checkpoint.state.partitions.size).toBe(0)
  const written = filesOf(root.path)
  const next = await landAll(root.path, topic)
  expect(next.landing.counts.lines).toBe(of.files * 2)
  expect(next.checkpoint.state.partitions.get(0)).toMatchObject({ next: topic.length })
  expect(filesOf(root.path)).toEqual(written)
})
