/** CPU of processes and of the machine between two moments, and the most memory that a process had meanwhile. */
import { readFileSync, writeFileSync } from 'node:fs'
import { cpuSeconds, peakMegabytes } from '../test/support/process-table.ts'

/** USER_HZ: what /proc counts CPU time in. */
const TICKS_PER_SECOND = 100

/** Processes by what they are to be called; several of them count as one. */
export type Processes<Name extends string> = Readonly<Record<Name, readonly number[]>>

export type Usage<Name extends string> = {
  cpuSeconds: Record<Name | 'machine', number>
  /** Of the largest process of the name. */
  peakMegabytes: Record<Name, number>
}

export class Meter<Name extends string> {
  #processes: Processes<Name>
  #before: Record<Name | 'machine', number>

  /** Starts to measure. */
  constructor(processes: Processes<Name>) {
    this.#processes = processes
    for (const pid of Object.values<readonly number[]>(processes).flat()) forgetPeak(pid)
    this.#before = this.#cpu()
  }

  read(): Usage<Name> {
    const after = this.#cpu()
    return {
      cpuSeconds: mapValues(after, (seconds, name) => seconds - this.#before[name]),
      peakMegabytes: mapValues(this.#processes, (pids) => Math.max(...pids.map(peakMegabytes))),
    }
  }

  #cpu(): Record<Name | 'machine', number> {
    const used = mapValues(this.#processes, (pids) => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0))
    return { ...used, machine: machineCpuSeconds() } as Record<Name | 'machine', number>
  }
}

const mapValues = <K extends string, V, W>(of: Readonly<Record<K, V>>, to: (value: V, key: K) => W): Record<K, W> =>
  Object.fromEntries(Object.entries<V>(of).map(([key, value]) => [key, to(value, key as K)])) as Record<K, W>

/** The kernel keeps the highest resident size of a process until it is told to begin anew. */
const forgetPeak = (pid: number): void => writeFileSync(`/proc/${pid}/clear_refs`, '5')

/** What all processes and the kernel have used since the machine started. */
function machineCpuSeconds(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'utf8')
    .split('\n', 1)[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return (user + nice + system + irq + softirq) / TICKS_PER_SECOND
}
