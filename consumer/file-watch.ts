/**
 * Files that people or machines replace while the consumer runs: tokens, certificates.
 *
 * By looking and not by inotify: it has to follow a symbolic link that is pointed elsewhere, as Kubernetes does with secrets, and
 * a file that is renamed over, and a look a second costs nothing. Not by fs.watchFile: its first look comes some time after the
 * call, and what changes before that is never noticed.
 */
import { type BigIntStats, statSync } from 'node:fs'
import { stat } from 'node:fs/promises'

const EVERY_MS = 1_000

/**
 * Calls `changed` after one of the files is another one, or has other contents, than at the moment of this call.
 * @returns stops it
 */
export function watchFiles(paths: readonly string[], changed: () => void, everyMs = EVERY_MS): () => void {
  let seen = paths.map((path) => look(statSync(path, { bigint: true, throwIfNoEntry: false })))
  let looking = false
  const timer = setInterval(async () => {
    if (looking) return
    looking = true
    const now = await Promise.all(paths.map((path) => stat(path, { bigint: true }).then(look, () => '')))
    looking = false
    if (now.every((one, i) => one === seen[i])) return
    seen = now
    changed()
  }, everyMs)
  timer.unref()
  return () => clearInterval(timer)
}

const look = (stats: BigIntStats | undefined): string =>
  stats ? [stats.dev, stats.ino, stats.size, stats.mtimeNs, stats.ctimeNs].join(' ') : ''
