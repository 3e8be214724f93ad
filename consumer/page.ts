/**
 * The page, as it was built into a folder: the consumer serves those files and nothing beside them.
 *
 * Invariants
 * - A path that is asked for never becomes a path of the file system: each file that is there at start gets a route of its own.
 * - A file below assets/ has a hash of its contents in its name, so browsers may keep it for ever; they ask for all others anew.
 * - The page takes no token, because it is where one logs in; it tells nothing.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import files from '@fastify/static'
import type { FastifyPluginAsync } from 'fastify'
import { ConsumerError } from './errors.ts'

/** Beside the bundle; where the consumer runs from its source, in dist/. */
const FOLDER = join(import.meta.dirname, import.meta.filename.endsWith('.ts') ? '../dist/web' : '../web')

export const page =
  (folder = FOLDER): FastifyPluginAsync =>
  async (api) => {
    api.addHook('onRoute', (route) => {
      route.config = { ...route.config, open: true }
    })
    if (!existsSync(join(folder, 'index.html'))) {
      api.get('/', { schema: { hide: true } }, async () => {
        throw new ConsumerError('NOT_FOUND', `the page is not built: there is no ${join(folder, 'index.html')}`)
      })
      return
    }
    await api.register(files, {
      root: folder,
      wildcard: false,
      schemaHide: true,
      preCompressed: true,
      cacheControl: false,
      setHeaders: (reply, path) => {
        const forever = path.startsWith(join(folder, 'assets/'))
        reply.header('cache-control', forever ? 'public, max-age=31536000, immutable' : 'no-cache')
      },
    })
  }
