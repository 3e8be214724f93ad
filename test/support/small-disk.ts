/** A disk of a test's own that can be really full: a small tmpfs. Mounting takes root, as CI and the system tests have it. */
import { execFileSync } from 'node:child_process'
import { temporaryFolder } from './folder.ts'

export const PAGE = 4096

/** A file system of so many pages, of which folders and each file take what they take. */
export function smallDisk(pages: number) {
  const folder = temporaryFolder()
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${pages * PAGE}`, 'tallyman-test', folder.path])
  return {
    path: folder.path,
    [Symbol.dispose]() {
      execFileSync('umount', ['-l', folder.path])
      folder[Symbol.dispose]()
    },
  }
}
