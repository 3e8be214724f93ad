/** The compressor: hands files to the thread that compresses them, one at a time. The thread lives while there is work. */
import { Worker } from 'node:worker_threads'
import type { CompressRequest } from './compress.ts'
import type { CompressReport } from './compress-thread.ts'

const script = new URL(`./compress-thread${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

export class Compressor {
  #worker: Worker | undefined
  #answer = Promise.withResolvers<number[]>()

  /** As `compress` does. @throws Error also when the thread is closed, or dies */
  async compress(request: CompressRequest): Promise<number[]> {
    this.#worker ??= this.#start()
    this.#answer = Promise.withResolvers()
    this.#worker.postMessage(request)
    return this.#answer.promise
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }

  #start(): Worker {
    const worker = new Worker(script, { name: 'compress-thread' })
    worker.on('message', (report: CompressReport) => {
      if ('frames' in report) this.#answer.resolve(report.frames)
      else this.#answer.reject(Object.assign(new Error(report.error), { code: report.code }))
    })
    worker.on('error', (error) => this.#answer.reject(error))
    worker.on('exit', () => {
      this.#worker = undefined
      this.#answer.reject(new Error('its thread has ended'))
      // Nobody may be waiting.
      this.#answer.promise.catch(() => {})
    })
    return worker
  }
}
