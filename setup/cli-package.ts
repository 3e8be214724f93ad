/**
 * Makes dist/tallyman-<version>.tgz of dist/cli, which setup/bundle.ts has bundled: what `npm install -g` takes. The command, its man page,
 * no dependencies.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import manifest from '../package.json' with { type: 'json' }

const repo = join(import.meta.dirname, '..')
const folder = join(repo, 'dist/cli-package')

rmSync(folder, { recursive: true, force: true })
mkdirSync(join(folder, 'man'), { recursive: true })
cpSync(join(repo, 'dist/cli'), folder, { recursive: true })
cpSync(join(repo, 'man/tallyman.1'), join(folder, 'man/tallyman.1'))
cpSync(join(repo, 'docs/cli.md'), join(folder, 'README.md'))
cpSync(join(repo, 'LICENSE'), join(folder, 'LICENSE'))
const { name, version, license } = manifest
const packed = {
  name,
  version,
  description: 'tail and grep for the logs of containers on many hosts: the command of tallyman.',
  license,
  type: 'module',
  bin: { tallyman: 'main.js' },
  man: ['man/tallyman.1'],
  engines: { node: '>=20.12' },
}
writeFileSync(join(folder, 'package.json'), `${JSON.stringify(packed, undefined, 2)}\n`)
execFileSync('npm', ['pack', folder, '--pack-destination', join(repo, 'dist'), '--loglevel=error'], {
  stdio: 'inherit',
})
