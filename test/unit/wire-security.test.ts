import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { kafkaSecurity } from '../../wire/security.ts'
import { commonSettings, readSettings } from '../../wire/settings.ts'
import { temporaryFolder } from '../support/folder.ts'

const schema = z.object(commonSettings)
const read = (env: Record<string, string>) => readSettings(schema, env)

describe('how a connection to Kafka is secured', () => {
  it('not at all unless it is said', () => {
    expect(kafkaSecurity(read({}))).toEqual({})
  })

  it('by TLS, certificates and a password from files, as they are when a client is made', () => {
    using folder = temporaryFolder()
    const file = (name: string, content: string) => {
      writeFileSync(join(folder.path, name), content)
      return join(folder.path, name)
    }
    const settings = read({
      KAFKA_TLS: 'true',
      KAFKA_CA_FILE: file('ca', 'CA'),
      KAFKA_CERT_FILE: file('cert', 'CERT'),
      KAFKA_KEY_FILE: file('key', 'KEY'),
      KAFKA_SASL_MECHANISM: 'scram-sha-512',
      KAFKA_SASL_USERNAME: 'me',
      KAFKA_SASL_PASSWORD_FILE: file('password', 'old\n'),
    })
    const ssl = { ca: ['CA'], cert: 'CERT', key: 'KEY' }
    const sasl = { mechanism: 'scram-sha-512', username: 'me', password: 'old' }
    expect(kafkaSecurity(settings)).toEqual({ ssl, sasl })
    file('password', 'new')
    expect(kafkaSecurity(settings)).toEqual({ ssl, sasl: { ...sasl, password: 'new' } })
  })

  it.each([
    [{ KAFKA_TLS: 'yes' }, /KAFKA_TLS=yes: must be true or false/],
    [{ KAFKA_CA_FILE: 'ca.pem' }, /KAFKA_CA_FILE=ca.pem: must be an absolute path/],
    [{ KAFKA_SASL_MECHANISM: 'oauth' }, /KAFKA_SASL_MECHANISM=oauth: must be plain, scram-sha-256 or scram-sha-512/],
    [{ KAFKA_TLS: 'true', KAFKA_CA_FILE: '/none' }, /KAFKA_CA_FILE=\/none: can't be read: ENOENT/],
    [{ KAFKA_CA_FILE: '/etc/hostname' }, /KAFKA_CA_FILE is set, but KAFKA_TLS is not true/],
    [{ KAFKA_TLS: 'true', KAFKA_CERT_FILE: '/etc/hostname' }, /KAFKA_CERT_FILE and KAFKA_KEY_FILE go together/],
    [{ KAFKA_SASL_USERNAME: 'me' }, /KAFKA_SASL_USERNAME or a password is set, but KAFKA_SASL_MECHANISM is not/],
  ])('%j is refused in words', (env, message) => {
    expect(() => read(env)).toThrow(message)
  })

  it('every mistake is named at once', () => {
    const mistakes = { KAFKA_SASL_MECHANISM: 'plain', KAFKA_KEY_FILE: '/none' }
    expect(() => read(mistakes)).toThrow(
      /KAFKA_KEY_FILE is set, but.*go together.*needs KAFKA_SASL_USERNAME.*needs KAFKA_SASL_PASSWORD.*\/none: can't be read/s,
    )
  })
})
