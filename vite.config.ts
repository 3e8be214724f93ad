/**
 * The page: from web/ into dist/web, which the consumer serves below /.
 *
 * Invariant
 *  - Nothing inline and nothing from elsewhere: the policy under which the page is served allows its own files alone.
 *
 * `vite` serves it for development, and passes the API's questions on to a consumer (TALLYMAN_URL).
 */
import { join } from 'node:path'
import { defineConfig } from 'vite'

export default defineConfig({
  root: join(import.meta.dirname, 'web'),
  base: './',
  build: {
    outDir: join(import.meta.dirname, 'dist/web'),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { '/api': process.env['TALLYMAN_URL'] ?? 'http://127.0.0.1:4680' } },
})
