/**
 * A disk that fails as disks do: ext4 on a block device in memory (zram), which answers every write with an I/O error while it may take
 * no memory. Linux lets go of what it could not write, and calls it durable when asked again. Needs root, and of Debian what is there anyway.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { command } from './engine.ts'

const ZRAM = '/sys/class/zram-control'
const DISK_BYTES = 64 * 1024 * 1024

export class FailingDisk {
  /** Where it is mounted. */
  readonly path: string
  #number: number
  #onError: string

  private constructor(path: string, number: number, onError: string) {
    this.path = path
    this.#number = number
    this.#onError = onError
  }

  /** @param onError what the file system does when it finds itself damaged */
  static async mount(path: string, onError: 'continue' | 'remount-ro'): Promise<FailingDisk> {
    if (!existsSync(ZRAM)) await command('modprobe', 'zram')
    const disk = new FailingDisk(path, Number(readFileSync(`${ZRAM}/hot_add`, 'utf8')), onError)
    disk.#set('disksize', DISK_BYTES)
    // Without a journal, which a disk that fails would end for good.
    await command('mkfs.ext4', '-q', '-O', '^has_journal', disk.#device)
    mkdirSync(path)
    await disk.#mount()
    return disk
  }

  get #name(): string {
    return `zram${this.#number}`
  }

  get #device(): string {
    return `/dev/${this.#name}`
  }

  /** Every write fails from now on, once it is to reach the disk. */
  refuse(): void {
    this.#set('mem_limit', 4096)
  }

  /** It takes everything again. */
  relent(): void {
    this.#set('mem_limit', 0)
  }

  /** The file system finds itself damaged. */
  damage(): void {
    writeFileSync(`/sys/fs/ext4/${this.#name}/trigger_fs_error`, 'a test')
  }

  get isReadOnly(): boolean {
    const mount = readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .find((line) => line.startsWith(`${this.#device} `))
    return /[ ,](ro|emergency_ro)[ ,]/.test(mount ?? '')
  }

  /** Unmounts it, so that nothing is left of what is not on it, mends it and mounts it again. */
  async remount(): Promise<void> {
    await command('umount', this.path)
    // It exits with 1 where it has mended something.
    await command('e2fsck', '-fy', this.#device).catch((error: { code?: number }) => {
      if (error.code !== 1) throw error
    })
    await this.#mount()
  }

  async #mount(): Promise<void> {
    await command('mount', '-o', `errors=${this.#onError}`, this.#device, this.path)
  }

  #set(attribute: string, value: number): void {
    writeFileSync(`/sys/block/${this.#name}/${attribute}`, String(value))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.relent()
    // Lazily, for a test that failed may hold a file open; then the device stays.
    await command('umount', '-l', this.path)
    this.#set('reset', 1)
    writeFileSync(`${ZRAM}/hot_remove`, String(this.#number))
  }
}
