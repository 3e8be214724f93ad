/** Records that can't be decoded: kept up to a limit, told, and replayed. */
import { mkdirSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { deadLetterRoutes } from '../../consumer/dead-letter-routes.ts'
import { DeadLetters } from '../../consumer/dead-letters.ts'
import { replay } from '../../consumer/replay.ts'
import { JSON_CONTENT_TYPE } from '../../wire/json-line.ts'
import { temporaryFolder } from '../support/folder.ts'
import { Api } from '../support/http-api.ts'
import { filesOf, Life, NOON, type Stored, topicOf } from '../support/landing.ts'

const DAY_MS = 86_400_000
const FILE = 's/m/2026-11-23.log'
/** A letter of some bytes takes up a block for itself and one for what is known of it. */
const LETTER_BYTES = 8192

const [first, second, third] = topicOf(
  [1, 2, 3].map((first) => ({ partition: 0, module: 'm', run: 1, first, count: 1 })),
) as [Stored, Stored, Stored]

/** A record like another one. */
const like = ({ partition, message }: Stored, differing: object): Stored => ({
  partition,
  message: { ...message, ...differing } as Stored['message'],
})

const garbage = (offset: number, partition = 0, service = 's'): Stored =>
  like(
    { ...first, partition },
    { value: Buffer.from(`garbage ${offset}`), offset: String(offset), headers: { service } },
  )

/** The record under the headers of another format: it can't be read by them. */
const mislabelled = (stored: Stored): Stored =>
  like(stored, { headers: { 'content-type': JSON_CONTENT_TYPE, service: 's' } })

const numbersIn = (root: string) => filesOf(root)[FILE]?.match(/c1 \d+/g)

describe('dead letters', () => {
  it('beyond their limit are not kept, and counted with their offsets, also over a kill', async () => {
    using root = temporaryFolder()
    const life = new Life(root.path, 4, 'text', undefined, 2 * LETTER_BYTES)
    for (const offset of [0, 1, 2, 3]) await life.land(garbage(offset))
    await life.land(garbage(7, 1))
    life.end()
    const again = new Life(root.path, 4, 'text', undefined, 2 * LETTER_BYTES)
    // As after a kill that came before the checkpoint.
    for (const offset of [0, 1, 2, 3, 4]) await again.land(garbage(offset))
    expect(again.letters.kept).toEqual({ letters: 2, bytes: 2 * LETTER_BYTES })
    expect(again.letters.names).toEqual(['t-0-0', 't-0-1'])
    expect(again.letters.dropped).toEqual([
      { partition: 0, records: 3, bytes: 27, from: 2, to: 4 },
      { partition: 1, records: 1, bytes: 9, from: 7, to: 7 },
    ])
    again.letters.remove('t-0-0')
    await again.land(garbage(5))
    expect(again.letters.names).toEqual(['t-0-1', 't-0-5'])
    again.end()
  })

  it('on a disk that refuses them are tried again, kept or counted once', async () => {
    using root = temporaryFolder()
    const state = join(root.path, '.tallyman')
    const life = new Life(root.path, 4, 'text', undefined, LETTER_BYTES)
    // A folder in a file's place: what is written there is refused.
    const blockers = [join(state, 'dead-letters/t-0-0.value'), join(state, 'dropped.json.new')]
    for (const blocker of blockers) mkdirSync(blocker)
    const refused: string[] = []
    const insist = async (work: () => void) => {
      try {
        work()
      } catch (error) {
        refused.push((error as NodeJS.ErrnoException).code!)
        rmdirSync(blockers.shift()!)
        work()
      }
    }
    for (const { partition, message } of [garbage(0), garbage(1)]) await life.landing.land(partition, message, insist)
    expect(refused).toEqual(['EISDIR', 'EISDIR'])
    expect(life.letters.names).toEqual(['t-0-0'])
    expect(life.letters.dropped).toEqual([{ partition: 0, records: 1, bytes: 9, from: 1, to: 1 }])
    expect(life.letters.counts.dropped).toBe(1)
    life.end()
    const again = new Life(root.path, 4, 'text', undefined, LETTER_BYTES)
    expect(again.letters.dropped).toEqual(life.letters.dropped)
    again.end()
  })

  it.each(['', '\0\0\0\0', '{"partition":0}'])('whose count reads %j are counted anew', (text) => {
    using root = temporaryFolder()
    writeFileSync(join(root.path, 'dropped.json'), text)
    const warnings: unknown[] = []
    const log = pino({ level: 'warn' }, { write: (line) => void warnings.push(JSON.parse(line)) })
    expect(new DeadLetters({ state: root.path, max: 1, log }).dropped).toEqual([])
    expect(warnings).toEqual([expect.objectContaining({ file: join(root.path, 'dropped.json') })])
  })

  it('that are replayed land once and take the hole back, killed in between or not', async () => {
    using root = temporaryFolder()
    const life = new Life(root.path)
    for (const stored of [first, garbage(1), third]) await life.land(stored)
    // A version that can read it, later.
    const known = await life.letters.read('t-0-1')
    expect(known?.value.toString()).toBe('garbage 1')
    rmSync(join(root.path, '.tallyman/dead-letters'), { recursive: true })
    const letters = new DeadLetters({ state: join(root.path, '.tallyman'), max: 65536, log: pino({ level: 'silent' }) })
    const { message } = second
    letters.keep({ topic: 't', ...second, reason: 'unknown-version', text: '' })
    letters.keep({ topic: 't', ...garbage(9), reason: 'not-msgpack', text: '' })
    letters.keep({ topic: 'other', partition: 0, message, reason: 'unknown-version', text: '' })
    expect(life.ledger.state.totals.values().next().value?.lost).toEqual({ gap: 1 })

    const sent: Stored[] = []
    const send = async (records: { partition: number; value: Buffer; headers: Record<string, string> }[]) => {
      for (const { partition, value, headers } of records) {
        sent.push(like({ partition, message }, { value, headers, offset: String(100 + sent.length) }))
      }
    }
    const killed = async (records: Parameters<typeof send>[0]) => {
      await send(records)
      throw new Error('killed')
    }
    const may = () => true
    await expect(replay({ letters, topic: 't', send: killed }, letters.names, may)).rejects.toThrow('killed')
    expect(await replay({ letters, topic: 't', send }, letters.names, may)).toEqual({
      partial: [],
      replayed: [{ name: 't-0-1', lines: 1 }],
      failed: [
        { name: 'other-0-1', reason: 'other-topic', message: expect.any(String) },
        { name: 't-0-9', reason: 'not-msgpack', message: expect.any(String) },
      ],
    })
    expect(letters.names).toEqual(['other-0-1', 't-0-9'])
    expect(sent).toHaveLength(2)
    for (const stored of sent) await life.land(stored)
    life.save()
    expect(numbersIn(root.path)).toEqual(['c1 1', 'c1 3', 'c1 2'])
    expect(life.ledger.state.totals.values().next().value).toMatchObject({ written: 3, doubled: 1, lost: { gap: 0 } })
    life.end()
  })

  it('are removed with the days that are not kept', async () => {
    using root = temporaryFolder()
    const life = new Life(root.path)
    await life.land(garbage(1))
    await life.letters.expire(NOON)
    expect(life.letters.names).toEqual(['t-0-1'])
    await life.letters.expire(NOON + DAY_MS)
    expect(life.letters.names).toEqual([])
    expect(readdirSync(join(root.path, '.tallyman/dead-letters'))).toEqual([])
    expect(life.letters.counts.expired).toBe(1)
    life.end()
  })

  it('over HTTP: are listed and shown to whoever may read their service', async () => {
    using root = temporaryFolder()
    const life = new Life(root.path)
    for (const stored of [mislabelled(first), garbage(1), garbage(2, 0, 'secret'), garbage(10, 0, 's')]) {
      await life.land(stored)
    }
    const sent: unknown[] = []
    const routes = [
      deadLetterRoutes({ letters: life.letters, topic: 't', send: async (all) => void sent.push(...all) }),
    ]
    await using api = await Api.create({ all: ['*'], team: ['s'] }, { routes })
    const get = (name: string, path: string) =>
      api.server.inject({ url: `/api/v1/dead-letters${path}`, headers: api.as(name) })

    expect((await get('all', '?limit=2')).json()).toMatchObject({
      letters: [
        {
          name: 't-0-0',
          topic: 't',
          partition: 0,
          offset: 0,
          time: '2026-11-23T12:00:00.000Z',
          headers: { service: 's' },
        },
        { name: 't-0-1', reason: 'not-msgpack', bytes: 9 },
      ],
      ...{ limited: true, dropped: [], bytes: 4 * LETTER_BYTES },
    })
    const { letters, limited } = (await get('team', '')).json()
    expect(letters.map(({ name }: { name: string }) => name)).toEqual(['t-0-0', 't-0-1', 't-0-10'])
    expect(limited).toBe(false)
    expect((await get('team', '/t-0-1')).json()).toMatchObject({
      value: Buffer.from('garbage 1').toString('base64'),
      refused: { reason: 'not-msgpack' },
    })
    for (const name of ['t-0-2', 't-0-3', '..%2F..%2Fcheckpoint']) {
      expect((await get('team', `/${name}`)).statusCode, name).toBe(404)
    }
    const payload = { names: ['t-0-1', 't-0-2'] }
    const url = '/api/v1/dead-letters/replay'
    const replayed = await api.server.inject({ method: 'POST', url, headers: api.as('team'), payload })
    expect(replayed.json()).toEqual({ partial: [], replayed: [], failed: [expect.objectContaining({ name: 't-0-1' })] })
    expect(sent).toEqual([])
    life.end()
  })
})
