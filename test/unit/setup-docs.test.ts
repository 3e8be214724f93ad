import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { generated } from '../../setup/docs.ts'

describe('what follows from the schemas', () => {
  it.each(Object.entries(generated))('%s is as `make docs` writes it', (path, text) => {
    expect(readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')).toBe(text())
  })
})
