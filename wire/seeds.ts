/**
 * Seeds that answer. kafkajs takes one seed after the other and waits out its whole timeout on each that hangs, with nothing
 * else going on meanwhile: a stopped broker that is named first costs half a minute. So all are asked at once, and those
 * that say anything within a moment of the first are handed over.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'

/** An ApiVersions request, version 0, of nobody: what every broker answers before anything else (kafka.apache.org/protocol). */
const API_VERSIONS = Buffer.from('0000000a001200000000000fffff', 'hex')

const ANSWER_MS = 1_500
/** Once one has answered, the others have this long. */
const OTHERS_MS = 100

/** Whether a broker at `address`, host:port, says anything. A TLS handshake is enough: the kernel alone does not make one. */
export function answers(address: string, ssl: ConnectionOptions | undefined, timeout: number): Promise<boolean> {
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
  const alive = new Set<string>()
  const asked = brokers.map(async (broker) => {
    if (!(await answers(broker, ssl, timeout))) throw new Error('no answer')
    alive.add(broker)
  })
  const all = Promise.allSettled(asked)
  await Promise.any(asked).then(
    () => Promise.race([all, sleep(OTHERS_MS)]),
    () => {},
  )
  const answering = brokers.filter((broker) => alive.has(broker))
  return answering.length > 0 ? answering : brokers
}
