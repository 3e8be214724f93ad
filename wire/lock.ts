/** A lock on a folder by the kernel: it goes with the process, however that ends. */
import { ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import koffi from 'koffi'

// flock is the one kind of lock that a second open in the same process, or a copied pid file, can't undo.
const flock = koffi.load('libc.so.6').func('int flock(int, int)')
const LOCK_EX = 2
const LOCK_NB = 4

/**
 * Takes the lock that the file at `path` stands for, until this process ends.
 * @returns undefined, or the process id of who holds it
 */
export function lockFile(path: string): string | undefined {
  const fd = openSync(path, 'a', 0o600)
  if (flock(fd, LOCK_EX | LOCK_NB) !== 0) return readFileSync(path, 'utf8').trim()
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`)
  return undefined
}
