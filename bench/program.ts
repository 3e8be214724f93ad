/** What the consumer's image runs, flags of Node's included, on this host: its bundle is in dist/ once the images are built. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { imageFlags } from '../test/support/consumer.ts'
import { repo } from '../test/support/engine.ts'

const MAIN = join(repo, 'dist/consumer/main.js')

/** @param flags of Node's, beside the image's own */
export function consumerProgram(...flags: string[]): [string, ...string[]] {
  if (!existsSync(MAIN)) throw new Error(`there is no ${MAIN}; \`make images\` or \`node setup/bundle.ts\` makes it`)
  return [join(repo, 'dist/node'), ...imageFlags(), ...flags, MAIN]
}
