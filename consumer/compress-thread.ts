/** The worker that compression runs in: it gets the CPU that nobody else wants. */
import { readlinkSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { basename } from 'node:path'
import { parentPort } from 'node:worker_threads'
import { type CompressRequest, compress } from './compress.ts'
import { codeOf } from './disk.ts'

export type CompressReport = { frames: number[] } | { error: string; code: string | undefined }

// On Linux a thread has a priority of its own.
setPriority(Number(basename(readlinkSync('/proc/thread-self'))), constants.priority.PRIORITY_LOW)

parentPort!.on('message', (request: CompressRequest) => {
  let report: CompressReport
  try {
    report = { frames: compress(request) }
  } catch (error) {
    report = { error: (error as Error).message, code: codeOf(error) }
  }
  parentPort!.postMessage(report)
})
