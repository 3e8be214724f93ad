/**
 * The system calls that Node does not offer, through koffi: splice, epoll, eventfd, pipe sizes.
 *
 * Every call here is synchronous and takes what it writes to from the caller: koffi's asynchronous calls keep no
 * reference to a buffer, and a buffer that is collected meanwhile is heap corruption.
 */
import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
// koffi knows no ssize_t; on every Linux that runs Node it is a long.
const cSplice = libc.func('long splice(int, void*, int, void*, size_t, unsigned int)')
const cFcntl = libc.func('int fcntl(int, int, int)')
const cEpollCreate = libc.func('int epoll_create1(int)')
const cEpollCtl = libc.func('int epoll_ctl(int, int, int, void*)')
const cEpollWait = libc.func('int epoll_wait(int, void*, int, int)')
const cMadvise = libc.func('int madvise(uintptr_t, size_t, int)')
const cMallocTrim = libc.func('int malloc_trim(size_t)')
const cEventfd = libc.func('int eventfd(unsigned int, int)')

export const EINTR = 4
export const EIO = 5
export const EAGAIN = 11
export const ENOSPC = 28

const CLOEXEC = 0o2000000
const NONBLOCK = 0o4000

/** A call that failed: the name of the call and errno. */
export class KernelError extends Error {
  override name = 'KernelError'
  readonly errno: number
  constructor(call: string, errno: number) {
    super(`${call} failed with errno ${errno}`)
    this.errno = errno
  }
}

function check(call: string, result: number): number {
  if (result < 0) throw new KernelError(call, koffi.errno())
  return result
}

const SPLICE_F_MOVE = 1
const SPLICE_F_NONBLOCK = 2

/**
 * Moves up to `length` bytes from a pipe to the position of a file, inside the kernel.
 * @returns bytes moved, 0 when the pipe is empty and has no writer, or −errno (EAGAIN: empty)
 */
export function splice(pipe: number, file: number, length: number): number {
  const moved = cSplice(pipe, null, file, null, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK) as number
  return moved < 0 ? -koffi.errno() : moved
}

const F_SETPIPE_SZ = 1031

/** @returns the size that the pipe has now, or −errno: EPERM over the user's limit, EBUSY when it holds more */
export function setPipeSize(pipe: number, bytes: number): number {
  const size = cFcntl(pipe, F_SETPIPE_SZ, bytes) as number
  return size < 0 ? -koffi.errno() : size
}

const MADV_DONTNEED = 4

/** Takes pages out of memory; of a file they come back when they are touched. A kernel that does not care to is no matter. */
export const discardPages = (from: bigint, bytes: number): void => void cMadvise(from, bytes, MADV_DONTNEED)

/** Gives the kernel back what malloc holds and nobody uses. */
export const trimHeap = (): void => void cMallocTrim(0)

/** An eventfd: a descriptor that any thread can write eight bytes to, to end another thread's wait. */
export const eventfd = (): number => check('eventfd', cEventfd(0, CLOEXEC | NONBLOCK) as number)

const EPOLLIN = 1
const EPOLLONESHOT = 1 << 30
const EPOLL_CTL_ADD = 1
const EPOLL_CTL_MOD = 3

/** struct epoll_event is packed on x86-64 alone. */
const DATA_OFFSET = process.arch === 'x64' ? 4 : 8
const EVENT_BYTES = DATA_OFFSET + 8

/** An epoll set whose descriptors are known by a number of the caller's. */
export class Epoll {
  #fd = check('epoll_create1', cEpollCreate(CLOEXEC) as number)
  #event = Buffer.alloc(EVENT_BYTES)
  #events: Buffer
  #max: number

  /** @param max how many events one wait returns at most */
  constructor(max: number) {
    this.#max = max
    this.#events = Buffer.alloc(max * EVENT_BYTES)
  }

  /** Reports `fd` as `id` as long as it is readable. */
  add(fd: number, id: number): void {
    this.#control(EPOLL_CTL_ADD, fd, id, EPOLLIN)
  }

  /** Reports `fd` as `id` once it is readable or has lost its writers; then not until `rearm`. */
  addOnce(fd: number, id: number): void {
    this.#control(EPOLL_CTL_ADD, fd, id, EPOLLIN | EPOLLONESHOT)
  }

  rearm(fd: number, id: number): void {
    this.#control(EPOLL_CTL_MOD, fd, id, EPOLLIN | EPOLLONESHOT)
  }

  #control(operation: number, fd: number, id: number, events: number): void {
    this.#event.writeUInt32LE(events >>> 0, 0)
    this.#event.writeUInt32LE(id, DATA_OFFSET)
    check('epoll_ctl', cEpollCtl(this.#fd, operation, fd, this.#event) as number)
  }

  /**
   * Blocks the thread until something is readable, at most `timeout` ms.
   * @returns how many of `id(0)`, `id(1)` … are valid
   */
  wait(timeout: number): number {
    const count = cEpollWait(this.#fd, this.#events, this.#max, timeout) as number
    if (count >= 0) return count
    const errno = koffi.errno()
    if (errno === EINTR) return 0
    throw new KernelError('epoll_wait', errno)
  }

  id(index: number): number {
    return this.#events.readUInt32LE(index * EVENT_BYTES + DATA_OFFSET)
  }
}
