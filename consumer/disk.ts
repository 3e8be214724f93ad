/** What housekeeping does to files, so that tests can stop it between any two steps. */
import { linkSync, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync, unlinkSync } from 'node:fs'
import { open, unlink } from 'node:fs/promises'
import { syncFolder } from '../wire/durable.ts'

export const disk = {
  /** @returns undefined where nothing is */
  look: (path: string) => lstatSync(path, { throwIfNoEntry: false }),
  list: (path: string): string[] => readdirSync(path),
  makeFolder: (path: string): void => void mkdirSync(path, { recursive: true }),
  /** Gives a file a second name. @throws EEXIST where something has that name */
  link: (path: string, name: string): void => linkSync(path, name),
  /** Takes a name away, at once. The file must be held open: freeing a large one takes its time, and comes when it is closed. */
  unlinkHeld: (path: string): void => unlinkSync(path),
  /** Removes a file; frees its blocks elsewhere than in the thread that waits for Kafka. */
  remove: (path: string): Promise<void> => unlink(path),
  /** Removes a file of our own that may not be there. */
  discard: (path: string): void => rmSync(path, { force: true }),
  /** Gives a file another name, in place of what has it. */
  rename: (path: string, name: string): void => renameSync(path, name),
  /** @throws ENOTEMPTY */
  removeFolder: (path: string): void => rmdirSync(path),
  /** Makes durable which names a folder has. */
  syncFolder: async (path: string): Promise<void> => {
    await using folder = await open(path)
    await folder.sync()
  },
  syncFolderNow: (path: string): void => syncFolder(path),
  /** Keeps a file's blocks until it is closed. */
  hold: (path: string) => open(path),
}

export type Disk = typeof disk

export const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code
