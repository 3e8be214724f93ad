/** What the consumer's image runs, flags of Node's included, on this host: its bundle is in dist/ once the images are built. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repo } from '../test/support/engine.ts'

/** @param flags of Node's, beside the image's own */
export function consumerProgram(...flags: string[]): [string, ...string[]] {
  const [, entrypoint] = /^ENTRYPOINT (\[.*\])$/m.exec(readFileSync(join(repo, 'Dockerfile'), 'utf8')) ?? []
  if (entrypoint === undefined) throw new Error('the Dockerfile says no ENTRYPOINT')
  const [, ...args] = JSON.parse(entrypoint) as string[]
  const main = join(repo, 'dist', args.pop()!)
  if (!existsSync(main)) throw new Error(`there is no ${main}; \`make images\` or \`node setup/bundle.ts\` makes it`)
  return [join(repo, 'dist/node'), ...args, ...flags, main]
}
