/** The command over TLS: whose certificate it takes. */
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ask } from '../../cli/api.ts'
import { serversOf } from '../../cli/servers.ts'
import { temporaryFolder } from '../support/folder.ts'

const folder = temporaryFolder()
const certificate = join(folder.path, 'cert.pem')
const other = join(folder.path, 'other.pem')
const asked: (string | undefined)[] = []
let server: ReturnType<typeof createServer>
let address: string

beforeAll(async () => {
  const extensions = [{ name: 'subjectAltName' as const, altNames: [{ type: 2 as const, value: 'logs.example' }] }]
  const [mine, foreign] = await Promise.all([
    generate([{ name: 'commonName', value: 'logs.example' }], { keyType: 'ec', extensions }),
    generate([{ name: 'commonName', value: 'logs.example' }], { keyType: 'ec' }),
  ])
  writeFileSync(certificate, mine.cert)
  writeFileSync(other, foreign.cert)
  server = createServer({ cert: mine.cert, key: mine.private }, (request, response) => {
    asked.push(request.headers.authorization)
    response.end('{"well": true}')
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  address = `127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => {
  server.close()
  folder[Symbol.dispose]()
})

const answer = async (env: NodeJS.ProcessEnv): Promise<unknown> => {
  const [server] = await serversOf([], { XDG_CONFIG_HOME: folder.path, TALLYMAN_TOKEN: 'secret', ...env })
  return ask(server!, 'api/v1/status')
}

it('a certificate that nobody known has signed is refused before the token is sent, and it is said what to do', async () => {
  const before = asked.length
  await expect(answer({ TALLYMAN_URL: `https://${address}` })).rejects.toMatchObject({
    code: 'UNREACHABLE',
    message: expect.stringMatching(/the certificate of .* is not trusted: .*caFile/),
  })
  expect(asked.length).toBe(before)
})

it("in the consumer's container its own certificate is taken, whatever name it has, and no other", async () => {
  expect(await answer({ HTTP_ADDR: address, TLS_CERT_FILE: certificate })).toEqual({ well: true })
  expect(asked.at(-1)).toBe('Bearer secret')
  const before = asked.length
  await expect(answer({ HTTP_ADDR: address, TLS_CERT_FILE: other })).rejects.toThrow(/shows another certificate/)
  expect(asked.length).toBe(before)
  await expect(answer({ HTTP_ADDR: address, TLS_CERT_FILE: '/none' })).rejects.toThrow(/TLS_CERT_FILE cannot be read/)
})
