/**
 * Seeds that answer. kafkajs takes one seed after the other and waits out its whole timeout on each that hangs, with nothing
 * else going on meanwhile: a stopped broker that is named first costs half a minute. So all are asked at once, and those
 * that say anything within a moment are handed over.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'

/** An ApiVersions request, version 0, of nobody: what every broker answers before anything else (kafka.apache.org/protocol). */
const API_VERSIONS = Buffer.from('0000000a001200000000000fffff', 'hex')

const ANSWER_MS = 1_500

/** Whether a broker at `address`, host:port, says anything. A TLS handshake is enough: the kernel alone does not make one. */
function answers(address: string, ssl: ConnectionOptions | undefined, timeout: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const colon = address.lastIndexOf(':')
  const target = { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) }
  const socket: Socket = ssl
    ? connectTls({ ...(isIP(target.host) ? {} : { servername: target.host }), ...ssl, ...target }, () => resolve(true))
    : connectTcp(target, () => socket.write(API_VERSIONS))
  socket.setTimeout(timeout, () => resolve(false))
  socket.once('data', () => resolve(true))
  socket.once('error', () => resolve(false))
  socket.once('close', () => resolve(false))
  return promise.finally(() => socket.destroy())
}

/**
 * Those of `brokers` that answer; all of them where none does, so that the caller's own attempt says what is wrong.
 * @param ssl as kafkajs takes it, where the brokers speak TLS
 */
export async function answeringBrokers(
  brokers: string[],
  ssl?: ConnectionOptions,
  timeout = ANSWER_MS,
): Promise<string[]> {
  if (brokers.length === 1) return brokers
  const alive = await Promise.all(brokers.map((broker) => answers(broker, ssl, timeout)))
  const answering = brokers.filter((_, i) => alive[i])
  return answering.length > 0 ? answering : brokers
}
