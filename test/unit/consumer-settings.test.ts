import { describe, expect, it } from 'vitest'
import { consumerSettings, settingsSchema } from '../../consumer/settings.ts'
import { readSettings, type SettingsError } from '../../wire/settings.ts'

const read = (env: Record<string, string>) => readSettings(settingsSchema, env, ['KAFKA_'])

describe("the consumer's settings", () => {
  it('have defaults', () => {
    expect(read({})).toEqual({
      COMPRESS: 'zst',
      DEAD_LETTERS_MAX: 64 * 1024 * 1024,
      COMPRESS_AFTER: 3_600_000,
      KAFKA_BROKERS: ['127.0.0.1:9092'],
      KAFKA_TOPIC: 'tallyman',
      KAFKA_CLIENT_ID: 'tallyman',
      KAFKA_TLS: false,
      LOG_LEVEL: 'info',
      KAFKA_GROUP: 'tallyman',
      KAFKA_FETCH_BYTES: 2 * 1024 * 1024,
      KAFKA_PARTITIONS: 12,
      KAFKA_REPLICATION: 2,
      ROOT: '/var/log/tallyman',
      TZ_FILES: 'UTC',
      LINE_FORMAT: 'text',
      KEEP_DAYS: 7,
      OPEN_FILES: 256,
      PEERS: [],
      HTTP_ADDR: { host: '127.0.0.1', port: 4680 },
      RATE_LIMIT: 3000,
      STREAMS_MAX: 64,
      SEARCHES_MAX: 4,
      SEARCH_IDLE: 120_000,
      TAIL_BUFFER: 4 * 1024 * 1024,
      TAIL_MEMORY: 128 * 1024 * 1024,
      INDEX_CACHE: 128 * 1024 * 1024,
    })
  })

  it.each(['0.0.0.0:4680', '[::]:4680', '10.1.2.3:4680', 'logs.example:4680'])(
    'do not serve everything to everybody at %s',
    (HTTP_ADDR) => {
      expect(() => consumerSettings({ HTTP_ADDR })).toThrow(/beyond loopback.*set TOKENS_FILE, or serve 127\.0\.0\.1/)
    },
  )

  it.each(['127.0.0.1:0', '127.9.9.9:80', '[::1]:80', 'localhost:80'])('need no token at %s', (HTTP_ADDR) => {
    expect(consumerSettings({ HTTP_ADDR }).TOKENS_FILE).toBeUndefined()
  })

  it.each([
    [{ TOKENS_FILE: '/none' }, /TOKENS_FILE=\/none can't be read: ENOENT/],
    [{ TOKENS_FILE: import.meta.filename, HTTP_ADDR: '0.0.0.0:80' }, /line 1: is no JSON object.*and \d+ more/],
    [{ TOKEN_FILE: '/etc/tokens' }, /TOKEN_FILE is not known; the nearest known one is TOKENS_FILE/],
    [{ TLS_CERT_FILE: '/none' }, /TLS_CERT_FILE and TLS_KEY_FILE go together/],
    [{ TLS_CERT_FILE: '/none', TLS_KEY_FILE: '/none' }, /TLS_CERT_FILE=\/none and TLS_KEY_FILE=\/none: ENOENT/],
  ])('%j are refused before anything is served', (env, message) => {
    expect(() => consumerSettings(env)).toThrow(message)
  })

  it('name every mistake at once', () => {
    const mistakes = {
      KAFKA_BROKERS: 'nowhere',
      KAFKA_PARTITION: '12',
      KAFKA_REPLICATION: 'two',
      ROOT: 'logs',
      TZ_FILES: 'Mars/Olympus',
      LINE_FORMAT: 'xml',
      HTTP_ADDR: '4680',
    }
    let problems: readonly string[] = []
    try {
      read(mistakes)
    } catch (error) {
      problems = (error as SettingsError).problems
    }
    expect(problems).toHaveLength(Object.keys(mistakes).length)
    for (const key of Object.keys(mistakes)) expect(problems.some((problem) => problem.startsWith(key))).toBe(true)
    expect(problems[0]).toContain('the nearest known one is KAFKA_PARTITIONS')
  })
})
