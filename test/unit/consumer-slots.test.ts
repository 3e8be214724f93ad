import { describe, expect, it } from 'vitest'
import { Slots } from '../../consumer/slots.ts'

describe('slots', () => {
  it('are given in turn, and say how many are served first', async () => {
    const slots = new Slots(2)
    const [a, b, c, d] = Array.from({ length: 4 }, () => slots.take()) as [
      ReturnType<Slots['take']>,
      ...ReturnType<Slots['take']>[],
    ]
    expect([a, b, c, d].map((slot) => slot!.ahead)).toEqual([0, 0, 1, 2])
    c!.release()
    expect(d!.ahead).toBe(1)
    a.release()
    await d!.free
    expect([b!.ahead, d!.ahead]).toEqual([0, 0])
  })

  it('are never all of one caller, who does not keep others waiting', async () => {
    const slots = new Slots(3)
    const hog = Array.from({ length: 5 }, () => slots.take('hog'))
    expect(hog.map(({ ahead }) => ahead)).toEqual([0, 0, 1, 2, 3])
    const other = slots.take('other')
    await other.free
    const another = slots.take('another')
    expect(another.ahead).toBe(4)
    other.release()
    await another.free
    hog[0]!.release()
    await hog[2]!.free
  })

  it('are one at a time for everybody where there is one', async () => {
    const slots = new Slots(1)
    const [first, second] = [slots.take('a'), slots.take('a')]
    expect([first.ahead, second.ahead]).toEqual([0, 1])
    first.release()
    await second.free
  })
})
