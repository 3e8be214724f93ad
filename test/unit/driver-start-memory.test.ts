import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { cleanMappings, giveBackStartMemory } from '../../driver/start-memory.ts'

const mapping = (range: string, permissions: string, file: string, dirty: number) =>
  `${range} ${permissions} 00000000 fe:00 4711   ${file}\nSize:   8 kB\nRss:   8 kB\nPrivate_Dirty:   ${dirty} kB\nVmFlags: rd\n`

it('only what nobody can write to and nobody has written to, of the binary alone, can be given back', () => {
  const smaps = [
    mapping('00400000-00402000', 'r--p', '/bin/node', 0),
    mapping('00402000-00404000', 'r-xp', '/bin/node', 0),
    mapping('00404000-00406000', 'r--p', '/bin/node', 8),
    mapping('00406000-00408000', 'rw-p', '/bin/node', 0),
    mapping('7f0000000000-7f0000002000', 'r-xp', '/lib/libc.so.6', 0),
  ].join('')
  expect(cleanMappings(smaps, '/bin/node')).toEqual([
    [0x40_0000n, 8192],
    [0x40_2000n, 8192],
  ])
})

it('the process goes on after it, with less of its binary resident', () => {
  const resident = () =>
    readFileSync('/proc/self/smaps', 'utf8')
      .split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)
      .filter((text) => text.includes(process.execPath))
      .reduce((sum, text) => sum + Number(/^Rss: +(\d+)/m.exec(text)![1]), 0)
  const before = resident()
  giveBackStartMemory()
  expect(resident()).toBeLessThan(before)
})
