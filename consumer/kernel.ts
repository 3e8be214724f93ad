/** The system call that Node does not offer, through koffi. */
import koffi from 'koffi'

const syncfs = koffi.load('libc.so.6').func('int syncfs(int)')

/** Makes everything durable that was written to the file system of `fd`: cheaper than many files one by one. */
export function syncFileSystem(fd: number): void {
  if (syncfs(fd) !== 0) throw new Error(`syncfs failed with errno ${koffi.errno()}`)
}
