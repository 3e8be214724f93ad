/** Keys at a terminal, while lines are printed: one at a time, and a line of text where one is asked for. */
import { emitKeypressEvents, type Key } from 'node:readline'
import { EXIT } from './errors.ts'
import { clearProgress } from './terminal.ts'

export type Keys = {
  /** What is done at a key; `enter` is the return key. Ctrl-C and Ctrl-D end the command. */
  on(key: string, act: () => void): void
  /** Asks for a text below what is printed. @returns undefined where it is given up with Escape */
  ask(prompt: string): Promise<string | undefined>
  /** Gives the terminal back as it was. */
  close(): void
}

type Asked = { prompt: string; text: string; answer(text: string | undefined): void }

/** Takes the keys of stdin, which must be a terminal. */
export function takeKeys(): Keys {
  const { stdin, stderr } = process
  const acts = new Map<string, () => void>()
  let asked: Asked | undefined
  const close = (): void => {
    stdin.setRawMode(false)
    stdin.pause()
  }
  const show = (): void => {
    if (asked) stderr.write(`\r\x1b[K${asked.prompt}${asked.text}`)
  }
  const answer = (text: string | undefined): void => {
    stderr.write('\r\x1b[K')
    const { answer } = asked!
    asked = undefined
    answer(text)
  }
  const type = (asked: Asked, text: string | undefined, { name, ctrl, meta }: Key): void => {
    if (name === 'return' || name === 'enter') answer(asked.text)
    else if (name === 'escape') answer(undefined)
    else {
      if (name === 'backspace') asked.text = [...asked.text].slice(0, -1).join('')
      else if (ctrl && name === 'u') asked.text = ''
      else if (text !== undefined && !ctrl && !meta) asked.text += text
      show()
    }
  }
  stdin.on('keypress', (text: string | undefined, key: Key) => {
    if (key.ctrl && (key.name === 'c' || key.name === 'd')) {
      clearProgress()
      process.exit(key.name === 'c' ? EXIT.INTERRUPTED : EXIT.GOOD)
    }
    if (key.ctrl && key.name === 'z') {
      stdin.setRawMode(false)
      process.kill(process.pid, 'SIGTSTP')
      return
    }
    if (asked) return type(asked, text, key)
    acts.get(key.name === 'return' || key.name === 'enter' ? 'enter' : (text ?? ''))?.()
  })
  // The shell has the terminal as it wants it meanwhile.
  process.on('SIGCONT', () => stdin.setRawMode(true))
  process.once('SIGTERM', () => process.exit(128 + 15))
  process.on('exit', close)
  emitKeypressEvents(stdin)
  stdin.setRawMode(true)
  stdin.resume()
  return {
    on: (key, act) => acts.set(key, act),
    ask: (prompt) =>
      new Promise((answer) => {
        asked = { prompt, text: '', answer }
        show()
      }),
    close,
  }
}
