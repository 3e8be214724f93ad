/** The OpenAPI document: what follows from the routes' schemas, made fit for those who read it. */
import type { FastifyDynamicSwaggerOptions } from '@fastify/swagger'
import { jsonSchemaTransform } from 'fastify-type-provider-zod'
import pkg from '../package.json' with { type: 'json' }
import { SESSION_COOKIE } from './guard.ts'

/** @param secured whether a token is needed */
export const openapi = (secured: boolean): FastifyDynamicSwaggerOptions => ({
  openapi: {
    openapi: '3.1.0',
    info: {
      title: 'tallyman',
      version: pkg.version,
      description: 'Reading the log files of a tallyman consumer, and what became of every line.',
      license: { name: pkg.license, identifier: pkg.license },
    },
    ...(secured && {
      components: {
        securitySchemes: {
          token: { type: 'http', scheme: 'bearer' },
          session: { type: 'apiKey', in: 'cookie', name: SESSION_COOKIE },
        },
      },
      security: [{ token: [] }, { session: [] }],
    }),
  },
  transform: (document) => {
    const { schema, url } = jsonSchemaTransform(document)
    return { url, schema: plainTuples(schema) as typeof schema }
  },
})

/** A tuple whose places are all alike, as a list of that length: few programs read `prefixItems`. */
function plainTuples(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(plainTuples)
  if (typeof schema !== 'object' || schema === null) return schema
  const plain = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, plainTuples(value)]))
  const { prefixItems, ...rest } = plain
  if (!Array.isArray(prefixItems)) return plain
  const [first, ...others] = prefixItems.map((item) => JSON.stringify(item))
  return others.every((other) => other === first) ? { ...rest, items: prefixItems[0] } : plain
}
