/**
 * Files that people or machines replace while the consumer runs: tokens, certificates.
 *
 * By looking and not by inotify: it has to follow a symbolic link that is pointed elsewhere, as Kubernetes does with secrets, and
 * a file that is renamed over, and a look a second costs nothing.
 */
import { unwatchFile, watchFile } from 'node:fs'

const EVERY_MS = 1_000

/**
 * Calls `changed` after one of the files is another one, or has other contents.
 * @returns stops it
 */
export function watchFiles(paths: readonly string[], changed: () => void, everyMs = EVERY_MS): () => void {
  // A listener of its own: unwatching by the caller's would end two watches that share it.
  const listener = () => changed()
  for (const path of paths) watchFile(path, { interval: everyMs, persistent: false }, listener)
  return () => {
    for (const path of paths) unwatchFile(path, listener)
  }
}
