/**
 * ripgrep as a child process: what it is given, and what it finds.
 *
 * Invariants
 * - No shell, no configuration of anybody's; a pattern stands behind -e, files are absolute paths: nothing is taken for an option.
 * - Every byte is looked at: no file is taken for binary, ignored or transcoded.
 * - Whoever stops asking ends the process.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { ConsumerError } from './errors.ts'

/** rg's own limits let one pattern take a gigabyte. */
const SIZES = ['--regex-size-limit=16M', '--dfa-size-limit=64M']
const ALWAYS = ['--json', '--no-config', '--no-ignore', '--hidden', '--text', '--encoding=none', ...SIZES]

/** A line that rg found: bytes with their newline, and where they begin. */
export type Found = {
  path: string
  /** Offset of its first byte. */
  offset: number
  /** Its number, from 1 on, in an input. */
  number: number
  bytes: Buffer
  /** The first byte, in the line, of what matched first. */
  first: number
}

type Text = { text: string } | { bytes: string }
type Message = {
  type: string
  data: {
    path: Text | null
    lines: Text
    line_number: number | null
    absolute_offset: number
    submatches: { start: number }[]
  }
}

const bytesOf = (text: Text): Buffer => ('text' in text ? Buffer.from(text.text) : Buffer.from(text.bytes, 'base64'))

export type Search = {
  /** Pattern and flags. */
  args: readonly string[]
  /** Absolute paths, searched in this order. Without them it is `input` that is searched. */
  files?: readonly string[]
  input?: Readable
  signal?: AbortSignal
  /** Gets what rg says is wrong with a file. */
  complain(message: string): void
}

/**
 * Searches.
 * @throws ConsumerError where rg is not installed, or understands the pattern not
 */
export async function* ripgrep({ args, files, input, signal, complain }: Search): AsyncGenerator<Found> {
  const where = files
    ? ['--search-zip', '--threads=1', '--mmap', '--no-line-number', '--', ...files]
    : ['--line-number', '--', '-']
  const child = spawn('rg', [...ALWAYS, ...args, ...where], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], LC_ALL: 'C.UTF-8' },
    killSignal: 'SIGKILL',
    ...(signal && { signal }),
  })
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  // Heard also where nobody waits for it any more.
  ended.catch(() => {})
  // A search that has enough closes its input early.
  child.stdin.on('error', () => {})
  // A pipe does not end what it leads to where its source fails, and rg would wait for the rest for ever.
  input?.on('error', ({ message }) => {
    complain(`what was to be searched was not read to its end: ${message}`)
    child.stdin.end()
  })
  if (input) input.pipe(child.stdin)
  else child.stdin.end()
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < MAX_SAID) said += text
  })
  try {
    for await (const line of linesOf(child.stdout)) {
      const { type, data } = JSON.parse(line) as Message
      if (type !== 'match') continue
      yield {
        path: data.path ? bytesOf(data.path).toString() : '',
        ...{ offset: data.absolute_offset, number: data.line_number ?? 0, bytes: bytesOf(data.lines) },
        first: data.submatches[0]?.start ?? 0,
      }
    }
    const [code, by] = await ended
    if (code === 2 || code === null) for (const message of said.split('\n').filter(Boolean)) complain(message)
    // A file that somebody cuts short while it is mapped ends rg by SIGBUS.
    if (code === null) complain(`ripgrep was ended by ${by}: not all of ${files?.length ?? 1} files were searched`)
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? missing() : error
  } finally {
    input?.destroy()
    child.kill('SIGKILL')
  }
}

/** Not by readline, which takes U+2028 for the end of a line: rg's JSON holds it as it stands in the files. */
async function* linesOf(stream: Readable): AsyncGenerator<string> {
  let rest: Buffer[] = []
  for await (const piece of stream as AsyncIterable<Buffer>) {
    let at = 0
    for (let end = piece.indexOf(10); end !== -1; end = piece.indexOf(10, at)) {
      const line = piece.subarray(at, end)
      yield (rest.length === 0 ? line : Buffer.concat([...rest, line])).toString()
      rest = []
      at = end + 1
    }
    if (at < piece.length) rest.push(piece.subarray(at))
  }
}

const MAX_SAID = 64 * 1024

const missing = (): ConsumerError =>
  new ConsumerError(
    'SEARCH_UNAVAILABLE',
    'rg is not on the PATH of the consumer: install ripgrep (Debian: apt-get install ripgrep zstd)',
  )

/** @throws ConsumerError where the pattern is not one of rg's */
export async function checkPattern(args: readonly string[]): Promise<void> {
  const problems: string[] = []
  for await (const _ of ripgrep({ args, complain: (message) => problems.push(message) })) break
  if (problems.length > 0) throw new ConsumerError('QUERY_INVALID', `pattern: ${problems.join('\n')}`)
}
