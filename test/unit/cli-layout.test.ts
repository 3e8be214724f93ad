import { describe, expect, it } from 'vitest'
import { moduleColour, useColours } from '../../cli/colours.ts'
import { type LayoutOptions, layout } from '../../cli/layout.ts'
import type { Line } from '../../consumer/api-schema.ts'
import { logLine } from '../support/log-line.ts'

const plain: LayoutOptions = {
  output: 'text',
  colours: false,
  terminal: false,
  names: true,
  unfold: false,
  highlight: [],
}
const printed = (line: Partial<Line>, options: Partial<LayoutOptions> = {}): string =>
  layout({ ...plain, ...options })(logLine(0, { time: '2026-11-23T08:00:00.000Z', ...line }))
const shown = (text: string, options: Partial<LayoutOptions> = {}): string =>
  printed({ line: text }, { terminal: true, output: 'raw', ...options }).slice(0, -1)

process.env['TZ'] = 'UTC'

describe('the layout text', () => {
  it('is time, module, container and line', () => {
    expect(printed({ line: 'ready' })).toBe('2026-11-23T08:00:00.000Z shop/api api-1 ready\n')
  })

  it('marks stderr', () => {
    expect(printed({ line: 'no', source: 'stderr' })).toBe('2026-11-23T08:00:00.000Z shop/api api-1! no\n')
  })

  it('of one module is the one of the files', () => {
    expect(printed({ line: 'ready' }, { names: false })).toBe('2026-11-23T08:00:00.000Z api-1 ready\n')
  })
})

describe('a line with control sequences', () => {
  it.each([
    ['a cursor that moves up and writes over others', '\x1b[2A\x1b[2Kgone', 'gone'],
    ['a title', 'a\x1b]0;mine\x07b', 'ab'],
    ['a clipboard, ended by ST', 'a\x1b]52;c;aGk=\x1b\\b', 'ab'],
    ['a link', '\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\', 'text'],
    ['a device control string', 'a\x1bP+q544e\x1b\\b', 'ab'],
    ['C1 in place of escapes', 'a\x9b2Jb\x9d0;t\x9cc', 'abc'],
    ['a reset of the terminal', 'a\x1bcb', 'ab'],
    ['another charset', 'a\x1b(0b', 'ab'],
    ['a return and backspaces', 'secret\r\b\b\bopen', 'secretopen'],
    ['a sequence that never ends', 'a\x1b]0;b c', 'a0;b c'],
    ['an escape at the end', 'a\x1b', 'a'],
    ['tabs, which stay', 'a\tb', 'a\tb'],
    ['a private SGR-alike', 'a\x1b[>4;1mb\x1b[?25lc', 'abc'],
  ])('shows %s as harmless text', (_, line, expected) => {
    expect(shown(line)).toBe(expected)
    expect(shown(line, { colours: true })).toBe(expected)
  })

  it('keeps its colours where there are colours, and ends them', () => {
    const line = '\x1b[1;38;5;208mwarm\x1b[2J\x1b[4:3mcurly'
    expect(shown(line, { colours: true })).toBe('\x1b[1;38;5;208mwarm\x1b[4:3mcurly\x1b[0m')
    expect(shown(line)).toBe('warmcurly')
  })

  it('goes into a pipe as it was printed', () => {
    const line = '\x1b[2A\x1b]0;mine\x07\x1b[31mred\r\x9b2J'
    expect(shown(line, { terminal: false })).toBe(line)
    expect(JSON.parse(printed({ line }, { output: 'json' })).line).toBe(line)
  })

  it('is escaped as JSON, with C1 where a terminal reads it', () => {
    const text = printed({ line: 'a\x1b[2J\x9b2J\x7f' }, { output: 'json', terminal: true })
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    expect(text.slice(0, -1)).not.toMatch(/[\x00-\x1f\x7f-\x9f]/)
    expect(JSON.parse(text).line).toBe('a\x1b[2J\x9b2J\x7f')
  })

  it('in a name is harmless as well', () => {
    expect(printed({ line: 'x', container: 'web\x1b[2J-1', service: 'a\x1b]0;t\x07' }, { terminal: true })).toContain(
      'a/api web-1 x',
    )
  })
})

describe('what is marked', () => {
  const colours = { colours: true, terminal: true }

  it('is what matched, by UTF-16 code units, within the colours that the line has', () => {
    const line = '🛒 \x1b[32mgreen\x1b[0m'
    const from = line.indexOf('een')
    expect(printed({ line, matches: [[from, from + 3]] }, { ...colours, output: 'raw' })).toBe(
      '🛒 \x1b[32mgr\x1b[1;31meen\x1b[0m\x1b[32m\x1b[0m\n',
    )
  })

  it('is what --highlight says, and a match is seen above it', () => {
    const out = printed({ line: 'abcdef', matches: [[2, 3]] }, { ...colours, output: 'raw', highlight: [/bcd/gu] })
    expect(out).toBe('a\x1b[30;43mb\x1b[0m\x1b[1;31mc\x1b[0m\x1b[30;43md\x1b[0mef\n')
  })

  it.each([
    ['2026 ERROR it broke', 'ERROR', '31'],
    ['level=warn msg=x', 'warn', '33'],
    ['{"level":"info","msg":"x"}', 'info', '32'],
    ['{"level":50,"msg":"x"}', '50', '31'],
    ['[debug] x', 'debug', '34'],
    ['PANIC: x', 'PANIC', '1;31'],
  ])('is the level of %s', (line, word, sgr) => {
    expect(printed({ line }, { ...colours, output: 'raw' })).toContain(`\x1b[${sgr}m${word}\x1b[0m`)
  })

  it.each(['an error of my ways', 'informational', 'TERRORS', 'level=whatever'])('is nothing in %j', (line) => {
    expect(printed({ line }, { ...colours, output: 'raw' })).toBe(`${line}\n`)
  })

  it('is a module, in the same colour each time, and modules differ', () => {
    expect(moduleColour('shop/api')).toBe(moduleColour('shop/api'))
    expect(new Set(Array.from({ length: 40 }, (_, i) => moduleColour(`shop/module-${i}`))).size).toBeGreaterThan(10)
  })
})

describe('JSON that is unfolded', () => {
  const unfolded = (line: object, options: Partial<LayoutOptions> = {}): string =>
    shown(JSON.stringify(line), { unfold: true, ...options })

  it('is level, message, then what else there is, what is nested by its path', () => {
    expect(
      unfolded({
        time: 1,
        level: 30,
        msg: 'paid',
        order: { id: 7, items: ['a b', 'c'], none: null },
        ok: true,
        empty: {},
      }),
    ).toBe('INFO  paid order.id=7 order.items.0="a b" order.items.1=c order.none=null ok=true empty={}')
  })

  it('shows a stack below', () => {
    expect(unfolded({ severity: 'ERROR', message: 'boom', err: { stack: 'Error: boom\n  at f\n  at g' } })).toBe(
      'ERROR boom\n    err.stack:\n        Error: boom\n          at f\n          at g',
    )
  })

  it('has no control sequences that its escapes stand for', () => {
    expect(unfolded({ msg: 'a\x1b[2Jb', 'k\x1b]0;t\x07': '\x1b[31mv' })).toBe('ab k=v')
  })

  it.each(['{broken', '[1,2]', 'plain', '{"a":1} and more', '"text"'])('leaves %j as it is', (line) => {
    expect(shown(line, { unfold: true })).toBe(line)
  })
})

describe('colours', () => {
  const terminal = { isTTY: true, hasColors: (): boolean => true }
  it.each([
    ['auto', terminal, {}, true],
    ['auto', terminal, { NO_COLOR: '1' }, false],
    ['auto', terminal, { NO_COLOR: '' }, true],
    ['auto', { isTTY: true, hasColors: (): boolean => false }, {}, false],
    ['auto', {}, {}, false],
    ['always', {}, { NO_COLOR: '1' }, true],
    ['never', terminal, {}, false],
  ] as const)('with %s at %j and %j: %s', (when, stream, env, expected) => {
    expect(useColours(when, stream, env)).toBe(expected)
  })
})

it.each(['\x1b]', '\x9d', '\x90x', '\x98\x9e'])('a line of many %j that never end takes linear time', (introducer) => {
  const began = process.cpuUsage()
  expect(shown(`${introducer.repeat(300_000)}\n`)).not.toContain(introducer[0])
  expect(process.cpuUsage(began).user).toBeLessThan(5_000_000)
})
