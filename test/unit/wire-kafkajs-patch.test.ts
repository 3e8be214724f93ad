/** What patches/ does to kafkajs, without which nothing here fails but the figures: CPU while idle, and while sending. */
import { createRequire } from 'node:module'
import { describe, expect, it } from 'vitest'

const require = createRequire(import.meta.url)
const RequestQueue = require('kafkajs/src/network/requestQueue')
const Encoder = require('kafkajs/src/protocol/encoder')

const silent = { namespace: () => silent, debug: () => {}, warn: () => {} }
const queue = () =>
  new RequestQueue({
    maxInFlightRequests: 1,
    requestTimeout: 1000,
    enforceRequestTimeout: false,
    clientId: 'c',
    broker: 'b',
    logger: silent,
  })

describe('kafkajs, patched', () => {
  it('an idle connection has no timer', () => {
    const idle = queue()
    idle.scheduleCheckPendingRequests()
    expect(idle.throttleCheckTimeoutId).toBeNull()
  })

  it('a throttled connection looks again when the throttle is over', () => {
    const throttled = queue()
    throttled.maybeThrottle(5000)
    throttled.scheduleCheckPendingRequests()
    expect(throttled.throttleCheckTimeoutId).not.toBeNull()
    throttled.destroy()
  })

  it('a large encoder gives its buffer back when it is told to', () => {
    const large = new Encoder()
    large.writeBufferInternal(Buffer.alloc(100_000))
    const { buffer } = large.buf
    large.release()
    expect(buffer.detached).toBe(true)
  })
})
