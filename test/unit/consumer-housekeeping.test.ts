import pino from 'pino'
import { expect, it } from 'vitest'
import { Housekeeping } from '../../consumer/housekeeping.ts'
import { until } from '../support/until.ts'

it('housekeeping waits until it may, goes on after a part that failed, and ends with what is in hand', async () => {
  const done: string[] = []
  let looks = 0
  const hand = Promise.withResolvers<void>()
  const housekeeping = new Housekeeping({
    parts: [
      async () => {
        done.push('retention')
        throw new Error('the disk does not answer')
      },
      async (stop) => {
        done.push('compression')
        if (done.length > 2) stop.addEventListener('abort', () => hand.resolve())
        if (done.length > 2) await hand.promise
      },
    ],
    ready: () => ++looks > 3,
    log: pino({ level: 'silent' }),
    ...{ everyMs: 1, lookMs: 1 },
  })
  housekeeping.start()
  expect(done).toEqual([])
  await until('the second pass is in hand', () => done.length === 4)
  expect(looks).toBe(5)
  await housekeeping.stop()
  await hand.promise
  expect(done).toEqual(['retention', 'compression', 'retention', 'compression'])
})
