/**
 * One project a tier. `unit` needs Node and ripgrep, and root for what fills a disk; `system` needs the engine, the images
 * and the plugin that `make system` prepares, and runs its files one after the other because they share one dockerd.
 */
import { defineConfig } from 'vitest/config'
import { inSoak } from './test/support/soak.ts'

export default defineConfig({
  test: {
    projects: [
      // A limit that tells what hangs from what is slow on a busy machine.
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: inSoak(60_000, 3_600_000) } },
      {
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: inSoak(180_000, 3_600_000),
          hookTimeout: 180_000,
        },
      },
    ],
  },
})
