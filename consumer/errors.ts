/**
 * The consumer's table of errors. A code is stable; `acts` says who can mend it:
 *   operator  whoever runs the consumer: a disk, a setting, a topic
 *   sender    whoever wrote the record
 *   user      whoever asks over HTTP
 *   time      nobody: it is tried again
 */
import { CodedError } from '../wire/coded-error.ts'

export type Actor = 'operator' | 'sender' | 'user' | 'time'

export const ERRORS = {
  ROOT_HELD: 'operator',
  ROOT_REFUSED: 'operator',
  CHECKPOINT_FOREIGN: 'operator',
  TOKENS_REFUSED: 'operator',
  CERTIFICATE_REFUSED: 'operator',
  INTERNAL: 'operator',
  TOPIC_UNSUITABLE: 'operator',
  LEDGER_TOPIC_MISSING: 'operator',
  DISK_REFUSED: 'operator',
  DISK_NEARLY_FULL: 'operator',
  FILE_TAMPERED: 'operator',
  FILE_NOT_COMPRESSED: 'operator',
  HOUSEKEEPING_FAILED: 'operator',
  INDEX_DAMAGED: 'operator',
  RECORDS_EXPIRED: 'operator',
  TOPIC_RECREATED: 'operator',
  DEAD_LETTER_DROPPED: 'operator',
  DEAD_LETTERS_EXPIRED: 'operator',
  RECORD_UNDECODABLE: 'sender',
  QUERY_INVALID: 'user',
  REQUEST_INVALID: 'user',
  NOT_FOUND: 'user',
  TOKEN_REFUSED: 'user',
  FOREIGN_PAGE: 'user',
  SERVICES_REFUSED: 'user',
  ASKED_TOO_OFTEN: 'user',
  SEARCH_UNAVAILABLE: 'operator',
  CLAIM_REFUSED: 'time',
  KAFKA_AWAY: 'time',
  PARTITION_AWAY: 'time',
  PEER_AWAY: 'time',
} as const satisfies Record<string, Actor>

export type ErrorCode = keyof typeof ERRORS

/** The status with which an error that reaches HTTP is answered; one that is not in here is ours, and a 500. */
export const STATUS: Partial<Record<ErrorCode, number>> = {
  QUERY_INVALID: 400,
  REQUEST_INVALID: 400,
  TOKEN_REFUSED: 401,
  FOREIGN_PAGE: 403,
  SERVICES_REFUSED: 403,
  NOT_FOUND: 404,
  ASKED_TOO_OFTEN: 429,
  SEARCH_UNAVAILABLE: 503,
  KAFKA_AWAY: 503,
}

/** An error of the consumer's own, with words for whoever has to act. */
export class ConsumerError extends CodedError<ErrorCode, Actor> {
  constructor(code: ErrorCode, message: string) {
    super(ERRORS, code, message)
  }
}
