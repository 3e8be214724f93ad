/**
 * Consumers that share a group, each with a root of its own, over a real Kafka: killed, paused past their session, stopped and added; in
 * soak over three brokers, one of which may be killed or hang meanwhile. No line is lost, none stands in two roots, and their ledgers together are whole.
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Admin } from 'kafkajs'
import pino from 'pino'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { fill } from '../../bench/backlog.ts'
import { EXIT } from '../../cli/errors.ts'
import type { LedgerAnswer, RootsAnswer } from '../../consumer/api-schema.ts'
import { Group, type GroupLimits } from '../../wire/group.ts'
import { kafkaClient, leaveGroup } from '../../wire/kafka.ts'
import type { Sockets } from '../../wire/sockets.ts'
import { Consumer, sourceProgram } from '../support/consumer.ts'
import { lockEngine, removeContainers } from '../support/engine.ts'
import { FedTopic } from '../support/fed-topic.ts'
import { Kafka } from '../support/kafka.ts'
import { peakMegabytes } from '../support/process-table.ts'
import { random } from '../support/simulated-group.ts'
import { inSoak } from '../support/soak.ts'
import { Tallyman } from '../support/tallyman.ts'
import { until } from '../support/until.ts'

const BROKERS = inSoak(1, 3)
const PARTITIONS = 6
const RUNS = 12
/** Kafka takes 6 s to see that one is dead, and the next needs its heartbeat to hear of it. */
const TAKE_OVER_MS = 8_000
const AFTER_STOP_MS = 1_000
const RESTART_MS = 2_000
/** Whatever the backlog, and however well it compresses. */
const MAX_MEGABYTES = 400
const REPEATED_LINE_BYTES = 1_000
/** Half a megabyte, as the driver makes them at most. */
const REPEATED_CHUNK_LINES = 512
/** A machine that is busy with something else is slow now and then; what takes too long by itself does so each time. */
const TRIES = 3

const disposables = new AsyncDisposableStack()
let kafka: Kafka
let folder: string
const id = `tm-hand-over-${randomBytes(3).toString('hex')}`

/** A group of consumers on a topic of its own. */
class Crew {
  readonly topic: FedTopic
  readonly members = new Map<string, Consumer>()

  constructor(name: string) {
    // While a broker is away it may take more than one try, of which each may have been stored.
    const produce: Kafka['produce'] = async (...records) => {
      await until('Kafka takes it', async () => {
        await kafka.produce(...records)
        return true
      })
    }
    this.topic = new FedTopic({ produce }, `${id}-${name}`, PARTITIONS, RUNS)
  }

  get roots(): string[] {
    return [...this.members.keys()].map((name) => join(folder, this.topic.name, name, 'root'))
  }

  async join(name: string, program?: ReturnType<typeof sourceProgram>): Promise<Consumer> {
    const home = join(folder, this.topic.name, name)
    mkdirSync(home, { recursive: true })
    const settings = {
      ...{ KAFKA_BROKERS: kafka.brokers.join(), KAFKA_TOPIC: this.topic.name, KAFKA_GROUP: this.topic.name },
      ...{ KAFKA_PARTITIONS: String(PARTITIONS), KAFKA_REPLICATION: String(Math.min(BROKERS, 2)) },
      ...{ ROOT: join(home, 'root'), MIN_FREE: '1m', LOG_LEVEL: 'info' },
    }
    const consumer = disposables.use(await Consumer.create(settings, join(home, 'log'), program))
    this.members.set(name, consumer)
    await consumer.start()
    return consumer
  }

  /** Feeds lines, and waits until all that were ever fed stand in the roots. @returns after how long, ms */
  async fed(): Promise<number> {
    await this.topic.feed(20)
    const begun = performance.now()
    await until(
      () => `all lines land: ${JSON.stringify(this.wrong(3))}`,
      () => this.wrong(1).lost.length === 0,
    )
    return performance.now() - begun
  }

  /** What is not there once, of each the first few. */
  wrong(shown: number): { lost: string[]; doubled: string[] } {
    const { lost, doubled } = this.topic.wrong(this.roots)
    return { lost: lost.slice(0, shown), doubled: doubled.slice(0, shown) }
  }

  /** What the ledgers of all say together. */
  async total(): Promise<{ written: number; lost: number; claimed: number }> {
    const totals = await Promise.all(
      Array.from(this.members.values(), async ({ url }) => {
        const answer = await fetch(`${url}/api/v1/ledger`)
        return ((await answer.json()) as LedgerAnswer).total
      }),
    )
    const sum = (of: 'written' | 'lost' | 'claimed') => totals.reduce((all, total) => all + total[of], 0)
    return { written: sum('written'), lost: sum('lost'), claimed: sum('claimed') }
  }

  /** Once everybody is there: no line is lost, none stands twice, and all ledgers together say so. */
  async whole(): Promise<void> {
    await until(
      () => `all lines land: ${JSON.stringify(this.wrong(3))}`,
      () => this.wrong(1).lost.length === 0,
      120,
    )
    expect(this.wrong(3)).toEqual({ lost: [], doubled: [] })
    const { lines } = this.topic
    await until('the ledgers agree', async () => {
      const { written, lost, claimed } = await this.total()
      return written === lines && lost === 0 && claimed === 0
    })
  }
}

async function connected<T extends Pick<Admin, 'connect' | 'disconnect'>>(client: T): Promise<T & AsyncDisposable> {
  await client.connect()
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.disconnect() })
}

beforeAll(async () => {
  disposables.use(await lockEngine())
  await removeContainers()
  folder = mkdtempSync(join(tmpdir(), `${id}-`))
  disposables.defer(() => rmSync(folder, { recursive: true, force: true }))
  kafka = disposables.use(await Kafka.start(id, BROKERS))
})
afterAll(() => disposables.disposeAsync())

it('one is killed, started again, stopped: lines go on soon, in the root of whoever has the partition', async () => {
  const crew = new Crew('times')
  const a = await crew.join('a')
  const b = await crew.join('b')
  /**
   * From a signal until what is printed then has landed, of at most TRIES the fastest.
   * @param gone who has to be started before another try
   */
  const fastest = async (limit: number, signal: () => Promise<unknown>, gone?: Consumer) => {
    let best = Number.POSITIVE_INFINITY
    for (let i = 0; i < TRIES && best >= limit; i++) {
      if (i > 0) await gone?.start()
      await crew.fed()
      const begun = performance.now()
      await Promise.all([signal(), crew.fed()])
      best = Math.min(best, performance.now() - begun)
    }
    return best
  }
  expect(await fastest(TAKE_OVER_MS, () => a.kill(), a)).toBeLessThan(TAKE_OVER_MS)
  await a.start()
  expect(await fastest(AFTER_STOP_MS, () => b.stop(), b)).toBeLessThan(AFTER_STOP_MS)
  const restart = async () => {
    await a.kill()
    await a.start()
  }
  expect(await fastest(RESTART_MS, restart)).toBeLessThan(RESTART_MS)
  await b.start()
  await crew.whole()
})

it('what one has claimed and not written is counted as claimed, until it is back, or disowned', async () => {
  const crew = new Crew('claimed')
  const a = await crew.join('a')
  const b = await crew.join('b')
  await crew.fed()
  // It holds partitions, and what comes now it claims, and does not say that it wrote it before it is killed.
  await crew.topic.feed(20)
  await until('all of it is claimed', async () => (await kafka.unclaimed(crew.topic.name, crew.topic.name)) === 0)
  await a.kill()
  const owed = async () => ((await (await fetch(`${b.url}/api/v1/roots`)).json()) as RootsAnswer).roots
  const [claims] = await until('the other one counts what it owes', async () => {
    const roots = await owed()
    return roots.length > 0 && roots
  })
  const uuid = readFileSync(join(folder, crew.topic.name, 'a', 'root', '.tallyman', 'uuid'), 'utf8').trim()
  expect(claims).toMatchObject({ root: uuid, state: 'claimed' })
  /** Somebody at a terminal is asked, and says so. */
  const disown = async (answer: string) => {
    await using command = Tallyman.atTerminal({ url: b.url }, 'disown', uuid)
    await command.prints(
      `Is the disk of ${uuid} gone for good? At most ${claims!.lines} lines will count as lost. [y/N]`,
    )
    command.type(`${answer}\r`)
    return await command.ended()
  }
  expect((await disown('')).code).toBe(EXIT.BAD)
  expect(await owed()).toMatchObject([{ root: uuid, state: 'claimed' }])
  const { code, stdout } = await disown('y')
  expect(stdout).toContain(`${uuid} is disowned`)
  expect(code).toBe(EXIT.GOOD)
  expect(await owed()).toMatchObject([{ root: uuid, state: 'disowned', lines: claims!.lines }])
  const ledger = (await (await fetch(`${b.url}/api/v1/ledger`)).json()) as LedgerAnswer
  expect(ledger.total.claimed).toBe(0)
  expect(ledger.total.lostBy['disowned'] ?? 0).toBe(claims!.lines)
  // It is back after all, and with it its lines.
  await a.start()
  await crew.whole()
  expect(await owed()).toEqual([])
})

/** Kafka gives a member up that it has not heard of for so long. */
const SESSION_MS = 6_000
/** What a write to a file takes on a disk that is slow, so that what one round brings takes longer than the session. */
const SLOW_WRITE_MS = (1.5 * SESSION_MS) / RUNS
const SLOW_DISK = `import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
const { writevSync } = fs
const never = new Int32Array(new SharedArrayBuffer(4))
fs.writevSync = (...args) => {
  Atomics.wait(never, 0, 0, ${SLOW_WRITE_MS})
  return writevSync(...args)
}
syncBuiltinESMExports()`

it('one whose disk is slow stays a member while it lands for longer than its session', async () => {
  const crew = new Crew('slow')
  const program = sourceProgram('--import', `data:text/javascript,${encodeURIComponent(SLOW_DISK)}`)
  await crew.join('a', program)
  const member = async (): Promise<string> => {
    const { groups } = await kafka.admin((admin) => admin.describeGroups([crew.topic.name]))
    const [only, ...others] = groups[0]!.members
    if (!only || others.length > 0) throw new Error('it is no member, or not alone')
    return only.memberId
  }
  const before = await member()
  expect(await crew.fed()).toBeGreaterThan(SESSION_MS)
  expect(await member()).toBe(before)
  await crew.whole()
})

/** One reader of a topic of one partition, by the group alone: no root, no claims. */
class Reader {
  readonly topic: string
  readonly group: Group
  readonly values: string[] = []
  readonly away: string[] = []
  /** The connections of each client that it had. */
  readonly clients: Socket[][] = []
  #deaf = false
  #member: string | undefined

  private constructor(topic: string, limits: Partial<GroupLimits>) {
    this.topic = topic
    const connect = (requestTimeout: number, sockets: Sockets) => {
      const own: Socket[] = []
      this.clients.push(own)
      const create: Sockets['create'] = (args) => {
        const socket = sockets.create(args)
        own.push(socket)
        if (this.#deaf) socket.pause()
        return socket
      }
      return kafkaClient({
        ...{ brokers: kafka.brokers, clientId: topic, logger: pino({ level: 'silent' }), requestTimeout },
        ...{ sockets: { create } as Sockets, retry: { retries: 2 } },
      })
    }
    this.group = new Group(
      { connect, groupId: topic, topic, fetchBytes: 1024 * 1024 },
      { still: 2_000, mostStill: 2_000, silent: 60_000, look: 50, backoff: 50, ...limits },
    )
  }

  static async on(topic: string, limits: Partial<GroupLimits> = {}): Promise<Reader> {
    await using admin = await connected(kafka.client.admin())
    await admin.createTopics({ topics: [{ topic, numPartitions: 1, replicationFactor: 1 }] })
    return new Reader(topic, limits)
  }

  /** @param refuse what being away throws. @param from where it begins, unless behind what it has read */
  start(refuse?: Error, from = () => this.values.length): Promise<void> {
    return this.group.start({
      // As the consumer does it: one that was cut off would keep its partitions until its session is over.
      connected: async (client) => {
        if (this.#member !== undefined) await leaveGroup(client, this.topic, this.#member).catch(() => {})
      },
      joined: (member) => {
        this.#member = member
      },
      leaderless: () => {},
      assigned: (partitions) => this.group.begin(new Map(partitions.map((partition) => [partition, from()]))),
      batch: async ({ messages }) => {
        this.values.push(...messages.map(({ value }) => String(value)))
        return true
      },
      away: ({ message }) => {
        this.away.push(message)
        if (refuse) throw refuse
      },
    })
  }

  /** Nothing that Kafka says is heard any more, over connections that are there or to come, until it is `false`. */
  set deaf(deaf: boolean) {
    this.#deaf = deaf
    if (deaf) for (const socket of this.clients.at(-1) ?? []) socket.pause()
  }

  /** Stores a record, and waits until it is read. */
  async hears(value: string): Promise<void> {
    await using producer = await connected(kafka.client.producer())
    await producer.send({ topic: this.topic, messages: [{ value }] })
    await until(`${value} is read; ${this.away.join('; ')}`, () => this.values.includes(value))
  }
}

it('what was aborted last in a partition is not waited for', async () => {
  const reader = await Reader.on(`${id}-aborted`)
  const { topic, group, values, away } = reader
  await reader.start()
  await reader.hears('first')
  await using foreign = await connected(kafka.client.producer({ transactionalId: topic, maxInFlightRequests: 1 }))
  const transaction = await foreign.transaction()
  await transaction.send({ topic, messages: [{ value: 'aborted' }] })
  await transaction.abort()
  await until('Kafka holds its end', async () => ((await group.extents()).get(0)?.high ?? 0) > 2)
  // A Kafka that has just begun, or is slow, is given up for other reasons.
  const stood = () => away.filter((message) => message.includes(' stands at '))
  const begun = performance.now()
  await until('it has been watched', () => stood().length > 0 || performance.now() - begun > 6_000)
  expect(stood()).toEqual([])
  await reader.hears('last')
  expect(values).toEqual(['first', 'last'])
  expect(await group.stop()).toBe(true)
})

it('a client to which nobody answers is left behind, cut off, and another one reads on', async () => {
  const reader = await Reader.on(`${id}-deaf`)
  await reader.start()
  await reader.hears('first')
  const left = reader.clients.at(-1)!
  reader.deaf = true
  await until('it is given up', () => reader.away.length > 0)
  reader.deaf = false
  expect(reader.away[0]).toMatch(/has not answered|did not answer/)
  expect(left.length).toBeGreaterThan(0)
  await until('its connections are cut', () => left.every(({ destroyed }) => destroyed))
  await reader.hears('last')
  expect(reader.values).toEqual(['first', 'last'])
  expect(await reader.group.stop()).toBe(true)
  // It left in good order: nobody waits for its session.
  await using admin = await connected(kafka.client.admin())
  const [described] = (await admin.describeGroups([reader.topic])).groups
  expect(described!.members).toEqual([])
})

it('a client of which nothing at all is heard is left behind', async () => {
  const reader = await Reader.on(`${id}-silent`, { still: 60_000, mostStill: 60_000, silent: 4_000 })
  await reader.start()
  await reader.hears('first')
  reader.deaf = true
  await until('it is given up', () => reader.away.some((message) => message.includes('nothing was heard')))
  reader.deaf = false
  await reader.hears('last')
  expect(reader.values).toEqual(['first', 'last'])
  await reader.group.stop()
})

it('an offset that Kafka does not have ends the client, and commits nothing in the place of what is committed', async () => {
  const reader = await Reader.on(`${id}-range`)
  let from = 1_000
  await reader.start(undefined, () => from)
  await until('it is told', () => reader.away.some((message) => message.includes('offset')))
  from = 0
  await reader.hears('first')
  expect((await reader.group.commits()).get(0)).toEqual({ offset: -1, metadata: null })
  await reader.group.stop()
})

it('what being away throws is the end, and a stop that nobody answers is one in time', async () => {
  const refused = await Reader.on(`${id}-refused`)
  refused.deaf = true
  await expect(refused.start(new Error('the topic can’t be used'))).rejects.toThrow('the topic can’t be used')
  const deaf = await Reader.on(`${id}-stop`, { still: 60_000, mostStill: 60_000 })
  await deaf.start()
  await deaf.hears('first')
  deaf.deaf = true
  const begun = performance.now()
  expect(await deaf.group.stop()).toBe(false)
  expect(performance.now() - begun).toBeLessThan(10_000)
})

it('a backlog of lines that say the same again and again takes no more memory than any other', async () => {
  const topic = `${id}-repetitive`
  const lines = inSoak(512, 10_240) * REPEATED_CHUNK_LINES * 2
  const text = Buffer.from(
    `${'the same again '.repeat(67).slice(0, REPEATED_LINE_BYTES)}\n`.repeat(REPEATED_CHUNK_LINES),
  )
  const chunks = { modules: 1, chunkLines: REPEATED_CHUNK_LINES, lines, text, lineBytes: REPEATED_LINE_BYTES }
  await fill(kafka.client, { topic, partitions: PARTITIONS, ...chunks })
  const home = join(folder, topic)
  mkdirSync(home)
  const settings = { KAFKA_BROKERS: kafka.brokers.join(), KAFKA_TOPIC: topic, KAFKA_GROUP: topic }
  const root = { ROOT: join(home, 'root'), MIN_FREE: '1m' }
  await using consumer = await Consumer.create({ ...settings, ...root }, join(home, 'log'), sourceProgram())
  await consumer.start()
  await until(
    'all lines are in the ledger',
    async () => {
      const { total } = (await (await fetch(`${consumer.url}/api/v1/ledger`)).json()) as LedgerAnswer
      return total.written === lines && total.lost === 0
    },
    600,
  )
  expect(peakMegabytes(consumer.pid)).toBeLessThan(MAX_MEGABYTES)
  rmSync(home, { recursive: true })
})

it('killed, paused past the session, stopped and added in random order', async () => {
  const crew = new Crew('random')
  const draw = random(Number(process.env['SEED'] ?? 1))
  for (const name of ['a', 'b']) await crew.join(name)
  const running = new Set(crew.members.values())
  const paused = new Set<Consumer>()
  const any = <T>(of: Iterable<T>): T | undefined => [...of][Math.floor(draw() * [...of].length)]
  const awake = () => [...running].filter((consumer) => !paused.has(consumer))
  const wake = async () => {
    for (const consumer of paused) process.kill(consumer.pid, 'SIGCONT')
    paused.clear()
  }
  /** Brings the broker back that is away. */
  let mend: (() => Promise<unknown>) | undefined
  const disturbBrokers = async () => {
    if (mend) {
      await mend()
      mend = undefined
      return
    }
    const pid = any(await kafka.pids())!
    const hangs = draw() < 0.5
    process.kill(pid, hangs ? 'SIGSTOP' : 'SIGKILL')
    mend = hangs ? async () => process.kill(pid, 'SIGCONT') : () => kafka.start()
  }
  for (let turn = 0; turn < Number(process.env['TURNS'] ?? inSoak(8, 100)); turn++) {
    if (BROKERS > 1 && draw() < 0.4) await disturbBrokers()
    const consumer = any(awake())
    const gone = any([...crew.members.values()].filter((each) => !running.has(each)))
    const what = draw()
    if (turn === 2) running.add(await crew.join('c'))
    else if (what < 0.25 && consumer && awake().length > 1) {
      running.delete(consumer)
      await consumer.kill()
    } else if (what < 0.5 && consumer && awake().length > 1) {
      paused.add(consumer)
      process.kill(consumer.pid, 'SIGSTOP')
    } else if (what < 0.65 && consumer && awake().length > 1) {
      running.delete(consumer)
      await consumer.stop()
    } else if (what < 0.8 && paused.size > 0) await wake()
    else if (gone) {
      running.add(gone)
      await gone.start()
    }
    for (let i = 0; i < 10; i++) await crew.topic.feed(5)
    // Whoever is left has it all, after a session at most, or it is his who is away.
    await until('all is claimed', async () => (await kafka.unclaimed(crew.topic.name, crew.topic.name)) === 0, 120)
  }
  await mend?.()
  await wake()
  await Promise.all([...crew.members.values()].filter((each) => !running.has(each)).map((each) => each.start()))
  await crew.whole()
  await Promise.all(Array.from(crew.members.values(), (consumer) => consumer.stop()))
  await Promise.all(Array.from(crew.members.values(), (consumer) => consumer.start()))
  await crew.fed()
  await crew.whole()
})
