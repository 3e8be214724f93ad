import { execFileSync } from 'node:child_process'
import { setImmediate as turn } from 'node:timers/promises'
import { gunzipSync, constants as zlib } from 'node:zlib'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { describe, expect, it } from 'vitest'
import { type Events, sendEvents } from '../../consumer/event-stream.ts'
import { HEADS, pack, packingOf } from '../../consumer/packing.ts'
import { Api } from '../support/http-api.ts'
import { Following } from '../support/reading.ts'
import { until } from '../support/until.ts'

describe('a stream of events', () => {
  /** @param events of the stream below /api/v1/stream */
  const serve = (events: (signal: AbortSignal) => Events) => {
    const routes: FastifyPluginAsyncZod = async (api) => {
      api.get('/stream', (request, reply) => sendEvents(request, reply, events, { heartbeatMs: 20 }))
    }
    return Api.create(undefined, { routes: [routes] })
  }

  it('that finds nothing for long says that it is there, before its first event too', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    await using api = await serve(async function* () {
      await promise
      yield ['{"type":"found"}']
      await new Promise(() => {})
    })
    await using reader = new Following(`${await api.listen()}/api/v1/stream`)
    const beats = () => reader.events.filter(({ type }) => type === 'heartbeat').length
    await until('heartbeats come', () => beats() >= 2)
    resolve()
    await until('what was found comes', () => reader.events.some(({ type }) => type === 'found'))
    const before = beats()
    await until('heartbeats go on', () => beats() >= before + 2)
  })

  it('ends its work where the reader leaves before the first event', async () => {
    let left = false
    await using api = await serve(async function* (signal) {
      await new Promise((resolve) => signal.addEventListener('abort', resolve))
      left = true
      yield []
    })
    {
      await using reader = new Following(`${await api.listen()}/api/v1/stream`)
      await until('it listens', () => reader.events.length > 0)
    }
    await until('the work is over', () => left)
  })

  it('is answered with a status where it fails at once, and broken off where it fails later', async () => {
    let fail = true
    await using api = await serve(async function* () {
      if (fail) throw new Error('no')
      yield ['{"type":"found"}']
      await turn()
      throw new Error('no')
    })
    await using refused = new Following(`${await api.listen()}/api/v1/stream`)
    await until('it is refused', () => refused.events.some(({ error }) => String(error).includes('500')))
    fail = false
    await using broken = new Following(`${await api.listen()}/api/v1/stream`)
    await until('it is broken off', () => broken.events.at(-1)?.type === 'broken')
    expect(broken.events[0]).toEqual({ type: 'found' })
  })
})

describe('a packed stream that readers share', () => {
  /** What a client makes of it as it comes. */
  const plainOf = {
    gzip: (sent: Buffer) => gunzipSync(sent, { finishFlush: zlib.Z_SYNC_FLUSH }).toString(),
    zstd: (sent: Buffer) => execFileSync('zstd', ['-dcq'], { input: sent, encoding: 'utf8' }),
  }

  it.each(['gzip', 'zstd'] as const)('is whole for a reader that begins with any block of %s', (packing) => {
    const texts = ['one, one, one\n', 'one, two\n', 'two, one, one\n']
    const blocks = texts.map((text) => pack(Buffer.from(text), packing))
    for (let from = 0; from < texts.length; from++) {
      const sent = Buffer.concat([HEADS[packing] ?? Buffer.of(), ...blocks.slice(from), ...blocks.slice(0, from)])
      expect(plainOf[packing](sent)).toBe([...texts.slice(from), ...texts.slice(0, from)].join(''))
    }
  })

  it('goes to who takes it', () => {
    const gzip = ['gzip', 'deflate, GZIP;q=0.5', 'br, gzip ; q=1', '*', 'identity;q=0, *;q=0.1', 'zstd;q=0.1, gzip']
    const zstd = ['zstd', 'gzip, zstd', 'gzip;q=0, zstd;q=0.5', 'gzip, deflate, br, zstd']
    const plain = [
      undefined,
      '',
      'identity',
      'br',
      'gzip;q=0',
      'gzip;q=0, *',
      'x-gzipped',
      'gzip;q=nonsense',
      'zstd;q=0',
    ]
    expect(gzip.filter((accepted) => packingOf(accepted) !== 'gzip')).toEqual([])
    expect(zstd.filter((accepted) => packingOf(accepted) !== 'zstd')).toEqual([])
    expect(plain.filter((accepted) => packingOf(accepted) !== undefined)).toEqual([])
  })
})
