/** A line as the API answers it. */
import type { Line } from '../../consumer/api-schema.ts'

const EVERY_MS = 1000
const FIRST = Date.parse('2026-11-23T08:00:00Z')

/** The n-th line of a module, a second after the one before. */
export function logLine(n: number, part: Partial<Line> = {}): Line {
  const service = part.service ?? 'shop'
  const module = part.module ?? 'api'
  return {
    type: 'line',
    at: `${service}/${module}@${n}`,
    file: `${service}/${module}/2026-11-23.log`,
    position: n * 100,
    time: new Date(FIRST + n * EVERY_MS).toISOString(),
    ...{ service, module, host: 'host-1', container: `${module}-1`, source: 'stdout', line: `line ${n}` },
    ...part,
  }
}
