/** Routes of the ledger: what came of lines, and whether the files agree with it. */
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import type { Access } from './access.ts'
import {
  disownParams,
  ledgerAnswer,
  ledgerQuery,
  type RootClaims,
  rootClaims,
  rootsAnswer,
  type VerifyAnswer,
  type VerifyQuery,
  verifyAnswer,
  verifyQuery,
} from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import type { LedgerState } from './ledger.ts'
import { answerLedger } from './ledger-api.ts'
import type { Claimed } from './ledger-topic.ts'

export type LedgerSources = {
  ledger: LedgerState
  /** What roots that are away have claimed and not written. */
  claimed(): Claimed[]
  /** Counts as lost what a root has claimed. @returns its claims */
  disown(root: string): Promise<Claimed[]>
  verify(query: VerifyQuery, may: Access['may']): Promise<VerifyAnswer>
}

export const ledgerRoutes =
  ({ ledger, claimed, disown, verify }: LedgerSources): FastifyPluginAsyncZod =>
  async (api) => {
    api.get(
      '/ledger',
      { schema: { summary: 'What came of every line.', querystring: ledgerQuery, response: { 200: ledgerAnswer } } },
      async ({ query, access }) => answerLedger(ledger, claimed(), query, access.may, Date.now()),
    )
    api.get(
      '/verify',
      {
        config: { stream: true, audit: 'verify' },
        // All the files would be read for it.
        exposeHeadRoute: false,
        schema: {
          summary: 'The files held against the ledger, byte by byte.',
          querystring: verifyQuery,
          response: { 200: verifyAnswer },
        },
      },
      async ({ query, access }) => verify(query, access.may),
    )
    api.get(
      '/roots',
      { schema: { summary: 'Roots that are away, and what they owe.', response: { 200: rootsAnswer } } },
      async ({ access }) => ({
        roots: rootsOf(claimed(), access.may),
        partial: [],
      }),
    )
    api.post(
      '/roots/:root/disown',
      {
        config: { audit: 'disown' },
        schema: { summary: 'Count as lost what a root owes.', params: disownParams, response: { 200: rootClaims } },
      },
      async ({ params: { root }, access }) => {
        // It changes what everybody is told: that takes somebody who is told everything.
        const [disowned] = access.services.includes('*') ? rootsOf(await disown(root), access.may) : []
        if (disowned) return disowned
        throw new ConsumerError('NOT_FOUND', `there is no root ${root} that has claimed lines and not written them`)
      },
    )
  }

function rootsOf(claims: readonly Claimed[], may: Access['may']): RootClaims[] {
  const groups = Map.groupBy(claims, ({ owner, state }) => `${owner} ${state}`)
  return Array.from(groups.values(), (group) => ({
    root: group[0]!.owner,
    state: group[0]!.state,
    partitions: [...new Set(group.map(({ partition }) => partition))].sort((a, b) => a - b),
    lines: group
      .flatMap(({ totals }) => totals.filter(({ service }) => may(service)))
      .reduce((n, { written }) => n + written, 0),
    uncounted: group.reduce((n, { uncounted }) => n + uncounted, 0),
  }))
}
