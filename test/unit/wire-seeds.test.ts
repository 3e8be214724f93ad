import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { answeringBrokers } from '../../wire/seeds.ts'

/** A server on a port of its own that does this with each connection. */
async function server(serve: (socket: Socket) => void): Promise<{ address: string } & AsyncDisposable> {
  const sockets = new Set<Socket>()
  const listening: Server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    serve(socket)
  }).listen(0, '127.0.0.1')
  await once(listening, 'listening')
  return {
    address: `127.0.0.1:${(listening.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      listening.close()
      await once(listening, 'close')
    },
  }
}

const broker = () => server((socket) => socket.on('data', () => socket.write('answer')))
const hung = () => server(() => {})
const closing = () => server((socket) => socket.destroy())
const NOBODY = '127.0.0.1:1'

describe('seeds', () => {
  it('that hang, refuse or hang up are left out', async () => {
    await using one = await broker()
    await using stopped = await hung()
    await using rude = await closing()
    await using two = await broker()
    const all = [stopped.address, one.address, NOBODY, rude.address, two.address]
    expect(await answeringBrokers(all, undefined, 300)).toEqual([one.address, two.address])
  })

  it('of which none answers are all handed over', async () => {
    await using stopped = await hung()
    expect(await answeringBrokers([stopped.address, NOBODY], undefined, 100)).toEqual([stopped.address, NOBODY])
  })

  it('that are one are not asked', async () => {
    expect(await answeringBrokers([NOBODY])).toEqual([NOBODY])
  })
})
