/**
 * What starting took of memory and running does not need: pages of Node's binary that nothing executes again, and what malloc keeps
 * of modules that were compiled. Given back once, they are a fifth of the driver's resident memory.
 *
 * Invariant: only pages of the binary's file that were never written to go, so that the kernel reads the same bytes again from its
 * cache when they are needed after all.
 */
import { readFileSync } from 'node:fs'
import { discardPages, trimHeap } from './kernel.ts'

/** A mapping of `file` that nobody can write to and nobody has written to, of the text of /proc/<pid>/smaps. */
export function cleanMappings(smaps: string, file: string): [from: bigint, bytes: number][] {
  return smaps.split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/).flatMap((mapping) => {
    const [, from, to, path] = /^([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ \d+ +(.+)$/m.exec(mapping) ?? []
    if (path !== file || !/^Private_Dirty: +0 kB$/m.test(mapping)) return []
    const start = BigInt(`0x${from}`)
    return [[start, Number(BigInt(`0x${to}`) - start)]]
  })
}

export function giveBackStartMemory(): void {
  for (const [from, bytes] of cleanMappings(readFileSync('/proc/self/smaps', 'utf8'), process.execPath))
    discardPages(from, bytes)
  trimHeap()
}
