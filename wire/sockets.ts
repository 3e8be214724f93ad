/**
 * The sockets of one kafkajs client, so that it can be cut off. A client that is left behind goes on by itself, for it tries everything
 * again: it would join the group once more, and keep partitions that nobody reads.
 */
import { connect as connectTcp, isIP, Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { ISocketFactoryArgs } from 'kafkajs'

const KEEP_ALIVE_MS = 60_000

export class Sockets {
  #open = new Set<Socket>()
  #cut = false

  /** As kafkajs's own factory makes one, until they are cut. */
  create = ({ host, port, ssl, onConnect }: ISocketFactoryArgs): Socket => {
    if (this.#cut) return new Socket().destroy(new Error('the connection was given up'))
    const socket = ssl
      ? connectTls({ host, port, ...(isIP(host) ? {} : { servername: host }), ...ssl }, onConnect)
      : connectTcp({ host, port }, onConnect)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    this.#open.add(socket)
    socket.once('close', () => this.#open.delete(socket))
    return socket
  }

  /** Ends all of them, at once, and lets no other be made. */
  cut(): void {
    this.#cut = true
    for (const socket of this.#open) socket.destroy(new Error('the connection was given up'))
  }
}
