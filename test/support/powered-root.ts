/** A root of the simulated group in a folder, of a host that may lose power: landing and housekeeping are the consumer's own, to the last call. */
import { join } from 'node:path'
import { ANYBODY } from '../../consumer/access.ts'
import { Checkpoint, type State, storedAt } from '../../consumer/checkpoint.ts'
import { verify } from '../../consumer/verify.ts'
import { Keeping, Killed, Steps, textsOf, turning } from './housekeeping.ts'
import { type Host, PowerCut } from './power.ts'
import type { Opened, Process, Root, SimulatedKafka } from './simulated-group.ts'

export class PoweredRoot implements Root {
  readonly owner: string
  readonly host: Host
  #now: number

  /** @param now what its clock says, ms since 1970; it is as late as records say, but not later than this */
  constructor(owner: string, host: Host, now: number) {
    this.owner = owner
    this.host = host
    this.#now = now
  }

  get state(): State {
    const checkpoint = new Checkpoint(join(this.host.root, '.tallyman/checkpoint'))
    checkpoint.close()
    return checkpoint.state
  }

  get lines(): string[] {
    return Object.values(textsOf(this.host.root)).flatMap((text) => text.split('\n').filter(Boolean))
  }

  /** What `tallyman verify` finds, and files that nobody knows of. */
  async problems(): Promise<unknown[]> {
    const { state } = this
    const known = new Set(Array.from(state.files, ([file, of]) => storedAt(file, of)))
    const { problems } = await verify(this.host.root, state, {}, ANYBODY.may)
    return [...problems, ...Object.keys(textsOf(this.host.root)).filter((file) => !known.has(file))]
  }

  open(_: SimulatedKafka, process: Process): Opened {
    const steps = new Steps()
    const { clock } = process
    const keeping = new Keeping(this.host.root, {
      ...{ steps, now: this.#now, clock, on: turning(() => clock.sleep(0)) },
      subscriber: {
        meanwhile: (work) => process.subscriber.meanwhile(work),
        checkpointed: (work) => process.subscriber.checkpointed(work),
      },
    })
    const { checkpoint, ledger, landing, writer, index } = keeping.life
    return {
      // What was killed may be in the midst of something, and its descriptors are another's by then.
      ...{ checkpoint: steps.of(checkpoint), landing: steps.of(landing), writer: steps.of(writer) },
      ...{ ledger, index: steps.of(index), probe: () => {} },
      keep: (stop) =>
        keeping.pass(stop).catch((error) => {
          if (!(error instanceof Killed || error instanceof PowerCut)) throw error
        }),
      close: () => {
        steps.left = 0
        keeping.life.end()
      },
    }
  }
}
