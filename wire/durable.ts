/** Files that are there whole or not at all, whatever is killed or loses power meanwhile. */
import { closeSync, fsyncSync, openSync, renameSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'

export function syncFolder(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Makes a file or a folder durable, in the pool's threads. */
export async function syncPath(path: string): Promise<void> {
  await using file = await open(path)
  await file.sync()
}

/**
 * Puts `bytes` at `path`, replacing what is there. A process that dies leaves the old file or the new one.
 * @param durable also survive a loss of power, at the price of two syncs
 */
export function replaceFile(path: string, bytes: Uint8Array, durable: boolean): void {
  const aside = `${path}.new`
  const fd = openSync(aside, 'w', 0o600)
  try {
    writeFileSync(fd, bytes)
    if (durable) fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(aside, path)
  if (durable) syncFolder(dirname(path))
}
