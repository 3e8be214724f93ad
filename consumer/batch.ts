/** A batch of a tail, as one consumer hands it to another or to a client: what it is of, and the bytes. */
import type { BatchEvent, StretchHead } from './api-schema.ts'

export type Batch = {
  type: 'batch'
  /** As of BatchEvent. */
  until: string | undefined
  stretches: readonly { head: StretchHead; bytes: Uint8Array }[]
}

/** As it goes over the wire, not packed. */
export function encodeBatch({ until, stretches }: Batch): Buffer {
  const event: BatchEvent = {
    type: 'batch',
    ...(until !== undefined && { until }),
    stretches: stretches.map(({ head }) => head),
  }
  return Buffer.concat([Buffer.from(`${JSON.stringify(event)}\n`), ...stretches.map(({ bytes }) => bytes)])
}
