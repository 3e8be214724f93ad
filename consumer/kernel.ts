/** The system calls that Node does not offer, through koffi, and what they are for. */
import { fdatasyncSync } from 'node:fs'
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const syncfs = libc.func('int syncfs(int)')
const fadvise = libc.func('int posix_fadvise(int, int64, int64, int)')
const POSIX_FADV_DONTNEED = 4

/** Makes everything durable that was written to the file system of `fd`: cheaper than many files one by one. */
export function syncFileSystem(fd: number): void {
  if (syncfs(fd) !== 0) throw new Error(`syncfs failed with errno ${koffi.errno()}`)
}

/**
 * Makes a file's data durable, or has it be written anew.
 * @throws Error of the file system; then everything since the last call is to be written again
 */
export function syncData(fd: number): void {
  try {
    fdatasyncSync(fd)
  } catch (error) {
    forgetPages(fd)
    throw error
  }
}

/**
 * Lets go of what the kernel holds of a file, after the disk refused it. Written again into the same pages it reaches the disk, but ext4
 * takes the place for one that was never written, and reads zeros there after the next mount.
 */
export function forgetPages(fd: number): void {
  try {
    // Pages go once they are clean, and an error that nobody has heard of would be told the next who asks.
    fdatasyncSync(fd)
  } catch {
    // That it failed is known.
  }
  fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
}
