import { describe, expect, it } from 'vitest'
import { openTenure, readMetadata, writeMetadata } from '../../consumer/claims.ts'

const US = 'root-a'
const log = { low: 10, high: 100 }
const fine = { expired: 0, headless: false, recreated: false }
const commit = (offset: number, owner: string, tenure: number, from: number) => ({
  offset,
  metadata: { owner, tenure, from },
})

describe('a partition that was just assigned', () => {
  it.each([
    [
      'nobody read it',
      { offset: -1, metadata: undefined },
      undefined,
      { tenure: 1, from: 10, next: 10, ...fine, headless: true },
    ],
    [
      'we claimed and wrote it',
      commit(80, US, 3, 20),
      { next: 80, tenure: 3 },
      { tenure: 3, from: 20, next: 80, ...fine },
    ],
    [
      'we were killed between claim and checkpoint',
      commit(80, US, 3, 20),
      { next: 60, tenure: 3 },
      { tenure: 3, from: 20, next: 60, ...fine },
    ],
    [
      'we were killed before the first checkpoint of the tenure',
      commit(80, US, 3, 20),
      { next: 15, tenure: 2 },
      { tenure: 3, from: 20, next: 20, ...fine },
    ],
    ['we lost our checkpoint', commit(80, US, 3, 20), undefined, { tenure: 3, from: 20, next: 20, ...fine }],
    [
      'another root claimed it',
      commit(80, 'root-b', 3, 20),
      { next: 20, tenure: 2 },
      { tenure: 4, from: 80, next: 80, ...fine },
    ],
    [
      'the commit is not ours to read',
      { offset: 80, metadata: undefined },
      undefined,
      { tenure: 1, from: 80, next: 80, ...fine },
    ],
    [
      'Kafka forgot the commit, or the topic is another',
      { offset: -1, metadata: undefined },
      { next: 60, tenure: 5 },
      { tenure: 6, from: 10, next: 10, ...fine },
    ],
    [
      'Kafka forgot the commit, and the topic is the one that was read',
      { offset: -1, metadata: undefined },
      { next: 60, tenure: 5, hash: 1 },
      { tenure: 6, from: 60, next: 60, ...fine },
    ],
    [
      'Kafka forgot the commit, and dropped what was not read yet',
      { offset: -1, metadata: undefined },
      { next: 7, tenure: 5, hash: 1 },
      { tenure: 6, from: 10, next: 10, ...fine, expired: 3 },
    ],
    [
      'records expired before they were read',
      commit(4, US, 3, 2),
      { next: 4, tenure: 3 },
      { tenure: 4, from: 10, next: 10, expired: 6, recreated: false },
    ],
    [
      'the topic was recreated',
      commit(200, US, 3, 20),
      { next: 200, tenure: 3 },
      { tenure: 4, from: 10, next: 10, expired: 0, recreated: true },
    ],
  ])('%s', (_, found, checkpoint, expected) => {
    expect(openTenure(US, found, checkpoint, log, true)).toMatchObject(expected)
  })

  it('metadata comes back as it was written, and anything else is none', () => {
    expect(readMetadata(writeMetadata(US, { tenure: 3, from: 20, next: 50 }))).toEqual({
      owner: US,
      tenure: 3,
      from: 20,
    })
    for (const text of [
      undefined,
      null,
      '',
      'x',
      '{}',
      '[]',
      '{"owner":1,"tenure":1,"from":1}',
      '{"owner":"a","tenure":-1,"from":0}',
    ]) {
      expect(readMetadata(text)).toBeUndefined()
    }
  })
})
