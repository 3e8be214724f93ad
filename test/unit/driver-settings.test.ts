import { describe, expect, it } from 'vitest'
import { settingsSchema } from '../../driver/settings.ts'
import { readSettings } from '../../wire/settings.ts'

const names = Object.keys(settingsSchema.shape)

describe("the plugin's settings", () => {
  it('have defaults in the code', () => {
    expect(readSettings(settingsSchema, Object.fromEntries(names.map((name) => [name, ''])))).toEqual({
      KAFKA_BROKERS: ['127.0.0.1:9092'],
      KAFKA_TOPIC: 'tallyman',
      KAFKA_CLIENT_ID: 'tallyman',
      KAFKA_TOPICS_ALLOWED: [],
      KAFKA_COMPRESSION: 'zstd',
      KAFKA_ACKS: 'all',
      LINGER: 10,
      JOURNAL_SYNC: 1000,
      KAFKA_TLS: false,
      LOG_LEVEL: 'info',
      JOURNAL_MAX: 2 * 1024 ** 3,
      METRICS_ADDR: { host: '127.0.0.1', port: 9463 },
      HOST_NAME: '',
      RUNS_MAX: 1000,
    })
  })

  it.each([
    ['67108864', 64 * 1024 ** 2],
    ['512m', 512 * 1024 ** 2],
    ['1G', 1024 ** 3],
    ['70000kb', 70_000 * 1024],
  ])('JOURNAL_MAX=%s is taken', (text, bytes) => {
    expect(readSettings(settingsSchema, { JOURNAL_MAX: text }).JOURNAL_MAX).toBe(bytes)
  })

  it.each(['2 g', '-1g', 'lots', '1m'])('JOURNAL_MAX=%s is refused', (text) => {
    expect(() => readSettings(settingsSchema, { JOURNAL_MAX: text })).toThrow(`JOURNAL_MAX=${text}: must be`)
  })
})
