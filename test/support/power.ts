/**
 * A loss of power, made up from what was synced: what a file held at its last sync stays, of what was written since some is there and
 * some is not, and a name that its folder was not synced with may be gone.
 *
 * A test that imports it has to put `syncs` in the place of node:fs's own, see there.
 */
import fs from 'node:fs'
import { dirname, join } from 'node:path'

/** A disk takes a write in pieces of this size, and drops them one by one. Smaller than a real one's, so that lines are torn. */
const SECTOR_BYTES = 16

const contents = new Map<string, Buffer>()
const names = new Map<string, Set<string>>()

function synced(fd: number): void {
  const path = fs.readlinkSync(`/proc/self/fd/${fd}`)
  if (fs.fstatSync(fd).isDirectory()) names.set(path, new Set(fs.readdirSync(path)))
  else contents.set(path, fs.readFileSync(path))
}

/** Of node:fs, to be mocked: `vi.mock('node:fs', async (original) => ({ ...(await original()), ...syncs(await original()) }))`. */
export const syncs = ({ fsyncSync, fdatasyncSync, renameSync }: typeof fs) => ({
  renameSync(from: string, to: string): void {
    renameSync(from, to)
    contents.set(to, contents.get(from) ?? Buffer.alloc(0))
  },
  fsyncSync(fd: number): void {
    fsyncSync(fd)
    synced(fd)
  },
  fdatasyncSync(fd: number): void {
    fdatasyncSync(fd)
    synced(fd)
  },
})

/** Leaves of the files below `root` what a loss of power does. Nothing may have them open. @param draw a number from 0 up to 1 */
export function losePower(root: string, draw: () => number): void {
  for (const entry of fs.readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    if (!isNamed(root, path) && draw() < 0.5) {
      fs.rmSync(path)
      continue
    }
    const now = fs.readFileSync(path)
    const before = contents.get(path) ?? Buffer.alloc(0)
    // A file may have its new length before its new bytes: what is between is zeros.
    const after = Buffer.alloc(Math.max(before.length, draw() < 0.5 ? now.length : Math.floor(draw() * now.length)))
    before.copy(after)
    for (let at = 0; at < after.length; at += SECTOR_BYTES) {
      if (draw() < 0.5) now.copy(after, at, at, Math.min(at + SECTOR_BYTES, after.length))
    }
    fs.writeFileSync(path, after)
  }
}

/** Whether every folder between was synced with the name in it. */
function isNamed(root: string, path: string): boolean {
  for (let at = path; at !== root; at = dirname(at)) {
    if (!names.get(dirname(at))?.has(at.slice(dirname(at).length + 1))) return false
  }
  return true
}
