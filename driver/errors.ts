/**
 * The driver's table of errors. A code is stable; `acts` says who can mend it:
 *   user      whoever started the container: an option is wrong
 *   operator  whoever runs the host: a disk, a setting, a stale file
 *   time      nobody: it is tried again
 *   docker    dockerd sent what its protocol does not allow
 */
import { CodedError } from '../wire/coded-error.ts'

export type Actor = 'user' | 'operator' | 'time' | 'docker'

export const ERRORS = {
  REQUEST_INVALID: 'docker',
  FIFO_INVALID: 'docker',
  LOG_OPT_INVALID: 'user',
  READ_LOGS_OFF: 'user',
  READ_LOGS_BROKEN: 'operator',
  DEADLINE: 'operator',
  METRICS_REFUSED: 'operator',
  JOURNAL_REFUSED: 'operator',
  JOURNAL_FOREIGN: 'operator',
  JOURNAL_FULL: 'operator',
  JOURNAL_DAMAGED: 'operator',
  RUN_STUMBLED: 'operator',
  RUNS_EXHAUSTED: 'operator',
  KAFKA_AWAY: 'time',
  KAFKA_REFUSED: 'time',
  PARTITION_AWAY: 'time',
  TOPIC_MISSING: 'operator',
  LINE_TOO_LARGE: 'operator',
} as const satisfies Record<string, Actor>

export type ErrorCode = keyof typeof ERRORS

/** An error of the driver's own, whose message goes to `docker run` or into dockerd's log. */
export class DriverError extends CodedError<ErrorCode, Actor> {
  constructor(code: ErrorCode, message: string) {
    super(ERRORS, code, message)
  }
}
