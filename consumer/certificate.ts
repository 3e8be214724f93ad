/**
 * The certificate that HTTP is served with: read at start, and again whenever it is renewed. Connections go on with the one that
 * they began with.
 */
import { readFileSync } from 'node:fs'
import type { Server } from 'node:https'
import { createSecureContext } from 'node:tls'
import type { Logger } from 'pino'
import { ConsumerError } from './errors.ts'
import { watchFiles } from './file-watch.ts'

export type CertificateFiles = { cert: string; key: string }
type Pair = { cert: Buffer; key: Buffer }

/** @throws ConsumerError where a file can't be read, or the two do not belong together */
export function readCertificate({ cert, key }: CertificateFiles): Pair {
  try {
    const pair = { cert: readFileSync(cert), key: readFileSync(key) }
    createSecureContext(pair)
    return pair
  } catch (error) {
    const message = `TLS_CERT_FILE=${cert} and TLS_KEY_FILE=${key}: ${(error as Error).message}`
    throw new ConsumerError('CERTIFICATE_REFUSED', message)
  }
}

/**
 * Has the server take up a renewed certificate. Of the two files one is renewed before the other: until both are, the old pair stays.
 * @returns stops it
 */
export function renewCertificate(
  server: Pick<Server, 'setSecureContext'>,
  files: CertificateFiles,
  log: Pick<Logger, 'info' | 'warn'>,
  everyMs?: number,
): () => void {
  const renew = () => {
    try {
      server.setSecureContext(readCertificate(files))
      log.info({ ...files }, 'the certificate was read again')
    } catch (error) {
      log.warn({ err: error }, 'the changed certificate is not served; the one of before still is')
    }
  }
  return watchFiles([files.cert, files.key], renew, everyMs)
}
