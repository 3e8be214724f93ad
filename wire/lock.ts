/** A lock on a folder by the kernel: it goes with the process, however that ends. */
import { ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import koffi from 'koffi'

// flock is the one kind of lock that a second open in the same process, or a copied pid file, can't undo.
const flock = koffi.load('libc.so.6').func('int flock(int, int)')
const LOCK_EX = 2
const LOCK_NB = 4

/**
 * Takes the lock on the folder of the file at `path`, until this process ends. The file says who has it, as far as the disk takes
 * that: one that is full or only reads keeps nobody from the lock.
 * @returns undefined, or the process id of who holds it, where that is known
 */
export function lockFile(path: string): string | undefined {
  if (flock(openSync(dirname(path), 'r'), LOCK_EX | LOCK_NB) !== 0) return holderOf(path)
  try {
    const fd = openSync(path, 'a', 0o600)
    // Earlier versions lock the file alone.
    if (flock(fd, LOCK_EX | LOCK_NB) !== 0) return holderOf(path)
    ftruncateSync(fd)
    writeSync(fd, `${process.pid}\n`)
  } catch {
    // The folder is locked all the same.
  }
  return undefined
}

function holderOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return 'unknown'
  }
}
