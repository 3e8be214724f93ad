import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { httpApi } from '../../consumer/http-api.ts'
import { Ledger } from '../../consumer/ledger.ts'
import { ledgerRoutes } from '../../consumer/ledger-routes.ts'

const nothing = { files: 0, bytes: 0, total: {}, problems: [], losses: [] }
let api: Awaited<ReturnType<typeof httpApi>>
beforeAll(async () => {
  api = await httpApi({
    log: pino({ level: 'silent' }),
    trouble: () => undefined,
    metrics: new Registry(),
    routes: [
      ledgerRoutes({
        ledger: new Ledger().state,
        claimed: () => [],
        disown: async () => [],
        verify: async () => nothing as never,
      }),
    ],
  })
})
afterAll(() => api.close())

describe('the API', () => {
  it('answers a question with a key that it does not know by naming the nearest', async () => {
    const answer = await api.inject('/api/v1/ledger?servce=shop')
    expect(answer.statusCode).toBe(400)
    expect(answer.json()).toMatchObject({
      error: 'QUERY_INVALID',
      message: expect.stringContaining('servce is not known; the nearest known one is service'),
    })
  })

  it('says which value is wrong, and how it should be', async () => {
    const answer = await api.inject('/api/v1/ledger?since=yesterday')
    expect(answer.statusCode).toBe(400)
    expect(answer.json().message).toBe('since: must be a day, such as 2026-11-23')
  })

  it('describes its routes as OpenAPI 3.1', async () => {
    const { openapi, paths } = (await api.inject('/api/v1/openapi.json')).json()
    expect(openapi).toBe('3.1.0')
    for (const [path, operations] of Object.entries<Record<string, { responses: object; summary?: string }>>(paths)) {
      for (const { responses, summary } of Object.values(operations)) {
        expect(Object.keys(responses), path).toEqual(expect.arrayContaining(['200', '4XX', '5XX']))
        expect(summary, path).toMatch(/\.$/)
      }
    }
    expect(JSON.stringify(paths)).not.toContain('prefixItems')
    expect(paths['/api/v1/ledger'].get.parameters.map(({ name }: { name: string }) => name)).toContain('service')
  })
})
