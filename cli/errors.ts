/**
 * The command's table of errors. A code is stable; `acts` says who can mend it:
 *   user      whoever typed the command: its arguments, the environment, the configuration, a token
 *   operator  whoever runs the consumer
 *   time      nobody: it may well work when it is tried again
 */

export type Actor = 'user' | 'operator' | 'time'

export const ERRORS = {
  USAGE: { acts: 'user', means: 'The command, an option or an argument is wrong.' },
  CONFIG_INVALID: { acts: 'user', means: 'The configuration file cannot be read, or says something it should not.' },
  SERVER_UNKNOWN: { acts: 'user', means: 'No server of that name is in the configuration file.' },
  QUERY_REFUSED: { acts: 'user', means: 'The consumer does not take the question, such as a pattern that is none.' },
  TOKEN_REFUSED: { acts: 'user', means: 'The consumer wants a token, or does not know the one it was given.' },
  NOT_FOUND: { acts: 'user', means: 'What was asked for is not there, or this token may not see it.' },
  UNREACHABLE: { acts: 'operator', means: 'Nobody answers where the consumer should be.' },
  SERVER_FAILED: { acts: 'operator', means: 'The consumer could not answer; its own log says why.' },
  NO_CONSUMER: { acts: 'user', means: 'Something answers at the address, and it is no consumer of this version.' },
  BUSY: { acts: 'time', means: 'The consumer does as much as it may at once.' },
  BROKEN_OFF: { acts: 'time', means: 'The answer ended before it was whole.' },
} as const satisfies Record<string, { acts: Actor; means: string }>

export type ErrorCode = keyof typeof ERRORS

/** An error with words for whoever has to act. */
export class CliError extends Error {
  override name = 'CliError'
  readonly code: ErrorCode
  readonly acts: Actor
  constructor(code: ErrorCode, message: string) {
    super(message)
    this.code = code
    this.acts = ERRORS[code].acts
  }
}

/** Exit status of every command. */
export const EXIT = {
  /** It is as it should be; for grep: a line matched. */
  GOOD: 0,
  /** It is not: something is lost or damaged; for grep: no line matched. */
  BAD: 1,
  /** The command was wrong, or not everybody who was asked has answered in full. */
  FAILED: 2,
  /** Ctrl-C. */
  INTERRUPTED: 130,
} as const
