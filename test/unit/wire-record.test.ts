/** Partitions by key: other tools look for a module where Java's default partitioner puts it. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { partitionOf, recordHeaders, recordKey } from '../../wire/record.ts'

/** murmur2 of each key, from Kafka's own UtilsTest.testMurmur2. */
const JAVA: [key: string, murmur2: number][] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
]

describe('the partition of a key', () => {
  it.each(JAVA)('%s is that of the Java client, among any number', (key, murmur2) => {
    for (const count of [1, 2, 3, 12, 50, 1000]) expect(partitionOf(key, count)).toBe((murmur2 & 0x7fffffff) % count)
  })

  it('is one of those that there are, and always the same', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.integer({ min: 1, max: 200 }), (key, count) => {
        const partition = partitionOf(key, count)
        expect(Number.isInteger(partition) && partition >= 0 && partition < count).toBe(true)
        expect(partitionOf(key, count)).toBe(partition)
      }),
    )
  })

  it('spreads modules over all of twelve', () => {
    const used = new Set(Array.from({ length: 300 }, (_, i) => partitionOf(recordKey('shop', `web-${i}`), 12)))
    expect(used.size).toBe(12)
  })
})

it('a record tells what it is without being decoded', () => {
  expect(recordKey('shop', 'web')).toBe('shop/web')
  expect(recordHeaders({ service: 'shop', module: 'web', host: 'host-1' })).toEqual({
    'content-type': 'application/vnd.tallyman.chunk+msgpack',
    service: 'shop',
    module: 'web',
    host: 'host-1',
  })
})
