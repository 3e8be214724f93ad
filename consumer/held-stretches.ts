/**
 * A window of whole stretches of the `text` format, told in batches: as they stand in their files, so that nothing is done for a line.
 * Their client parses them and puts the lines in order.
 *
 * Invariant: a stretch of which a line is later than the batch that carries it goes on counting as one that waits, without its bytes,
 * until a batch says that time: its client holds that line until then.
 */
import type { StretchHead } from './api-schema.ts'
import { encodeBatch } from './batch.ts'
import { LAST_STAMP_MS } from './layout.ts'
import { type Landed, type Leaving, STRETCH_BYTES, type Window } from './window.ts'

/** `landed` until it has been told. */
type Held = { landed: Landed | undefined; arrived: number; tmin: number; tmax: number }

export class HeldStretches implements Window {
  /** In the order in which they arrived. */
  #held: Held[] = []
  bytes = 0

  get oldest(): number {
    return this.#held[0]?.arrived ?? Number.POSITIVE_INFINITY
  }

  add(landed: Landed): void {
    const { arrived, stretch, bytes } = landed
    this.#held.push({ landed, arrived, tmin: stretch.tmin, tmax: stretch.tmax })
    this.bytes += bytes.length + STRETCH_BYTES
  }

  latest(arrived: number): number {
    let latest = Number.NEGATIVE_INFINITY
    for (const held of this.#held) if (held.arrived <= arrived) latest = Math.max(latest, held.tmax)
    return latest
  }

  take(until: number): Leaving | undefined {
    const told: Landed[] = []
    for (const held of this.#held) {
      if (!held.landed || held.tmin > until) continue
      told.push(held.landed)
      this.bytes -= held.landed.bytes.length + STRETCH_BYTES
      held.landed = undefined
    }
    const before = this.#held.length
    this.#held = this.#held.filter(({ tmax }) => tmax > until)
    return told.length === 0 && this.#held.length === before ? undefined : new LeavingStretches(told, until)
  }
}

class LeavingStretches implements Leaving {
  #told: readonly Landed[]
  #until: number

  constructor(told: readonly Landed[], until: number) {
    this.#told = told
    this.#until = until
  }

  get lines(): number {
    return this.#told.reduce((sum, { stretch }) => sum + stretch.lines, 0)
  }

  get sequence(): number {
    return this.#told[0]?.sequence ?? Number.POSITIVE_INFINITY
  }

  /** Also where that is no stretch: lines that were told earlier wait for it. */
  behind(flush: number): Leaving {
    return new LeavingStretches(
      this.#told.filter(({ sequence }) => sequence > flush),
      this.#until,
    )
  }

  encode(): Buffer {
    return encodeBatch({
      type: 'batch',
      until: this.#until <= LAST_STAMP_MS ? new Date(this.#until).toISOString() : undefined,
      stretches: this.#told.map((landed) => ({ head: headOf(landed), bytes: landed.bytes })),
    })
  }
}

function headOf({ stretch: { file, position, names }, bytes }: Landed): StretchHead {
  const { service, module, host, container } = names
  return { file, position, bytes: bytes.length, service, module, host, container }
}
