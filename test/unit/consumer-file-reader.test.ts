import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { type FileState, newFile, type Packed } from '../../consumer/checkpoint.ts'
import { FileReader } from '../../consumer/file-reader.ts'
import { temporaryFolder } from '../support/folder.ts'

const FILE = 's/m/2026-11-23.log'
const FRAME = 1000
const TEXT = Buffer.from(Array.from({ length: 400 }, (_, i) => `line ${i}\n`).join(''))
const compress = { zst: zstdCompressSync, gz: gzipSync }

/** The text in a root, plain or compressed, and a reader of it. */
function fileIn(root: string, as: 'plain' | 'zst' | 'gz') {
  const path = join(root, FILE)
  mkdirSync(dirname(path), { recursive: true })
  const state: FileState = { ...newFile(0), length: TEXT.length, lines: 400 }
  if (as === 'plain') writeFileSync(path, TEXT)
  else {
    const frames: Buffer[] = []
    for (let at = 0; at < TEXT.length; at += FRAME) frames.push(compress[as](TEXT.subarray(at, at + FRAME)))
    writeFileSync(`${path}.${as}`, Buffer.concat(frames))
    state.packed = { as, frame: FRAME, frames: frames.map(({ length }) => length) }
  }
  const files = new Map([[FILE, state]])
  return { path, files, reader: new FileReader({ root, files, cacheBytes: 2 * FRAME }) }
}

describe('the reader of files', () => {
  it.each(['plain', 'zst', 'gz'] as const)('gives any stretch of a file that is %s', async (as) => {
    using root = temporaryFolder()
    const { reader } = fileIn(root.path, as)
    using _ = reader
    for (const [position, bytes] of [
      [0, TEXT.length],
      [0, 10],
      [995, 10],
      [FRAME, FRAME],
      [500, 2500],
      [TEXT.length - 5, 100],
      [TEXT.length, 10],
      [TEXT.length + 5000, 10],
      [7, 0],
    ] as const) {
      expect(await reader.readRange(FILE, position, bytes)).toEqual(TEXT.subarray(position, position + bytes))
    }
  })

  it('goes on when a file is compressed between two stretches, held open or not', async () => {
    using root = temporaryFolder()
    const { path, files, reader } = fileIn(root.path, 'plain')
    using _ = reader
    const before = await reader.readRange(FILE, 0, 100)
    const frames = [zstdCompressSync(TEXT)]
    writeFileSync(`${path}.zst`, frames[0]!)
    rmSync(path)
    const packed: Packed = { as: 'zst', frame: TEXT.length, frames: [frames[0]!.length] }
    files.set(FILE, { ...files.get(FILE)!, packed })
    expect(await reader.readRange(FILE, 0, 100)).toEqual(before)
    expect(await reader.readRange(FILE, 100, 100)).toEqual(TEXT.subarray(100, 200))
  })

  it('says of a file that is not there that it is not there', async () => {
    using root = temporaryFolder()
    const { path, reader } = fileIn(root.path, 'zst')
    using _ = reader
    renameSync(`${path}.zst`, `${path}.elsewhere`)
    await expect(reader.readRange(FILE, 0, 1)).rejects.toMatchObject({ code: 'ENOENT' })
  })
})
