import { describe, expect, it } from 'vitest'
import { DiskSpace } from '../../consumer/disk-space.ts'

const GIB = 1024 ** 3

/** Whether writing goes on with so many bytes free, one look after the other. */
function looks(size: number, minFree: number | undefined, ...free: number[]): boolean[] {
  let now = 0
  const space = new DiskSpace('/logs', minFree, () => ({ free: now, size }))
  return free.map((bytes) => {
    now = bytes
    try {
      space.admit()
      return true
    } catch (error) {
      expect(error).toMatchObject({ code: 'DISK_NEARLY_FULL' })
      expect((error as Error).message).toContain(`/logs has ${bytes} bytes free`)
      return false
    }
  })
}

describe('room on the disk', () => {
  it('pauses below what is to stay free, and goes on with a little more than that', () => {
    expect(looks(10_000, 1000, 1001, 1000, 999, 1000, 1049, 1050, 1000, 999)).toEqual([
      ...[true, true, false, false],
      ...[false, true, true, false],
    ])
  })

  it('keeps 5 % of a large disk free, and 1 GiB of a small one', () => {
    expect(looks(100 * GIB, undefined, 5 * GIB, 5 * GIB - 1)).toEqual([true, false])
    expect(looks(10 * GIB, undefined, GIB, GIB - 1)).toEqual([true, false])
  })
})
