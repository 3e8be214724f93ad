/**
 * The worker that intake runs in. Main posts what it wants and then writes to the eventfd, because the thread sits in
 * epoll_wait and has no event loop that would deliver a message.
 */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { FifoError } from './fifos.ts'
import { Intake } from './intake.ts'
import { Slots } from './slots.ts'

export type IntakeData = { slots: SharedArrayBuffer; wake: number; port: MessagePort }

/**
 * To intake. `open` is answered by `opened` with the same slot; `held` is the FIFO's descriptor where it is open already,
 * `segmentBytes` where the run's segments are to be smaller than others, `blockMs` how long its container waits for a disk.
 * `close` ends a run whose FIFO another run is about to open. `close-segment` has a run begin another segment.
 */
export type IntakeRequest =
  | {
      type: 'open'
      slot: number
      folder: string
      file: string
      held: number | undefined
      segmentBytes: number | undefined
      blockMs: number
    }
  | { type: 'close'; slot: number }
  | { type: 'close-segment'; slot: number }
  | { type: 'stop' }

/** From intake. `fifo` says why a FIFO could not be opened; it is undefined when it was. */
export type IntakeReport =
  | { type: 'opened'; slot: number; fifo: string | undefined }
  | { type: 'ended'; slot: number }
  | { type: 'disk-refused'; slot: number; errno: number }
  | { type: 'disk-recovered'; slot: number }

const { slots, wake, port } = workerData as IntakeData
const report = (message: IntakeReport): void => port.postMessage(message)

const intake = new Intake(new Slots(slots), wake, {
  ended: (slot) => report({ type: 'ended', slot }),
  diskRefused: (slot, errno) => report({ type: 'disk-refused', slot, errno }),
  diskRecovered: (slot) => report({ type: 'disk-recovered', slot }),
})

function handle(request: IntakeRequest): void {
  if (request.type === 'stop') {
    intake.stop()
    return
  }
  if (request.type === 'close') {
    intake.close(request.slot)
    return
  }
  if (request.type === 'close-segment') {
    intake.closeSegment(request.slot)
    return
  }
  try {
    const { slot, folder, file, ...options } = request
    intake.open(slot, folder, file, options)
    report({ type: 'opened', slot: request.slot, fifo: undefined })
  } catch (error) {
    if (!(error instanceof FifoError)) throw error
    report({ type: 'opened', slot: request.slot, fifo: error.message })
  }
}

intake.loop(() => {
  for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) {
    handle(next.message as IntakeRequest)
  }
})
port.close()
