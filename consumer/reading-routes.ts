/** Routes that read lines: history, tail, search, context, and what there is. */
import type { FastifyReply } from 'fastify'
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { ANYBODY } from './access.ts'
import {
  batchEvent,
  type ConsumerStatus,
  contextAnswer,
  contextQuery,
  daysAnswer,
  daysQuery,
  histogramAnswer,
  histogramQuery,
  linesEvent,
  linesQuery,
  searchEvent,
  searchQuery,
  servicesAnswer,
  servicesQuery,
  statusAnswer,
  tailEvent,
  tailQuery,
} from './api-schema.ts'
import type { FileState } from './checkpoint.ts'
import { readContext } from './context.ts'
import { download } from './download.ts'
import { BATCHES } from './event-decoder.ts'
import { sendEvents, streamOf, wireOf } from './event-stream.ts'
import type { Hub } from './hub.ts'
import type { LineFormat } from './layout.ts'
import { type History, readLines } from './lines.ts'
import { days, histogram, type OverviewSources, services } from './overview.ts'
import { search } from './search.ts'
import type { Slots } from './slots.ts'
import { asksForAll, readTail } from './tail.ts'

export type ReadingSources = {
  history: History
  overview: OverviewSources
  hub: Hub
  /** The folder of the files, with no link in its path. */
  root: string
  /** How lines that land look in their files. */
  format: LineFormat
  /** Files as the checkpoint says. */
  files: ReadonlyMap<string, FileState>
  searches: Slots
  status(): ConsumerStatus
}

/** HEAD would do all the work of a stream, and send none of it. */
const NO_HEAD = { exposeHeadRoute: false }

export const readingRoutes =
  ({ history, overview, hub, root, format, files, searches, status }: ReadingSources): FastifyPluginAsyncZod =>
  async (api) => {
    api.get(
      '/services',
      {
        schema: {
          summary: 'Modules, their volume, and when their last line came.',
          querystring: servicesQuery,
          response: { 200: servicesAnswer },
        },
      },
      async ({ query, access }) => services(overview, query, access.may, Date.now()),
    )
    api.get(
      '/days',
      {
        schema: {
          summary: 'Days and files of modules, the newest first.',
          querystring: daysQuery,
          response: { 200: daysAnswer },
        },
      },
      async ({ query, access }) => days(overview, query, access.may),
    )
    api.get(
      '/histogram',
      {
        schema: {
          summary: 'Lines and bytes over time.',
          querystring: histogramQuery,
          response: { 200: histogramAnswer },
        },
      },
      async ({ query, access }) => histogram(overview, query, access.may, Date.now()),
    )
    api.get(
      '/context',
      {
        schema: {
          summary: 'A line and its neighbours in its file.',
          querystring: contextQuery,
          response: { 200: contextAnswer },
        },
      },
      async ({ query, access }) => readContext(history, query, access.may),
    )
    api.get(
      '/status',
      { schema: { summary: 'The consumer itself, and those beside it.', response: { 200: statusAnswer } } },
      async () => ({
        consumers: [status()],
        partial: [],
      }),
    )

    api.get(
      '/lines',
      {
        ...{ config: { stream: true, audit: 'lines' }, ...NO_HEAD },
        schema: { summary: 'History in the order of time.', querystring: linesQuery, response: streamOf(linesEvent) },
      },
      async (request, reply): Promise<FastifyReply> =>
        sendEvents(request, reply, (signal) => readLines(history, request.query, { may: request.access.may, signal })),
    )
    api.get(
      '/tail',
      {
        ...{ config: { stream: true, audit: 'tail' }, ...NO_HEAD },
        schema: {
          summary: 'What lands from now on, or from a cursor on.',
          querystring: tailQuery,
          response: streamOf(tailEvent, { [BATCHES]: { schema: batchEvent } }),
        },
      },
      async (request, reply): Promise<FastifyReply> => {
        const { access, query, headers } = request
        // A browser that comes back asks as it did at first.
        const came = headers['last-event-id']
        const asked = typeof came === 'string' ? { ...query, cursor: came } : query
        const wire = wireOf(request, format === 'text' && asksForAll(query))
        return sendEvents(request, reply, (signal) => readTail(history, hub, asked, { access, wire, signal }), { wire })
      },
    )
    api.get(
      '/search',
      {
        ...{ config: { stream: true, scarce: true, audit: 'search' }, ...NO_HEAD },
        schema: {
          summary: 'History by a regular expression.',
          querystring: searchQuery,
          response: streamOf(searchEvent),
        },
      },
      async (request, reply): Promise<FastifyReply> => {
        const { may, name } = request.access
        const caller = name === ANYBODY.name ? undefined : name
        return sendEvents(request, reply, (signal) =>
          search({ history, root, files, slots: searches, caller, may, signal }, request.query),
        )
      },
    )
    api.get(
      '/files/*',
      {
        config: { stream: true, audit: 'download' },
        schema: {
          summary: 'A file as it lies on the disk, or a range of it.',
          params: z.object({ '*': z.string().describe('A file of `/api/v1/days`.') }),
          response: {
            200: {
              description: 'The file as it lies on the disk.',
              content: { 'application/octet-stream': { schema: z.any() } },
            },
            206: {
              description: 'The range of it that was asked for.',
              content: { 'application/octet-stream': { schema: z.any() } },
            },
          },
        },
      },
      async (request, reply): Promise<FastifyReply> =>
        download({ manifests: overview.manifests, root }, request.params['*'], request, reply),
    )
  }
