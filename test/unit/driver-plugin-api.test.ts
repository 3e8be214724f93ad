import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import type { ContainerInfo } from '../../driver/container.ts'
import { DriverError } from '../../driver/errors.ts'
import { pluginApi } from '../../driver/plugin-api.ts'
import type { ReadConfig } from '../../driver/read-logs.ts'

function house() {
  const started: { file: string; info: ContainerInfo }[] = []
  const stopped: string[] = []
  const read: ReadConfig[] = []
  const api = pluginApi(
    {
      async startLogging(file, info) {
        if (file === '/refused') throw new DriverError('LOG_OPT_INVALID', 'log-opt x=y: no')
        started.push({ file, info })
      },
      stopLogging: (file) => stopped.push(file),
      async readLogs(_info, config) {
        read.push(config)
        return Readable.from([Buffer.from('entries')])
      },
    },
    pino({ level: 'silent' }),
    createServer(),
  )
  const post = async (url: string, body?: string | Uint8Array, headers: Record<string, string> = {}) => {
    const answer = await api.inject({
      method: 'POST',
      url,
      headers,
      ...(body !== undefined && { payload: Buffer.from(body) }),
    })
    return { status: answer.statusCode, json: answer.json(), connection: answer.headers['connection'] }
  }
  return { api, post, started, stopped, read }
}

const info = {
  Config: { service: 's' },
  ContainerID: 'c',
  ContainerName: '/n',
  ContainerEnv: null,
  ContainerLabels: null,
}

describe('plugin API', () => {
  it('answers what dockerd asks, without a Content-Type, and closes the connection', async () => {
    const { post, started, stopped } = house()
    expect(await post('/Plugin.Activate')).toEqual({
      status: 200,
      json: { Implements: ['LogDriver'] },
      connection: 'close',
    })
    expect((await post('/LogDriver.Capabilities')).json).toEqual({ Cap: { ReadLogs: true } })
    expect((await post('/LogDriver.StartLogging', JSON.stringify({ File: '/f', Info: info }))).json).toEqual({
      Err: '',
    })
    expect((await post('/LogDriver.StopLogging', JSON.stringify({ File: '/f' }))).json).toEqual({ Err: '' })
    expect(started).toMatchObject([
      { file: '/f', info: { Config: { service: 's' }, ContainerEnv: [], ContainerLabels: {} } },
    ])
    expect(stopped).toEqual(['/f'])
  })

  it('refuses a StartLogging without a body, so that no container runs unlogged', async () => {
    const { post, started } = house()
    for (const body of [
      undefined,
      '',
      '{}',
      '[]',
      'null',
      '{"File":""}',
      '{"File":"/f"}',
      '{"File":"/f","Info":{"Config":3}}',
    ]) {
      const answer = await post('/LogDriver.StartLogging', body)
      expect(answer.status).toBe(400)
      expect(answer.json.Err).toMatch(/StartLogging/)
    }
    expect(started).toEqual([])
  })

  it('answers every StopLogging without an error', async () => {
    const { post } = house()
    for (const body of [undefined, '', 'garbage', '{"File":3}', '{"File":"/unknown"}']) {
      expect(await post('/LogDriver.StopLogging', body)).toMatchObject({ status: 200, json: { Err: '' } })
    }
  })

  it('hands a refusal to docker run in words', async () => {
    const { post } = house()
    expect(await post('/LogDriver.StartLogging', JSON.stringify({ File: '/refused', Info: info }))).toMatchObject({
      status: 400,
      json: { Err: 'log-opt x=y: no' },
    })
  })

  it('any body on any endpoint gets an answer in JSON', async () => {
    const { post } = house()
    const url = fc.constantFrom(
      '/Plugin.Activate',
      '/LogDriver.Capabilities',
      '/LogDriver.StartLogging',
      '/LogDriver.StopLogging',
      '/LogDriver.ReadLogs',
      '/nothing',
    )
    const type = fc.constantFrom(
      {},
      { 'content-type': 'application/json' },
      { 'content-type': 'text/x; charset=\u00e4' },
    )
    await fc.assert(
      fc.asyncProperty(url, fc.oneof(fc.uint8Array(), fc.json()), type, async (url, body, headers) => {
        const { status, json } = await post(url, body, headers as Record<string, string>)
        expect([200, 400, 404, 415]).toContain(status)
        expect(json).toBeTypeOf('object')
      }),
      { numRuns: 300 },
    )
  })
})
