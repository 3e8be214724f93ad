import { describe, expect, it } from 'vitest'
import { settingsSchema } from '../../consumer/settings.ts'
import { readSettings, type SettingsError } from '../../wire/settings.ts'

const read = (env: Record<string, string>) => readSettings(settingsSchema, env, ['KAFKA_'])

describe("the consumer's settings", () => {
  it('have defaults', () => {
    expect(read({})).toEqual({
      KAFKA_BROKERS: ['127.0.0.1:9092'],
      KAFKA_TOPIC: 'tallyman',
      KAFKA_CLIENT_ID: 'tallyman',
      KAFKA_TLS: false,
      LOG_LEVEL: 'info',
      KAFKA_GROUP: 'tallyman',
      KAFKA_PARTITIONS: 12,
      KAFKA_REPLICATION: 2,
      ROOT: '/var/log/tallyman',
      TZ_FILES: 'UTC',
      LINE_FORMAT: 'text',
      KEEP_DAYS: 7,
      OPEN_FILES: 256,
      HTTP_ADDR: { host: '127.0.0.1', port: 4680 },
    })
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
