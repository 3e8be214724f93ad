import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openRoot } from '../../consumer/root.ts'
import { temporaryFolder } from '../support/folder.ts'

describe('the root', () => {
  it('is one daemon’s: the second one hears who holds it', () => {
    using folder = temporaryFolder()
    openRoot(folder.path)
    expect(() => openRoot(folder.path)).toThrow(new RegExp(`held by the consumer with process id ${process.pid};`))
  })

  it('that is a file is refused in words', () => {
    using folder = temporaryFolder()
    const path = join(folder.path, 'file')
    writeFileSync(path, '')
    expect(() => openRoot(path)).toThrow(/ROOT=.*can't be used/)
  })

  it('whose UUID is none is refused: under a new one it would disown its claims', () => {
    using folder = temporaryFolder()
    mkdirSync(join(folder.path, '.tallyman'))
    writeFileSync(join(folder.path, '.tallyman/uuid'), 'garbage')
    expect(() => openRoot(folder.path)).toThrow(/uuid holds no UUID/)
  })
})
