/** Settings from the environment: a bad deployment is told everything that is wrong with it at once. */
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { address, commonSettings, readSettings, SettingsError, unknownKey } from '../../wire/settings.ts'

const schema = z.object({
  ...commonSettings,
  HTTP_ADDR: address.default({ host: '127.0.0.1', port: 4680 }),
  ROOT: z.string({ error: 'is required' }),
})

const read = (env: Record<string, string | undefined>, prefixes: string[] = []) =>
  readSettings(schema, { ROOT: '/var/log/tallyman', ...env }, prefixes)

/** What SettingsError says of each mistake. */
function problems(env: Record<string, string | undefined>, prefixes: string[] = []): readonly string[] {
  try {
    read(env, prefixes)
  } catch (error) {
    expect(error).toBeInstanceOf(SettingsError)
    for (const problem of (error as SettingsError).problems) expect((error as Error).message).toContain(problem)
    return (error as SettingsError).problems
  }
  return []
}

describe('settings', () => {
  it('that nobody gave are the defaults', () => {
    expect(read({})).toEqual({
      KAFKA_BROKERS: ['127.0.0.1:9092'],
      KAFKA_TOPIC: 'tallyman',
      KAFKA_CLIENT_ID: 'tallyman',
      KAFKA_TLS: false,
      LOG_LEVEL: 'info',
      HTTP_ADDR: { host: '127.0.0.1', port: 4680 },
      ROOT: '/var/log/tallyman',
    })
  })

  it('that are empty count as not given', () => {
    expect(read({ KAFKA_BROKERS: '', KAFKA_TOPIC: '', LOG_LEVEL: '', HTTP_ADDR: '' })).toEqual(read({}))
    expect(problems({ ROOT: '' })).toEqual([expect.stringMatching(/^ROOT/)])
  })

  it('are read from what was given', () => {
    const { KAFKA_BROKERS, HTTP_ADDR, LOG_LEVEL } = read({
      KAFKA_BROKERS: ' a:9092, b.example:19092 ,,[::1]:9092',
      HTTP_ADDR: '[::]:80',
      LOG_LEVEL: 'warn',
    })
    expect(KAFKA_BROKERS).toEqual(['a:9092', 'b.example:19092', '[::1]:9092'])
    expect(HTTP_ADDR).toEqual({ host: '::', port: 80 })
    expect(LOG_LEVEL).toBe('warn')
  })

  it('with several mistakes name every one of them, with the value', () => {
    const told = problems(
      {
        KAFKA_BROKERS: 'kafka',
        KAFKA_TOPIC: 'a topic',
        LOG_LEVEL: 'loud',
        HTTP_ADDR: '80',
        ROOT: undefined,
        KAFKA_TOPPIC: 'x',
      },
      ['KAFKA_'],
    )
    expect(told).toHaveLength(6)
    expect(told).toContainEqual(expect.stringMatching(/^KAFKA_BROKERS=kafka: must be host:port/))
    expect(told).toContainEqual(expect.stringMatching(/^KAFKA_TOPIC=a topic: must be a Kafka topic name/))
    expect(told).toContainEqual(expect.stringMatching(/^LOG_LEVEL=loud: .*error.*trace/))
    expect(told).toContainEqual(expect.stringMatching(/^HTTP_ADDR=80: must be host:port/))
    expect(told).toContainEqual(expect.stringMatching(/^ROOT/))
    expect(told).toContainEqual(
      expect.stringMatching(/^KAFKA_TOPPIC is not known; the nearest known one is KAFKA_TOPIC/),
    )
  })

  it.each([
    '',
    ':9092',
    'kafka:',
    'kafka:port',
    'kafka:0',
    'kafka:65536',
    'a:1,b',
    'a b:9092',
    'http://kafka:9092',
    ',',
  ])('refuse the brokers %j', (KAFKA_BROKERS) => {
    if (KAFKA_BROKERS === '') expect(read({ KAFKA_BROKERS }).KAFKA_BROKERS).toEqual(['127.0.0.1:9092'])
    else expect(problems({ KAFKA_BROKERS })).toHaveLength(1)
  })

  it.each(['4680', ':4680', 'localhost:', 'localhost:65536', 'localhost:http', 'a:1:2', '::1:80'])(
    'refuse the address %j',
    (HTTP_ADDR) => {
      expect(problems({ HTTP_ADDR })).toEqual([`HTTP_ADDR=${HTTP_ADDR}: must be host:port`])
    },
  )

  it('take port 0 as any free one to listen on', () => {
    expect(read({ HTTP_ADDR: '127.0.0.1:0' }).HTTP_ADDR).toEqual({ host: '127.0.0.1', port: 0 })
  })

  it('leave alone what is not ours', () => {
    expect(problems({ PATH: '/bin', KAFKA_TOPPIC: 'x' })).toEqual([])
    expect(problems({ PATH: '/bin', KAFKA_TOPPIC: 'x' }, ['KAFKA_'])).toHaveLength(1)
  })
})

it('an unknown key names the nearest known one', () => {
  expect(unknownKey('servce', ['module', 'service', 'mode'])).toContain('the nearest known one is service ')
  expect(unknownKey('modul', ['module', 'service', 'mode'])).toContain('the nearest known one is module ')
})
