/** docs/format.md is what others build upon: it has to say what the encoder does. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { decode } from '@msgpack/msgpack'
import { expect, it } from 'vitest'
import { ChunkEncoder, MAX_DATA_BYTES, MAX_LINES, VERSION } from '../../wire/chunk.ts'
import { JSON_CONTENT_TYPE, JsonLineEncoder } from '../../wire/json-line.ts'
import { CHUNK_CONTENT_TYPE, DEFAULT_TOPIC, recordHeaders } from '../../wire/record.ts'
import { chunkOf } from '../support/chunk.ts'
import { MAX_LINE_BYTES } from '../support/printed.ts'

const doc = readFileSync(join(import.meta.dirname, '../../docs/format.md'), 'utf8')

/** The cells of each row of the table that has `heading` on top. */
const table = (heading: string): string[][] =>
  (doc.split('\n\n').find((block) => block.startsWith(`| ${heading} |`)) ?? '')
    .split('\n')
    .slice(2)
    .map((row) =>
      row
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )

const names = (heading: string) => table(heading).map(([name]) => name?.replaceAll('`', ''))
const row = (heading: string, name: string) => table(heading).find(([first]) => first?.includes(name)) ?? []

/** A chunk that has everything that one can have. */
const FULL = chunkOf({
  run: '00'.repeat(16),
  service: 's',
  module: 'm',
  host: 'h',
  container: { id: 'i', name: 'n', image: 'g' },
  attrs: {},
  first: [1, 1],
  lines: [{ source: 'stdout', number: 1, time: '1', flags: ['continued', 'unterminated'], text: 'x' }],
  lost: [{ source: 'stdout', from: 1, count: 1, reason: 'r' }],
  end: [1, 0],
})
const full = decode(new ChunkEncoder().encode(FULL)) as Record<string, object> & { ctr: object; lost: [object] }

it('the table of keys has those that are written, no others', () => {
  expect(names('key')).toEqual(Object.keys(full))
  for (const key of Object.keys(full.ctr)) expect(row('key', '`ctr`').at(-1)).toContain(`\`${key}\``)
  for (const key of Object.keys(full.lost[0])) expect(row('key', '`lost`').at(-1)).toContain(`\`${key}\``)
  expect(row('key', '`v`').at(-1)).toMatch(new RegExp(`: ${VERSION}$`))
})

it('the table of fields has those of a JSON line, no others', () => {
  const values: string[] = []
  new JsonLineEncoder(FULL).encode(FULL, (value) => values.push(Buffer.from(value).toString()))
  expect(names('field').filter((name) => name !== 'base64')).toEqual(Object.keys(JSON.parse(values[0]!)))
})

it('the headers are those that are written', () => {
  expect(names('header')).toEqual(Object.keys(recordHeaders({ service: 's', module: 'm', host: 'h' })))
  expect(row('header', 'content-type').at(-1)).toBe(`\`${CHUNK_CONTENT_TYPE}\`, or \`${JSON_CONTENT_TYPE}\``)
  expect(doc).toContain(`| topic | \`${DEFAULT_TOPIC}\`, `)
})

it('the limits are those of the code', () => {
  const written = table('limit').map((cells) => cells[1]?.replace(/;.*/, ''))
  expect(written.slice(0, 3)).toEqual([MAX_LINES, MAX_DATA_BYTES, MAX_LINE_BYTES].map((n) => n.toLocaleString('en')))
})
