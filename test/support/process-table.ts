/** What /proc says of other processes. */
import { readdirSync, readFileSync } from 'node:fs'

/** Linux counts CPU time in these, whatever the kernel's own tick (sysconf(_SC_CLK_TCK)). */
const TICKS_PER_SECOND = 100

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined // it ended
  }
}

/** The fields of /proc/<pid>/stat behind the command, which may itself hold blanks: state is the first. */
const stat = (pid: number): string[] | undefined =>
  read(`/proc/${pid}/stat`)
    ?.replace(/^.*\) /s, '')
    .split(' ')

const pids = (): number[] => readdirSync('/proc').map(Number).filter(Boolean)

/** The process that containerd's shim runs for a container or a managed plugin. */
export function pidOfTask(id: string): number | undefined {
  const all = pids()
  const shim = all.find(
    (pid) =>
      read(`/proc/${pid}/cmdline`)?.includes(`containerd-shim-runc-v2\0-namespace\0`) &&
      read(`/proc/${pid}/cmdline`)?.includes(`\0-id\0${id}\0`),
  )
  return all.find((pid) => shim !== undefined && stat(pid)?.[1] === String(shim))
}

export function pidOf(name: string): number | undefined {
  return pids().find((pid) => read(`/proc/${pid}/comm`)?.trim() === name)
}

/** CPU that a process has used so far, all of its threads, s. */
export function cpuSeconds(pid: number): number {
  const fields = stat(pid)
  if (!fields) throw new Error(`there is no process ${pid}`)
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** How long a process has been running, s. */
export function ageSeconds(pid: number): number {
  const fields = stat(pid)
  if (!fields) throw new Error(`there is no process ${pid}`)
  return Number.parseFloat(read('/proc/uptime')!) - Number(fields[19]) / TICKS_PER_SECOND
}

/** The most memory that a process had resident so far, MB. */
export function peakMegabytes(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(read(`/proc/${pid}/status`) ?? '')?.[1]) / 1000
}
