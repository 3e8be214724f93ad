import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MAX_PIECES, plain, printable } from '../../web/printable.ts'

const ESC = '\x1b'
const shown = (text: string) => printable(text).map(({ text }) => text)

describe('a line as it may be shown', () => {
  it('keeps colours, those of 256 and of 24 bits too, and lets them end', () => {
    expect(
      printable(`${ESC}[31mred ${ESC}[1;42mbold${ESC}[0m none ${ESC}[38;5;196mcube ${ESC}[38:2:1:2:3mtrue${ESC}[m.`),
    ).toEqual([
      { text: 'red ', kind: 'text', match: false, fg: 'red' },
      { text: 'bold', kind: 'text', match: false, fg: 'red', bg: 'green', decorations: ['bold'] },
      { text: ' none ', kind: 'text', match: false },
      { text: 'cube ', kind: 'text', match: false, fg: 'rgb(255 0 0)' },
      { text: 'true', kind: 'text', match: false, fg: 'rgb(1 2 3)' },
      { text: '.', kind: 'text', match: false },
    ])
  })

  it.each([
    ['clears a screen', `a${ESC}[2J${ESC}[Hb`],
    ['sets a title', `a${ESC}]0;title\x07b`],
    ['links with an end of two bytes', `a${ESC}]8;;http://x${ESC}\\b`],
    ['asks the terminal', `a${ESC}[?1049h${ESC}[6nb`],
    ['is a device control string', `a${ESC}Pq#0${ESC}\\b`],
    ['has one byte for its beginning', 'a\x9b2Jb'],
    ['switches the character set', `a${ESC}(0b`],
  ])('leaves out what %s', (_what, line) => {
    expect(shown(line).join('')).toBe('ab')
    expect(plain(line)).toBe('ab')
  })

  it('does not take the words after a sequence that is no colour for its end', () => {
    expect(shown(`${ESC}[2Khello my`).join('')).toBe('hello my')
  })

  it.each([
    ['\x00', 'NUL'],
    ['\r', 'CR'],
    ['\b', 'BS'],
    ['\x7f', 'DEL'],
    ['\u202e', 'U+202E'],
    ['\u2066', 'U+2066'],
    ['\u200b', 'U+200B'],
    ['\ufeff', 'U+FEFF'],
  ])('names %j, which would act or hide', (character, name) => {
    expect(printable(`a${character}b`)).toEqual([
      { text: 'a', kind: 'text', match: false },
      { text: name, kind: 'hidden', match: false },
      { text: 'b', kind: 'text', match: false },
    ])
  })

  it('names the beginning of a sequence that never comes', () => {
    expect(shown(`a${ESC}`)).toEqual(['a', 'ESC'])
    expect(shown(`a${ESC}é`)).toEqual(['a', 'ESC', 'é'])
  })

  it('marks what matched at its own place, though sequences before it are left out', () => {
    const line = `${ESC}[32mok${ESC}[0m an error here`
    const at = line.indexOf('error')
    const marked = printable(line, [[at, at + 5]]).filter(({ match }) => match)
    expect(marked.map(({ text }) => text)).toEqual(['error'])
  })

  it('marks a match across a change of colour in both pieces', () => {
    const line = `er${ESC}[31mror`
    expect(printable(line, [[0, line.length]]).map(({ text, match, fg }) => [text, match, fg])).toEqual([
      ['er', true, undefined],
      ['ror', true, 'red'],
    ])
  })

  it('keeps marks that are heaped on a letter from reaching other lines', () => {
    expect(shown(`a${'\u0301'.repeat(50)}b`)).toEqual([`a${'\u0301'.repeat(4)}b`])
  })

  it('is bounded, whatever comes: 256 KiB of colours or of control characters', () => {
    for (const line of [`${ESC}[31mx`.repeat(50_000), '\x01\x02'.repeat(131_072), `${ESC}]`.repeat(131_072)]) {
      const begun = process.cpuUsage()
      expect(printable(line).length).toBeLessThanOrEqual(MAX_PIECES + 4)
      expect(process.cpuUsage(begun).user / 1e6).toBeLessThan(2)
    }
  })

  it('never shows a control character, whatever the line', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (line) => {
        const all = shown(line).join('')
        // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
        expect(all).not.toMatch(/[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/)
      }),
    )
  })
})
