/** The command as a process, against a server that does what a real one cannot be made to do just then. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { literal, patternOf } from '../../cli/grep.ts'
import { ranked } from '../../cli/picker.ts'
import { readTokens } from '../../consumer/tokens.ts'
import { type Answer, FakeConsumer } from '../support/fake-consumer.ts'
import { temporaryFolder } from '../support/folder.ts'
import { logLine } from '../support/log-line.ts'
import { bundled, type CommandOptions, Tallyman, tallyman } from '../support/tallyman.ts'

const end = (part: object = {}) => ({ type: 'end', lines: 0, limited: false, partial: [], ...part })

const folder = temporaryFolder()
let program: readonly string[]
beforeAll(async () => {
  program = await bundled(folder.path)
})
afterAll(() => folder[Symbol.dispose]())

const at = (...consumers: FakeConsumer[]): CommandOptions => ({
  url: consumers.map(({ server }) => server.url.href).join(),
  program,
})
const found: Answer = (_, reply) => reply.end({ ...logLine(0), matches: [[0, 4]] }, end())

describe('grep', () => {
  it.each([
    ['0 where a line matches', found, ['x', 'shop/api'], 0, ''],
    ['1 where none does', (_, reply) => reply.end(end()), ['x', 'shop/api'], 1, ''],
    [
      '2 where something is missing',
      (_, reply) => reply.end(logLine(0), end({ partial: [{ file: 'a.log', message: 'EIO' }] })),
      ['x', '*'],
      2,
      'missing here: a.log: EIO',
    ],
    [
      '0 where it is quiet, whatever is missing',
      (_, reply) => reply.end(logLine(0), end({ partial: [{ message: 'EIO' }] })),
      ['-q', 'x', '*'],
      0,
      'EIO',
    ],
    [
      '2 where the pattern is none',
      (_, reply) => reply.json(400, { error: 'QUERY_INVALID', message: 'pattern: unclosed group' }),
      ['(', '*'],
      2,
      'pattern: unclosed group (QUERY_REFUSED)',
    ],
    ['2 where the answer breaks off', (_, reply) => reply.end(logLine(0)), ['x', '*'], 2, 'broke off (BROKEN_OFF)'],
    [
      '2 where no token is given',
      (_, reply) => reply.json(401, { error: 'TOKEN_MISSING', message: 'a token is needed' }),
      ['x', '*'],
      2,
      'TALLYMAN_TOKEN',
    ],
    [
      '0, and says so, where the output is cut',
      (_, reply) => reply.end(logLine(0), end({ limited: true })),
      ['-m', '1', 'x', '*'],
      0,
      'cut after 1 lines that match, there are more',
    ],
  ] satisfies [string, Answer, string[], number, string][])('ends with %s', async (_, answer, args, code, said) => {
    await using consumer = await FakeConsumer.start({ search: answer })
    const ran = await tallyman(at(consumer), 'grep', ...args)
    expect(ran.stderr).toContain(said)
    expect(ran.code).toBe(code)
  })

  it('with a server that is away answers by the others, says which is missing, and ends with 2', async () => {
    await using consumer = await FakeConsumer.start({ search: found })
    const ran = await tallyman(
      { ...at(consumer), url: `${consumer.server.url},http://127.0.0.1:1` },
      'grep',
      'line',
      'shop/api',
    )
    expect(ran.stdout).toContain('line 0')
    expect(ran.stderr).toMatch(/no consumer answers at http:\/\/127\.0\.0\.1:1/)
    expect(ran.code).toBe(2)
  })

  it('of several servers is cut by what they found together, and says so', async () => {
    await using one = await FakeConsumer.start({ search: found })
    await using two = await FakeConsumer.start({ search: found })
    const ran = await tallyman(at(one, two), 'grep', '-m', '1', 'line', 'shop/api')
    expect(ran).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^.* line 0\n$/),
      stderr: expect.stringContaining('cut after 1'),
    })
  })

  it('puts what is found file by file in the order of time, a day at a time', async () => {
    const [a, b] = ['a', 'b'].map((module, i) => [0, 2, 4].map((n) => logLine(n + i, { module })))
    const next = logLine(1, { file: 'shop/a/2026-11-24.log', line: 'the next day' })
    await using consumer = await FakeConsumer.start({ search: (_, reply) => reply.end(...b!, ...a!, next, end()) })
    const text = async (...args: string[]) =>
      (await tallyman(at(consumer), 'grep', '--output', 'raw', ...args, '', '*')).stdout
    expect(await text()).toBe(`${[0, 1, 2, 3, 4, 5].map((n) => `line ${n}\n`).join('')}the next day\n`)
    expect(await text('--no-sort')).toBe(`${[1, 3, 5, 0, 2, 4].map((n) => `line ${n}\n`).join('')}the next day\n`)
  })

  it('counts by module, or one number for one, and names files', async () => {
    const counts = [
      { type: 'count', file: 'shop/web/2026-11-22.log', service: 'shop', module: 'web', lines: 2 },
      { type: 'count', file: 'shop/api/2026-11-22.log', service: 'shop', module: 'api', lines: 3 },
      { type: 'count', file: 'shop/api/2026-11-23.log', service: 'shop', module: 'api', lines: 4 },
    ]
    await using consumer = await FakeConsumer.start({ search: (_, reply) => reply.end(...counts, end()) })
    const text = async (...args: string[]) => (await tallyman(at(consumer), 'grep', ...args)).stdout
    expect(await text('-c', 'x', '*')).toBe('shop/api:7\nshop/web:2\n')
    expect(await text('-c', 'x', 'shop/api')).toBe('9\n')
    expect(await text('-l', 'x', '*')).toBe(
      'shop/api/2026-11-22.log\nshop/api/2026-11-23.log\nshop/web/2026-11-22.log\n',
    )
  })

  it('prints what matched alone, with -o', async () => {
    const line = {
      ...logLine(0, { line: 'id=7 id=8' }),
      matches: [
        [3, 4],
        [8, 9],
      ],
    }
    await using consumer = await FakeConsumer.start({ search: (_, reply) => reply.end(line, end()) })
    expect((await tallyman(at(consumer), 'grep', '-o', '--output', 'raw', '\\d', '*')).stdout).toBe('7\n8\n')
  })

  it('parts what does not adjoin, with context', async () => {
    const context = (n: number) => ({ ...logLine(n), context: true })
    await using consumer = await FakeConsumer.start({
      search: (_, reply) => reply.end(context(0), logLine(1), { type: 'separator' }, context(5), logLine(6), end()),
    })
    const { stdout } = await tallyman(at(consumer), 'grep', '-B1', '--output', 'raw', 'x', 'shop/api')
    expect(stdout).toBe('line 0\nline 1\n--\nline 5\nline 6\n')
    expect(consumer.asked[0]!.query.get('before')).toBe('1')
  })

  it('ended by Ctrl-C ends the search on the server, with 130', async () => {
    const { promise: gone, resolve } = Promise.withResolvers<void>()
    await using consumer = await FakeConsumer.start({
      search: async (_, reply) => {
        reply.send(logLine(0))
        await reply.left
        resolve()
      },
    })
    await using search = Tallyman.start(at(consumer), 'grep', 'x', 'shop/api')
    await search.prints('line 0')
    search.process.kill('SIGINT')
    await gone
    expect((await search.ended()).code).toBe(130)
  })

  it('that takes long shows how far it is, at a terminal alone, and leaves nothing of that behind', async () => {
    const progress = { type: 'progress', files: 1, filesTotal: 4, bytes: 25e6, bytesTotal: 1e8, matched: 3 }
    const { promise: seen, resolve } = Promise.withResolvers<void>()
    const long: Answer = async (_, reply) => {
      const tick = setInterval(() => reply.send(progress), 20)
      await seen
      clearInterval(tick)
      reply.end(logLine(0), end())
    }
    await using consumer = await FakeConsumer.start({ search: long })
    await using search = Tallyman.atTerminal(at(consumer), 'grep', '--output', 'raw', 'line', 'shop/api')
    await search.prints('25 % of 100 MB searched, 3 lines match')
    resolve()
    const { code, stdout } = await search.ended()
    expect(code).toBe(0)
    expect(stdout.endsWith('\r\x1b[Kline 0\r\n')).toBe(true)
    const piped = await tallyman(at(consumer), 'grep', 'line', 'shop/api')
    expect(piped.stderr).toBe('')
  })

  it('whose reader leaves ends quietly', async () => {
    await using consumer = await FakeConsumer.start({
      lines: (_, reply) => void Readable.from(endless()).pipe(reply.response),
    })
    const script = `set -o pipefail; ${program.map((word) => `'${word}'`).join(' ')} cat shop/api | head -n 3`
    const out = execOf(script, at(consumer).url)
    expect(await out).toEqual({ code: 0, stdout: expect.stringMatching(/^(.* line [012]\n){3}$/), stderr: '' })
  })

  it('takes several patterns as alternatives, and texts for what they are', () => {
    expect(patternOf(['a|b'], false)).toEqual({ pattern: 'a|b', fixed: false })
    expect(patternOf(['a.b'], true)).toEqual({ pattern: 'a.b', fixed: true })
    expect(patternOf(['a|b', 'c\nd'], false)).toEqual({ pattern: '(?:a|b)|(?:c)|(?:d)', fixed: false })
    expect(patternOf(['a.b', '[c'], true)).toEqual({ pattern: 'a\\.b|\\[c', fixed: false })
    expect(new RegExp(`^${literal('.*+?()|[]{}^$\\')}$`).test('.*+?()|[]{}^$\\')).toBe(true)
  })
})

function* endless(): Generator<string> {
  for (let n = 0; ; n++) yield `${JSON.stringify(logLine(n))}\n`
}

/** Runs a script of bash, with the command's environment. */
async function execOf(script: string, url: string) {
  return tallyman({ url, program: ['/bin/bash', '-c', script] })
}

describe('a tail of several servers', () => {
  const tail: (text: string) => Answer = (text) => (_, reply) =>
    reply.send(logLine(0, { line: text }), { type: 'cursor', cursor: 'c' })

  it('says which does not answer, goes on, and takes it in when it does', { timeout: 60_000 }, async () => {
    await using one = await FakeConsumer.start({ tail: tail('of one') })
    let answers = false
    await using two = await FakeConsumer.start({
      tail: (query, reply, request) =>
        answers ? tail('of two')(query, reply, request) : reply.json(503, { error: 'BUSY', message: 'not now' }),
    })
    await using follow = Tallyman.start(at(one, two), 'tail', '-f', 'shop/api', '-o', 'raw')
    await follow.prints('of one\n')
    await follow.says(/not now\. Its lines are missing/)
    answers = true
    await follow.prints('of two\n')
    await follow.says(/answers now/)
    follow.process.kill('SIGINT')
    expect((await follow.ended()).stdout).toBe('of one\nof two\n')
  })

  it('none of which answers ends with 2', async () => {
    const { code, stderr } = await tallyman(
      { ...at(), url: 'http://127.0.0.1:1,http://127.0.0.1:2' },
      'tail',
      '-f',
      'a/b',
    )
    expect(code).toBe(2)
    expect(stderr).toContain('(UNREACHABLE)')
  })

  it('shows the last lines of all of them together, in order', async () => {
    const lines =
      (from: number): Answer =>
      (_, reply) =>
        reply.send(...[0, 2, 4].map((n) => logLine(from + n)), { type: 'cursor', cursor: 'c' })
    await using one = await FakeConsumer.start({ tail: lines(1) })
    await using two = await FakeConsumer.start({ tail: lines(0) })
    await using follow = Tallyman.start(at(one, two), 'tail', '-f', '-n', '3', 'shop/api', '-o', 'raw')
    await follow.prints('line 5\n')
    follow.process.kill('SIGINT')
    expect((await follow.ended()).stdout).toBe('line 3\nline 4\nline 5\n')
  })
})

describe('several servers that ask each other', () => {
  it('are counted once', async () => {
    const module = {
      service: 'shop',
      module: 'api',
      days: 1,
      files: 1,
      lines: 7,
      bytes: 70,
      lost: 0,
      rate: [],
      hosts: [],
      containers: [],
    }
    const times = { first: '2026-11-23T08:00:00Z', last: '2026-11-23T08:00:00Z' }
    const answers = (...roots: string[]): Record<string, Answer> => ({
      status: (_, reply) => reply.json(200, { consumers: roots.map((root) => ({ root })), partial: [] }),
      services: (_, reply) => reply.json(200, { modules: [{ ...module, ...times }], partial: [] }),
    })
    await using one = await FakeConsumer.start(answers('a', 'b'))
    await using two = await FakeConsumer.start(answers('b', 'a'))
    await using three = await FakeConsumer.start(answers('c'))
    expect((await tallyman(at(one, two), 'ls', '--json')).stdout.trim().split('\n').length).toBe(1)
    expect((await tallyman(at(one, two, three), 'ls', '--json')).stdout.trim().split('\n').length).toBe(2)
  })
})

describe('disown', () => {
  const root = 'c6b577de-2c90-482a-825e-424e09ebdb9b'
  const claims = { root, state: 'claimed', partitions: [0, 3], lines: 1234 }
  const answers: Record<string, Answer> = {
    roots: (_, reply) => reply.json(200, { roots: [claims] }),
    [`roots/${root}/disown`]: (_, reply) => reply.json(200, { ...claims, state: 'disowned' }),
  }
  const posts = ({ asked }: FakeConsumer): number => asked.filter(({ path }) => path.endsWith('/disown')).length

  it('lists what is waited for, and gives a root up only where somebody says so', async () => {
    await using consumer = await FakeConsumer.start(answers)
    expect((await tallyman(at(consumer), 'disown')).stdout).toMatch(new RegExp(`${root} +claimed +0 3 +1,234\n`))
    expect(await tallyman(at(consumer), 'disown', root)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--yes'),
    })
    expect(await tallyman(at(consumer), 'disown', 'x')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(root),
    })
    expect(posts(consumer)).toBe(0)
    expect((await tallyman(at(consumer), 'disown', root, '--yes')).stdout).toContain('at most 1,234 lines')
    expect(posts(consumer)).toBe(1)
  })

  it.each([
    ['y\r', 0, 1],
    ['\r', 1, 0],
    ['\x04', 1, 0],
    ['\x03', 130, 0],
  ])('at a terminal asks, and %j ends it with %i', async (keys, code, posted) => {
    await using consumer = await FakeConsumer.start(answers)
    await using asked = Tallyman.atTerminal(at(consumer), 'disown', root)
    await asked.prints('[y/N]')
    asked.type(keys)
    expect((await asked.ended()).code).toBe(code)
    expect(posts(consumer)).toBe(posted)
  })
})

describe('completion', () => {
  const services: Answer = (_, reply) =>
    reply.json(200, {
      modules: [
        { service: 'shop', module: 'api', hosts: ['host-1'], containers: ['api-1'], last: '2' },
        { service: 'shop', module: '$(reboot)', hosts: [], containers: ['web;1'], last: '1' },
      ],
      partial: [],
    })

  it.each([
    ['what there is to do', ['ta'], ['tail']],
    ['options', ['tail', '--inc'], ['--include']],
    ['values of an option', ['tail', '-o', ''], ['text', 'raw', 'json']],
    ['modules and containers, but none that a shell would run', ['tail', ''], ['api-1', 'shop/api']],
    ['no pattern', ['grep', ''], []],
    ['targets behind a pattern', ['grep', 'x', 'sh'], ['shop/api']],
    ['targets behind -e', ['grep', '-e', 'x', 'sh'], ['shop/api']],
    ['hosts', ['tail', '--host', ''], ['host-1']],
    ['shells', ['completion', 'z'], ['zsh']],
  ])('knows %s', async (_, words, expected) => {
    await using consumer = await FakeConsumer.start({ services })
    const { stdout } = await tallyman(at(consumer), 'complete-words', '--', ...words)
    expect(
      stdout
        .split('\n')
        .filter(Boolean)
        .map((line) => line.split('\t')[0])
        .sort(),
    ).toEqual([...expected].sort())
  })

  it('in bash fills in the word, and says nothing where no consumer answers', async () => {
    await using consumer = await FakeConsumer.start({ services })
    mkdirSync(join(folder.path, 'bin'))
    const wrapper = `#!/bin/sh\nexec ${program.map((word) => `'${word}'`).join(' ')} "$@"\n`
    writeFileSync(join(folder.path, 'bin/tallyman'), wrapper, { mode: 0o755 })
    const script = `PATH='${folder.path}/bin':$PATH; source <(tallyman completion bash)
COMP_WORDS=(tallyman tail sh); COMP_CWORD=2; _tallyman; echo "\${COMPREPLY[*]}"
TALLYMAN_URL=http://127.0.0.1:1; COMP_WORDS=(tallyman tail ''); _tallyman; echo "\${#COMPREPLY[*]}"`
    expect(await execOf(script, at(consumer).url)).toEqual({ code: 0, stdout: 'shop/api\n0\n', stderr: '' })
  })
})

describe('the picker', () => {
  const names = ['shop/api', 'shop/web', 'bank/teller', 'shop/admin-api']
  it.each([
    ['', names],
    ['sapi', ['shop/api', 'shop/admin-api']],
    ['bte', ['bank/teller']],
    ['api', ['shop/api', 'shop/admin-api']],
    ['zzz', []],
  ])('ranks by %j', (typed, expected) => {
    expect(ranked(names, typed)).toEqual(expected)
  })
})

it("a token's line is one that the consumer takes, and the token is told apart from it", async () => {
  const { stdout, stderr, code } = await tallyman(at(), 'token', 'ci', 'shop', 'bank-*')
  expect(code).toBe(0)
  writeFileSync(join(folder.path, 'tokens'), stdout)
  expect(readTokens(join(folder.path, 'tokens'))).toMatchObject([{ name: 'ci', services: ['shop', 'bank-*'] }])
  const token = /once: (\S{43})\n/.exec(stderr)![1]!
  const sha256 = execFileSync('sha256sum', { input: token }).toString().slice(0, 64)
  expect(JSON.parse(stdout).sha256).toBe(sha256)
})

it.each([
  [['tail', '-n', 'x', 'a/b'], /number from 0 to 100,000/],
  [['tail', '-n', '100001', 'a/b'], /number from 0 to 100,000/],
  [['tail', 'a/b/c'], /is no target/],
  [['tail'], /say whose lines/],
  [['tail', '--since', 'soon', 'a/b'], /'soon' is no time/],
  [['cat', '--since', 'now', '--until', '10m', 'a/b'], /is not before/],
  [['tail', '-f', '--until', 'now', 'a/b'], /never comes to --until/],
  [['tail', '--highlight', '(', 'a/b'], /--highlight: /],
  [['tail', '--server', 'prod', 'a/b'], /there is no server 'prod'/],
  [['grep'], /say what to look for/],
  [['tial'], /unknown command.*tail/s],
  [['tail', '--tial'], /unknown option/],
  [['completion', 'tcsh'], /bash, zsh, fish/],
])('%j is refused in words, with status 2', async (args, message) => {
  const { code, stdout, stderr } = await tallyman({ ...at(), url: 'http://127.0.0.1:1' }, ...args)
  expect(stderr).toMatch(message)
  expect(stdout).toBe('')
  expect(code).toBe(2)
})
