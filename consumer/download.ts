/**
 * A file as it lies on the disk, plain or compressed, whole or a range of it.
 *
 * Invariants
 * - Only files that the checkpoint knows, of services that may be read: a path that is asked for is looked up and never resolved.
 * - No link is followed: what is opened has to be the very file below the root.
 */
import { realpath } from 'node:fs/promises'
import { basename, join } from 'node:path'
import send from '@fastify/send'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Access } from './access.ts'
import { ConsumerError } from './errors.ts'
import type { Manifests } from './manifests.ts'
import { pathComponent, readFileName } from './names.ts'

export type DownloadSources = {
  manifests: Manifests
  /** The folder of the files, with no link in its path. */
  root: string
}

const TYPES = { log: 'text/plain; charset=utf-8', zst: 'application/zstd', gz: 'application/gzip' } as const

/** @throws ConsumerError where there is no such file, or none that may be read */
export async function download(
  { manifests, root }: DownloadSources,
  path: string,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const stored = storedPath(manifests, path, request.access.may)
  const absolute = join(root, stored)
  const found = await realpath(absolute).catch(() => undefined)
  if (found !== absolute) throw notFound(path)
  const encoded = stored.split('/').map(encodeURIComponent).join('/')
  const sent = await send(request.raw, encoded, { root, index: false, cacheControl: false, contentType: false })
  if (sent.statusCode === 404) throw notFound(path)
  const [service, module] = stored.split('/')
  return reply
    .code(sent.statusCode)
    .headers(sent.headers)
    .headers({
      'content-type': TYPES[stored.slice(stored.lastIndexOf('.') + 1) as keyof typeof TYPES],
      'content-disposition': `attachment; filename="${service}_${module}_${basename(stored)}"`,
      'cache-control': 'no-cache',
    })
    .send(sent.stream)
}

/** Where the file lies that is called `path`, by the name of its text or as it is stored. */
function storedPath(manifests: Manifests, path: string, may: Access['may']): string {
  const name = readFileName(path.replace(/\.(zst|gz)$/, ''))
  if (!name) throw notFound(path)
  const { day } = name
  const wanted = ({ service, module }: { service: string; module: string }) =>
    may(service) && pathComponent(service) === name.service && pathComponent(module) === name.module
  for (const { files } of manifests.list({ wanted, since: day, until: day })) {
    for (const { file, compressed } of files) {
      const stored = compressed ? `${file}.${compressed}` : file
      if (path === file || path === stored) return stored
    }
  }
  throw notFound(path)
}

const notFound = (path: string): ConsumerError =>
  new ConsumerError('NOT_FOUND', `there is no file ${path}; /api/v1/days lists those that there are`)
