/** HTTP over TLS, and the certificate renewed while readers are connected. */
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import { generate } from 'selfsigned'
import { describe, expect, it } from 'vitest'
import { readCertificate } from '../../consumer/certificate.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Api, LOOK_MS } from '../support/http-api.ts'
import { until } from '../support/until.ts'

/** A certificate by that name, and its key, in files. */
class Pair {
  readonly files: { cert: string; key: string }
  #pems = new Map<string, { cert: string; private: string }>()

  constructor(folder: string) {
    this.files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
  }

  async of(name: string): Promise<{ cert: string; private: string }> {
    const made = this.#pems.get(name) ?? (await generate([{ name: 'commonName', value: name }], { keyType: 'ec' }))
    this.#pems.set(name, made)
    return made
  }

  async write(name: string): Promise<void> {
    const { cert, private: key } = await this.of(name)
    writeFileSync(this.files.cert, cert)
    writeFileSync(this.files.key, key)
  }
}

async function connectTo({ server }: Api): Promise<TLSSocket> {
  const { port } = server.server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
  await once(socket, 'secureConnect')
  return socket
}

async function nameServed(api: Api): Promise<unknown> {
  const socket = await connectTo(api)
  const { subject } = socket.getPeerCertificate()
  socket.destroy()
  return subject.CN
}

async function ask(socket: TLSSocket): Promise<string> {
  socket.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n')
  return String((await once(socket, 'data'))[0])
}

describe('a certificate', () => {
  it('that is renewed is served from then on, and connections of before go on', async () => {
    using folder = temporaryFolder()
    const pair = new Pair(folder.path)
    await pair.write('old')
    await using api = await Api.create(undefined, { certificate: pair.files, lookMs: LOOK_MS })
    await api.listen()
    const before = await connectTo(api)
    expect(await ask(before)).toMatch(/^HTTP\/1.1 200/)
    await pair.write('new')
    await until('the new one is served', async () => (await nameServed(api)) === 'new')
    expect(before.getPeerCertificate().subject.CN).toBe('old')
    expect(await ask(before)).toMatch(/^HTTP\/1.1 200/)
    before.destroy()
  })

  it('whose key is renewed later stays the old one until then', async () => {
    using folder = temporaryFolder()
    const pair = new Pair(folder.path)
    await pair.write('old')
    await using api = await Api.create(undefined, { certificate: pair.files, lookMs: LOOK_MS })
    await api.listen()
    const { cert, private: key } = await pair.of('new')
    writeFileSync(pair.files.cert, cert)
    await until('the mismatch is told', () => api.log.some(({ level }) => level === 40))
    expect(await nameServed(api)).toBe('old')
    writeFileSync(pair.files.key, key)
    await until('the new one is served', async () => (await nameServed(api)) === 'new')
  })

  it('makes the session a cookie for TLS alone', async () => {
    using folder = temporaryFolder()
    const pair = new Pair(folder.path)
    await pair.write('here')
    await using api = await Api.create({ clerk: ['shop'] }, { certificate: pair.files })
    await api.listen()
    const socket = await connectTo(api)
    const body = JSON.stringify({ token: api.tokens.token('clerk') })
    const head = [
      'POST /api/v1/session HTTP/1.1',
      'Host: localhost',
      'Content-Type: application/json',
      `Content-Length: ${body.length}`,
    ]
    socket.write(`${head.join('\r\n')}\r\n\r\n${body}`)
    expect(String((await once(socket, 'data'))[0])).toMatch(/^set-cookie: tallyman-session=.*; Secure/im)
    socket.destroy()
  })

  it('that does not belong to its key is refused in words', async () => {
    using folder = temporaryFolder()
    const pair = new Pair(folder.path)
    await pair.write('one')
    writeFileSync(pair.files.key, (await pair.of('other')).private)
    expect(() => readCertificate(pair.files)).toThrow(/TLS_CERT_FILE=.*cert.pem and TLS_KEY_FILE=.*key.pem: .*mismatch/)
    expect(() => readCertificate({ ...pair.files, key: '/none' })).toThrow(/ENOENT/)
    writeFileSync(pair.files.cert, 'garbage')
    expect(() => readCertificate(pair.files)).toThrow(/TLS_CERT_FILE=/)
  })
})
