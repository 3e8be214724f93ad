/**
 * Bundles the programs for the images into dist/, with the Node that runs them: bundle.ts [ROOM…]
 *
 *   dist/node          the Node of this repository's lock file, for this machine's architecture
 *   dist/<room>/       main.js, a file for each *-thread.ts, what they share, node_modules/koffi where it is used, and the
 *                      licenses of what is bundled
 *   dist/web/          the page, and beside each file that shrinks what Brotli and gzip make of it
 *
 * Invariants
 *  - An entry point is a room's main.ts or *-thread.ts; a thread's file stands beside main.js under its own name.
 *  - Names survive the minifying, so a stack trace still tells the function.
 *  - dist/ is the whole build context of the Dockerfile: what is not in there cannot get into an image.
 */
import { cpSync, linkSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { build, type Metafile } from 'esbuild'

const repo = join(import.meta.dirname, '..')
const dist = join(repo, 'dist')
const platform = `linux-${process.arch}`

/** The command runs on people's machines, with whatever Node they have; the others with the one beside them. */
const TARGETS: Record<string, string> = { cli: 'node20' }

/** @param out the folder that gets it, in place of what is there */
export async function bundle(room: string, out: string): Promise<void> {
  const aside = `${out}.new`
  rmSync(aside, { recursive: true, force: true })
  const { metafile } = await build({
    absWorkingDir: repo,
    entryPoints: readdirSync(join(repo, room))
      .filter((name) => name === 'main.ts' || name.endsWith('-thread.ts'))
      .map((name) => join(room, name)),
    outdir: aside,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: TARGETS[room] ?? 'node24',
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    external: ['koffi'],
    banner: {
      js: "import { createRequire as requireFrom } from 'node:module';const require=requireFrom(import.meta.url);",
    },
    metafile: true,
    logLevel: 'warning',
  })
  const imports = Object.values(metafile.outputs).flatMap((file) => file.imports)
  if (imports.some(({ path }) => path === 'koffi')) copyKoffi(join(aside, 'node_modules'))
  writeFileSync(join(aside, 'THIRD-PARTY-LICENSES'), licenses(metafile))
  rmSync(out, { recursive: true, force: true })
  renameSync(aside, out)
}

/** What the packages that are bundled ask to be passed on with them: their names, and their licenses' texts. */
function licenses({ inputs }: Metafile): string {
  const folders = Object.keys(inputs).flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? [])
  return [...new Set(folders)]
    .sort()
    .map((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(join(repo, folder, 'package.json'), 'utf8'))
      const file = readdirSync(join(repo, folder)).find((name) => /^licen[cs]e/i.test(name))
      const text = file === undefined ? '' : `\n\n${readFileSync(join(repo, folder, file), 'utf8').trim()}`
      return `${name} ${version} (${license})${text}\n`
    })
    .join(`\n${'-'.repeat(80)}\n\n`)
}

/** The page. It is compressed here, once, and not by the consumer for each who asks. */
async function bundlePage(): Promise<void> {
  const out = join(dist, 'web')
  const aside = `${out}.new`
  const { build: buildPage } = await import('vite')
  await buildPage({ configFile: join(repo, 'vite.config.ts'), logLevel: 'warn', build: { outDir: aside } })
  for (const name of readdirSync(aside, { recursive: true, encoding: 'utf8' })) {
    if (!/\.(?:html|js|css|svg)$/.test(name)) continue
    const file = join(aside, name)
    const content = readFileSync(file)
    writeFileSync(`${file}.br`, brotliCompressSync(content))
    writeFileSync(`${file}.gz`, gzipSync(content, { level: 9 }))
  }
  rmSync(out, { recursive: true, force: true })
  renameSync(aside, out)
}

/** koffi without its C++ sources, and its binary for this architecture and glibc. */
function copyKoffi(modules: string): void {
  const native = `@koromix/koffi-${platform}`
  for (const path of [
    'koffi/package.json',
    'koffi/index.js',
    'koffi/src/koffi/index.js',
    'koffi/src/koffi/src/static.js',
    `${native}/package.json`,
    `${native}/index.js`,
    `${native}/${platform.replace('-', '_')}`,
  ]) {
    cpSync(join(repo, 'node_modules', path), join(modules, path), { recursive: true })
  }
}

if (import.meta.main) {
  const rooms = process.argv.slice(2)
  const all = ['driver', 'consumer', 'cli', 'web']
  const made = (rooms.length > 0 ? rooms : all).map((room) =>
    room === 'web' ? bundlePage() : bundle(room, join(dist, room)),
  )
  await Promise.all(made)
  rmSync(join(dist, 'node'), { force: true })
  linkSync(join(repo, `node_modules/node-${platform}/bin/node`), join(dist, 'node'))
}
