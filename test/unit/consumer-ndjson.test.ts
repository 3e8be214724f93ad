import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { readNdjson } from '../../consumer/ndjson.ts'

const read = async (...pieces: (string | Buffer)[]): Promise<unknown[]> => {
  const values: unknown[] = []
  for await (const some of readNdjson(
    Readable.from(
      pieces.map((piece) => Buffer.from(piece)),
      { objectMode: false },
    ),
  ))
    values.push(...some)
  return values
}

describe('NDJSON', () => {
  it('is whole wherever it was cut on its way', async () => {
    const bytes = Buffer.from('{"a":"ä\u2028🛒"}\n\n[1]\n')
    for (let i = 0; i <= bytes.length; i++)
      expect(await read(bytes.subarray(0, i), bytes.subarray(i))).toEqual([{ a: 'ä\u2028🛒' }, [1]])
  })

  it('that was broken off within a line has all lines but that', async () => {
    expect(await read('1\n2\n{"a":')).toEqual([1, 2])
  })

  it('without an end of its line is not kept for ever', async () => {
    const pieces = Array.from({ length: 100 }, () => 'x'.repeat(65_536))
    await expect(read(...pieces)).rejects.toThrow(/more than 4194304 characters/)
  })

  it('that is none is refused', async () => {
    await expect(read('<html>\n')).rejects.toThrow(SyntaxError)
  })
})
