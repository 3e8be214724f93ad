/** Routes of the ledger: what came of lines, and whether the files agree with it. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import type { Access } from './access.ts'
import {
  ledgerAnswer,
  ledgerQuery,
  type VerifyAnswer,
  type VerifyQuery,
  verifyAnswer,
  verifyQuery,
} from './api-schema.ts'
import type { LedgerState } from './ledger.ts'
import { answerLedger } from './ledger-api.ts'

export type LedgerSources = {
  ledger: LedgerState
  verify(query: VerifyQuery, may: Access['may']): Promise<VerifyAnswer>
}

export const ledgerRoutes =
  ({ ledger, verify }: LedgerSources): FastifyPluginAsyncZod =>
  async (api) => {
    api.get(
      '/ledger',
      { schema: { querystring: ledgerQuery, response: { 200: ledgerAnswer } } },
      async ({ query, access }) => answerLedger(ledger, query, access.may, Date.now()),
    )
    api.get(
      '/verify',
      { schema: { querystring: verifyQuery, response: { 200: verifyAnswer } } },
      async ({ query, access }) => verify(query, access.may),
    )
  }
