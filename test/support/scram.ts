/** A user for SCRAM, made with Kafka's own request: kafkajs has none for it. AlterUserScramCredentials, key 51, version 0. */
import { pbkdf2Sync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'

const API_KEY = 51
const ITERATIONS = 4096
const MECHANISMS = [
  { id: 1, digest: 'sha256', bytes: 32 },
  { id: 2, digest: 'sha512', bytes: 64 },
]
/** In place of tagged fields, which nothing here has. */
const NO_TAGS = Buffer.of(0)

const int16 = (n: number): Buffer => Buffer.of(n >> 8, n & 255)
const int32 = (n: number): Buffer => Buffer.of(n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255)
/** Compact strings, bytes and arrays say their length plus one as a varint; all of ours fit in one byte. */
const compact = (bytes: Uint8Array | string, length = bytes.length): Buffer =>
  Buffer.concat([Buffer.of(length + 1), Buffer.from(bytes)])

function upsertion(name: string, password: string, { id, digest, bytes }: (typeof MECHANISMS)[number]): Buffer {
  const salt = randomBytes(16)
  const salted = pbkdf2Sync(password, salt, ITERATIONS, bytes, digest)
  return Buffer.concat([compact(name), Buffer.of(id), int32(ITERATIONS), compact(salt), compact(salted), NO_TAGS])
}

/** A request each: a user may stand only once in one. @throws Error when the broker refuses */
export async function addScramUser(broker: string, name: string, password: string): Promise<void> {
  for (const mechanism of MECHANISMS) await ask(broker, name, upsertion(name, password, mechanism))
}

async function ask(broker: string, name: string, upsertion: Buffer): Promise<void> {
  const header = Buffer.concat([int16(API_KEY), int16(0), int32(1), int16(4), Buffer.from('test'), NO_TAGS])
  const request = Buffer.concat([header, compact(''), compact(upsertion, 1), NO_TAGS])
  const [host, port] = broker.split(':')
  const socket = connect(Number(port), host!)
  try {
    socket.write(Buffer.concat([int32(request.length), request]))
    const [answer] = (await once(socket, 'data')) as [Buffer]
    // Length, correlation id, tags, throttle time, how many results, then name and error of the first.
    const error = answer.readInt16BE(14 + compact(name).length)
    if (error !== 0) throw new Error(`Kafka refuses the user with error ${error}`)
  } finally {
    socket.destroy()
  }
}
