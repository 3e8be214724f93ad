/** Writes NAME.msgpack for each NAME.json here that has none yet. One that is there is never touched: it is what others read. */
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ChunkEncoder } from '../../wire/chunk.ts'
import { chunkOf } from '../support/chunk.ts'

const encoder = new ChunkEncoder()
for (const file of globSync('*.json', { cwd: import.meta.dirname })) {
  const path = join(import.meta.dirname, file)
  try {
    writeFileSync(path.replace(/json$/, 'msgpack'), encoder.encode(chunkOf(JSON.parse(readFileSync(path, 'utf8')))), {
      flag: 'wx',
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}
