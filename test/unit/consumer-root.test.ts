import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openRoot, probe } from '../../consumer/root.ts'
import { Consumer } from '../support/consumer.ts'
import { temporaryFolder } from '../support/folder.ts'
import { PAGE, smallDisk } from '../support/small-disk.ts'
import { until } from '../support/until.ts'

describe('the root', () => {
  it('is one daemon’s: the second one hears who holds it', () => {
    using folder = temporaryFolder()
    openRoot(folder.path)
    expect(() => openRoot(folder.path)).toThrow(new RegExp(`held by the consumer with process id ${process.pid};`))
  })

  it('is one process’s: the second daemon ends and names the one that holds it, whose end makes room for the next', async () => {
    using folder = temporaryFolder()
    const root = join(folder.path, 'root')
    const holder = join(root, '.tallyman/lock')
    const holds = ({ pid }: Consumer) => until('it holds the root', () => readFileSync(holder, 'utf8') === `${pid}\n`)
    const daemon = (name: string) =>
      // The root comes before Kafka, of which there is none here.
      Consumer.create({ ROOT: root, KAFKA_BROKERS: '127.0.0.1:1' }, join(folder.path, name))
    await using first = await daemon('first')
    await using second = await daemon('second')
    first.launch()
    await holds(first)
    const [code] = await once(second.launch(), 'exit')
    expect(code).toBe(1)
    const last: unknown = JSON.parse(second.lastWords.split('\n').at(-1)!)
    expect(last).toMatchObject({ level: 60, code: 'ROOT_HELD' })
    expect(second.lastWords).toContain(`ROOT=${root} is held by the consumer with process id ${first.pid};`)
    await holds(first)
    await first.kill()
    second.launch()
    await holds(second)
  })

  it('whose disk takes a little, and not as much as it refused, is told from one that takes it', () => {
    using disk = smallDisk(64)
    const state = disk.path
    expect(() => probe({ state }, 40 * PAGE)).not.toThrow()
    expect(() => probe({ state })).not.toThrow()
    expect(() => probe({ state }, 80 * PAGE)).toThrow(/ENOSPC/)
    expect(readdirSync(state)).toEqual([])
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
