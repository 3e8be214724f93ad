/**
 * What the command prints: answers on stdout, everything else on stderr.
 *
 * Invariants
 * - Whoever reads stdout may leave at any time (`| head`): that ends the command quietly, and with it the consumer's work.
 * - A slow reader slows the command down; nothing piles up here.
 * - What an answer does not hold is said on stderr, and makes the exit status 2.
 */
import { once } from 'node:events'
import { harmless } from './control-sequences.ts'
import { EXIT } from './errors.ts'

const { stdout, stderr } = process

/** How often the progress line changes at most, and how long a command is given before there is one, ms. */
const PROGRESS_MS = 150
const PROGRESS_AFTER_MS = 400

let shown = false
let lastProgress = performance.now() + PROGRESS_AFTER_MS - PROGRESS_MS

stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') stderr.write(`tallyman: what it prints cannot be written: ${error.message}\n`)
  process.exit(error.code === 'EPIPE' ? (process.exitCode ?? EXIT.GOOD) : EXIT.FAILED)
})
stderr.on('error', () => {})

/** Resolves once there is room for more. */
export async function print(text: string): Promise<void> {
  if (text === '') return
  clearProgress()
  if (!stdout.write(text)) await once(stdout, 'drain')
}

/** As `print`, of bytes that are no text; a terminal is kept from them. */
export async function printBytes(bytes: Uint8Array): Promise<void> {
  if (stdout.isTTY) return say(`${bytes.length} bytes, which are not for a terminal: send them into a file`)
  if (!stdout.write(bytes)) await once(stdout, 'drain')
}

/** Tells something on stderr. */
export function say(text: string): void {
  clearProgress()
  stderr.write(`tallyman: ${stderr.isTTY ? harmless(text, false) : text}\n`)
}

/** Tells that an answer is not whole; the command ends with status 2. */
export function incomplete(text: string): void {
  say(text)
  process.exitCode = EXIT.FAILED
}

/** A line on stderr that the next thing printed takes the place of; only where a terminal shows it. */
export function progress(text: () => string): void {
  const now = performance.now()
  if (!stderr.isTTY || now - lastProgress < PROGRESS_MS) return
  lastProgress = now
  stderr.write(`\r\x1b[K${text().slice(0, (stderr.columns || 80) - 1)}`)
  shown = true
}

export function clearProgress(): void {
  if (shown) stderr.write('\r\x1b[K')
  shown = false
}

/** Ctrl-C ends the command. Connections end with the process, and the consumer's work with them. */
export function endOnInterrupt(): void {
  process.once('SIGINT', () => {
    clearProgress()
    process.exit(EXIT.INTERRUPTED)
  })
}
