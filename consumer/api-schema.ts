/**
 * The HTTP API's shapes: what is asked for and what is answered, each once. Routes are checked by them, types and the OpenAPI
 * document follow from them, and the command line and the page know the API by nothing else.
 *
 * Invariants
 * - Times are RFC 3339 in UTC. A range holds `since` and all up to `until`, which is left out.
 * - A stream is NDJSON, one event a line (server-sent events where the client accepts `text/event-stream`). An event that a client
 *   does not know is skipped. A stream that was not broken off ends with `end`.
 * - A cut or partial answer says so: `limited`, `partial`, `missed`.
 * - What a caller may not read is not there: lists leave it out, and asking for it by name is answered as for what does not exist.
 */
import { z } from 'zod'

const count = z.int().min(0)
/** As many values a key may be given. */
const MAX_VALUES = 256

const many = <T extends z.ZodType>(item: T) =>
  z
    .union([item, z.array(item).max(MAX_VALUES)])
    .transform((given) => (Array.isArray(given) ? given : [given]))
    .default([])
/** What a pattern may be; as an argument of ripgrep's it ends at a NUL. */
const pattern = z
  .string()
  .max(4096)
  .refine((text) => !text.includes('\0'), { error: 'must hold no NUL character; in a regular expression it is \\x00' })
const flag = z.stringbool().default(false)

export const time = z.iso.datetime({ offset: true, error: 'must be a time such as 2026-11-23T08:24:41.123Z' })
export const day = z.iso.date({ error: 'must be a day, such as 2026-11-23' })

/** Lines in one answer at most, and where nothing is said. */
export const MAX_LINES = 100_000
export const DEFAULT_LINES = 1_000

/** A live tail merges by time what arrives within this long, ms: at most, and where nothing is said. */
export const MERGE_WINDOW_MS = 2_000
export const DEFAULT_WINDOW_MS = 300

export const apiError = z
  .object({
    error: z.string().describe('A stable code.'),
    message: z.string().describe('What was wrong, where, and what to do.'),
  })
  .describe('Why a question was not answered.')
export type ApiError = z.infer<typeof apiError>

/**
 * Which lines are meant. Each key may be given several times: one of its values has to match, and every key that is given.
 * Values are globs: `*` is any characters, `?` is one.
 */
export const selection = z.object({
  target: many(z.string().min(1).max(1024)).describe(
    '`service/module`, globs allowed, such as `shop/*`. Without a slash: a service, or the name of a container.',
  ),
  service: many(z.string().max(4096)).describe('Service, globs allowed.'),
  module: many(z.string().max(4096)).describe('Module, globs allowed.'),
  host: many(z.string().max(4096)).describe('Host, globs allowed.'),
  container: many(z.string().max(4096)).describe("Container's name, globs allowed."),
  source: many(z.enum(['stdout', 'stderr'])).describe('stdout or stderr; both where nothing is said.'),
})
export type Selection = z.infer<typeof selection>

/** Which of the selected lines, by what they say. Regular expressions are RE2's: no look-around, and linear time. */
export const filters = z.object({
  include: many(pattern.min(1)).describe('Regular expression; one of several has to match.'),
  exclude: many(pattern.min(1)).describe('Regular expression; none may match.'),
  ignoreCase: flag.describe('Upper and lower case are the same in all of them.'),
})
export type Filters = z.infer<typeof filters>

export const range = z.object({
  since: time.optional().describe('Lines of this moment or later.'),
  until: time.optional().describe('Lines of before this moment.'),
})

const names = z.object({ service: z.string(), module: z.string() })

/** A line. `at` names it for ever, or until its day is removed: pass it to `/api/v1/context`, keep it in a permalink. */
export const line = z.object({
  type: z.literal('line'),
  at: z
    .string()
    .describe('Cursor of the line: opaque but for this, that of one `file` a later line has the larger `position`.'),
  file: z
    .string()
    .describe(
      "Path below the root, as it is named before it is compressed; with several consumers, behind its consumer's name and a colon.",
    ),
  position: count.describe("The line's first byte in the file's text."),
  time: z.string().describe("When it was printed; ms where the files' format keeps that."),
  ...names.shape,
  host: z.string(),
  container: z.string(),
  source: z.enum(['stdout', 'stderr']),
  line: z.string().describe('What was printed, without a newline; bytes that are no UTF-8 are U+FFFD.'),
  matches: z
    .array(z.tuple([count, count]))
    .optional()
    .describe('Where `line` matched, in UTF-16 code units: begin and end of each place.'),
  context: z.literal(true).optional().describe('The line stands around one that matched and does not match itself.'),
})
export type Line = z.infer<typeof line>

/** Something that an answer does not hold, and why. */
export const gap = z.object({
  consumer: z.string().optional().describe('Which consumer could not be asked.'),
  file: z.string().optional().describe('Which file could not be read.'),
  message: z.string(),
})
export type Gap = z.infer<typeof gap>

export const endEvent = z.object({
  type: z.literal('end'),
  lines: count.describe('Lines that were sent, context not counted.'),
  limited: z.boolean().describe('There are more lines than `limit` allowed.'),
  partial: z.array(gap).describe('What could not be read: the answer is whole where this is empty.'),
})
export const progressEvent = z.object({
  type: z.literal('progress'),
  files: count,
  filesTotal: count,
  bytes: count,
  bytesTotal: count,
  matched: count,
  queued: count.optional().describe('So many searches are served first.'),
})
export type EndEvent = z.infer<typeof endEvent>
export type ProgressEvent = z.infer<typeof progressEvent>
export const separatorEvent = z
  .object({ type: z.literal('separator') })
  .describe('The lines on either side do not adjoin.')
export const countEvent = z.object({ type: z.literal('count'), file: z.string(), ...names.shape, lines: count })
export const missedEvent = z
  .object({ type: z.literal('missed'), lines: count })
  .describe('The reader was too slow: so many lines are left out here.')
export const cursorEvent = z
  .object({ type: z.literal('cursor'), cursor: z.string() })
  .describe('A tail that is asked for with this cursor goes on behind what was sent; it may repeat some of it.')
export const heartbeatEvent = z
  .object({ type: z.literal('heartbeat'), time: z.string() })
  .describe('Nothing else came for 10 to 20 seconds.')
export const windowEvent = z
  .object({ type: z.literal('window'), ms: count })
  .describe('First of a tail: lines that arrive within so many ms are put in the order of their times.')
export const gapEvent = z
  .object({ type: z.literal('gap'), ...gap.shape })
  .describe('A consumer that went away, or cannot be read.')

/** `GET /api/v1/lines`: history in the order of time. */
export const linesQuery = z.strictObject({
  ...selection.shape,
  ...filters.shape,
  ...range.shape,
  limit: z.coerce.number().pipe(z.int().min(1).max(MAX_LINES)).default(DEFAULT_LINES).describe('Lines at most.'),
  last: flag.describe('The last `limit` lines of the range, where it has more; the first ones otherwise.'),
})
export type LinesQuery = z.infer<typeof linesQuery>
export const linesEvent = z.discriminatedUnion('type', [line, heartbeatEvent, endEvent])
export type LinesEvent = z.infer<typeof linesEvent>

/** `GET /api/v1/tail`: what lands from now on, or from the cursor on; ends when the client leaves. */
export const tailQuery = z.strictObject({
  ...selection.shape,
  ...filters.shape,
  last: z.coerce.number().pipe(z.int().min(0).max(MAX_LINES)).default(0).describe('So many lines of history first.'),
  since: time.optional().describe('With `last`: of this moment or later.'),
  cursor: z
    .string()
    .max(64 * 1024)
    .optional()
    .describe(
      'From a `cursor` event: go on behind it; `last` is not heeded then. A browser sends it as Last-Event-ID.',
    ),
  window: z.coerce
    .number()
    .pipe(z.int().min(0).max(MERGE_WINDOW_MS))
    .default(DEFAULT_WINDOW_MS)
    .describe('For so many ms lines are held, and put in the order of their times: more order, or less delay.'),
})
export type TailQuery = z.infer<typeof tailQuery>
export const tailEvent = z.discriminatedUnion('type', [
  windowEvent,
  line,
  missedEvent,
  cursorEvent,
  heartbeatEvent,
  gapEvent,
])
export type TailEvent = z.infer<typeof tailEvent>

/** Bytes of a file that have landed, in the `text` format: `time container line`, `container!` where it was printed to stderr. */
export const stretchHead = z.object({
  file: line.shape.file,
  position: line.shape.position,
  bytes: count.describe('So many follow, whole lines.'),
  ...names.shape,
  host: line.shape.host,
  container: line.shape.container,
})
export type StretchHead = z.infer<typeof stretchHead>
export const batchEvent = z
  .object({
    type: z.literal('batch'),
    until: z
      .string()
      .optional()
      .describe(
        'All lines of up to this time are there, to be put in order by time, file and position; later ones wait for a later batch, for `missed` or for `gap`. Without it: all.',
      ),
    stretches: z.array(stretchHead).describe('Whose bytes follow, end to end, behind the newline of this event.'),
  })
  .describe('Lines of a tail whose client accepts `application/vnd.tallyman.batches`, as they stand in their files.')
export type BatchEvent = z.infer<typeof batchEvent>

/** `GET /api/v1/search`: history by a regular expression of ripgrep's (Rust's regex syntax), ended when the client leaves. */
export const searchQuery = z.strictObject({
  ...selection.shape,
  ...range.shape,
  pattern: pattern.describe('What is looked for; empty matches every line.'),
  fixed: flag.describe('`pattern` is text and no regular expression.'),
  ignoreCase: flag,
  word: flag.describe('Whole words alone.'),
  invert: flag.describe('Lines that do not match.'),
  exclude: many(pattern.min(1)).describe('Regular expression; no line that matches one is sent.'),
  before: z.coerce
    .number()
    .pipe(z.int().min(0).max(1000))
    .default(0)
    .describe('Lines of context in front of each match.'),
  after: z.coerce.number().pipe(z.int().min(0).max(1000)).default(0).describe('Lines of context behind each match.'),
  limit: z.coerce.number().pipe(z.int().min(1).max(MAX_LINES)).default(DEFAULT_LINES).describe('Matches at most.'),
  last: flag.describe('From the newest day backwards: the last matches first, where there are more than `limit`.'),
  count: flag.describe('Only how many lines match, a `count` event for each file that has any.'),
})
export type SearchQuery = z.infer<typeof searchQuery>
export const searchEvent = z.discriminatedUnion('type', [
  line,
  separatorEvent,
  countEvent,
  progressEvent,
  heartbeatEvent,
  endEvent,
])
export type SearchEvent = z.infer<typeof searchEvent>

/** `GET /api/v1/context`: a line and its neighbours in its file. */
export const contextQuery = z.strictObject({
  at: z.string().min(1).max(8192).describe("A line's cursor."),
  before: z.coerce.number().pipe(z.int().min(0).max(1000)).default(20),
  after: z.coerce.number().pipe(z.int().min(0).max(1000)).default(20),
})
export type ContextQuery = z.infer<typeof contextQuery>
export const contextAnswer = z.object({
  lines: z.array(line),
  index: count.describe('Which of `lines` was asked for.'),
  partial: z.array(gap).describe('What of the file is not known, and may be missing among them.'),
})
export type ContextAnswer = z.infer<typeof contextAnswer>

/** `GET /api/v1/histogram`: lines and bytes over time, from the index. */
export const histogramQuery = z.strictObject({
  ...selection.shape,
  ...range.shape,
  buckets: z.coerce.number().pipe(z.int().min(1).max(2000)).default(120),
  by: z.enum(['total', 'service', 'module', 'host', 'source']).default('module'),
})
export type HistogramQuery = z.infer<typeof histogramQuery>
export const histogramAnswer = z.object({
  since: z.string(),
  until: z.string(),
  /** Width of a bucket, ms. */
  step: z.number().positive(),
  series: z.array(
    z.object({
      key: z.string(),
      lines: z.array(z.number().min(0)),
      bytes: z.array(z.number().min(0)).describe('Of text, in the files.'),
    }),
  ),
  partial: z.array(gap),
})
export type HistogramAnswer = z.infer<typeof histogramAnswer>

/** `GET /api/v1/services`: what there is. */
export const servicesQuery = z.strictObject({ ...selection.pick({ target: true, service: true, module: true }).shape })
export type ServicesQuery = z.infer<typeof servicesQuery>
export const moduleOverview = z.object({
  ...names.shape,
  days: count,
  dates: z.array(day).optional().describe('Which days those are, the oldest first.'),
  files: count,
  lines: count,
  bytes: count,
  lost: z.int(),
  /** Time of its first and its last line. */
  first: z.string(),
  last: z.string(),
  /** Lines of each of the last 60 minutes, the oldest first. */
  rate: z.array(count),
  hosts: z.array(z.string()),
  containers: z.array(z.string()).describe('Of runs that the ledger remembers, the latest first, 100 at most.'),
})
export type ModuleOverview = z.infer<typeof moduleOverview>
export const servicesAnswer = z.object({ modules: z.array(moduleOverview), partial: z.array(gap) })
export type ServicesAnswer = z.infer<typeof servicesAnswer>

/** `GET /api/v1/days`: the days of the selected modules, the newest first. Opens no log file. */
export const daysQuery = z.strictObject({
  ...selection.pick({ target: true, service: true, module: true }).shape,
  since: day.optional(),
  until: day.optional(),
})
export type DaysQuery = z.infer<typeof daysQuery>
export const moduleDay = z.object({
  ...names.shape,
  day: z.string(),
  files: z.array(
    z.object({
      file: z.string().describe('As in `/api/v1/files/…`.'),
      bytes: count.describe('Of text.'),
      compressed: z.enum(['zst', 'gz']).optional(),
    }),
  ),
  lines: count,
  bytes: count,
  lost: z.int(),
  first: z.string(),
  last: z.string(),
})
export type ModuleDay = z.infer<typeof moduleDay>
export const daysAnswer = z.object({ days: z.array(moduleDay), partial: z.array(gap) })
export type DaysAnswer = z.infer<typeof daysAnswer>

/** `GET /api/v1/status`: the consumer itself, and those beside it. */
export const consumerStatus = z.object({
  name: z.string(),
  root: z.string().describe("The root's UUID."),
  version: z.string(),
  ready: z.boolean(),
  reason: z.string().optional().describe('Why it is not ready.'),
  lag: count.describe('Records that Kafka has and no file yet.'),
  timeZone: z.string().describe('Whose midnight ends a day file.'),
  lineFormat: z.enum(['text', 'raw', 'jsonl']),
  keepDays: count,
  disk: z.object({ free: count, size: count }).describe("Bytes of the root's disk."),
})
export type ConsumerStatus = z.infer<typeof consumerStatus>
export const statusAnswer = z.object({ consumers: z.array(consumerStatus), partial: z.array(gap) })
export type StatusAnswer = z.infer<typeof statusAnswer>

/** `GET /api/v1/ledger`: what came of every line, summed up by service, module, day or host, or run by run. */
export const ledgerQuery = z.strictObject({
  by: z
    .enum(['service', 'module', 'day', 'host', 'run'], { error: 'must be service, module, day, host or run' })
    .default('module'),
  service: z.string().optional(),
  module: z.string().optional(),
  host: z.string().optional(),
  since: day.optional(),
})
export type LedgerQuery = z.infer<typeof ledgerQuery>
export const lineCount = z
  .object({
    lines: count,
    written: count,
    lost: z
      .int()
      .describe('Below 0 where lines came late here that another consumer counts as lost: the sum over all is whole.'),
    lostBy: z.record(z.string(), z.int()).describe('Lost lines by reason.'),
    claimed: count.describe(
      'Lines that are for another consumer to write, which is away: it writes them when it is back, or somebody disowns its root.',
    ),
    doubled: count.describe('Lines that came twice and were written once.'),
    ratio: z.number().describe('`lost` by `lines`.'),
  })
  .describe('What came of lines: `lines` = `written` + `lost` + `claimed`.')
export type LineCount = z.infer<typeof lineCount>
export const ledgerRow = z.object({
  ...names.partial().shape,
  day: z.string().optional().describe('`older` sums up all days that are not kept any more.'),
  host: z.string().optional(),
  ...lineCount.shape,
  last: z.string(),
})
export type LedgerRow = z.infer<typeof ledgerRow>
const ledgerSource = z.object({
  numbered: count.describe('The highest number that any of its lines is known to have.'),
  ...lineCount.shape,
  holes: z.array(z.object({ from: count, to: count, reason: z.string() })),
})
export const runRow = z.object({
  run: z.string(),
  ...names.shape,
  host: z.string(),
  container: z.string(),
  first: z.string(),
  last: z.string(),
  state: z
    .enum(['open', 'ended', 'unfinished'])
    .describe('`ended`: its end was seen. `unfinished`: it was not, and nothing came for a day.'),
  agrees: z.boolean().describe('Of both sources each line that was numbered is written or lost, and counted once.'),
  sources: z.object({ stdout: ledgerSource, stderr: ledgerSource }),
})
export type RunRow = z.infer<typeof runRow>
export const ledgerAnswer = z.object({
  total: lineCount,
  rows: z.union([z.array(ledgerRow), z.array(runRow)]),
  partial: z.array(gap),
})
export type LedgerAnswer = z.infer<typeof ledgerAnswer>

/** `GET /api/v1/verify`: the files held against the ledger, byte by byte, and what was lost. */
export const verifyQuery = z.strictObject({
  service: z.string().optional(),
  module: z.string().optional(),
  since: day.optional(),
})
export type VerifyQuery = z.infer<typeof verifyQuery>
const numberRange = z.tuple([count, count])
export const problem = z
  .object({
    file: z.string(),
    what: z
      .enum(['missing', 'short', 'changed', 'uncounted', 'index', 'ledger'])
      .describe(
        '`short`: it ends too early; `changed`: bytes differ; `uncounted`: index and checkpoint disagree about it; `index`: the index is damaged; `ledger`: the ledger counts more or fewer lines as written than there are.',
      ),
    position: count.optional().describe('First byte of the first stretch that differs.'),
    bytes: count.optional().describe('Length of that stretch.'),
    run: z.string().optional().describe('Which run printed it.'),
    numbers: z
      .tuple([numberRange, numberRange])
      .optional()
      .describe('First and last number of its lines, of stdout and of stderr; 0 and 0 where it has none.'),
    lines: count.describe('Lines in all stretches that differ.'),
    message: z.string(),
  })
  .describe('A file that is not as it was written.')
export type Problem = z.infer<typeof problem>
export const loss = z
  .object({
    ...names.shape,
    host: z.string(),
    container: z.string(),
    run: z.string(),
    source: z.enum(['stdout', 'stderr']),
    from: count,
    to: count,
    reason: z.string(),
  })
  .describe('Numbers of lines that never came, of a run.')
export type Loss = z.infer<typeof loss>
export const verifyAnswer = z.object({
  files: count,
  bytes: count,
  rebuilt: count
    .default(0)
    .describe(
      'Bytes whose checksum was made anew, from what stood in the files when the index was mended: nothing vouches for them.',
    ),
  total: lineCount,
  removed: count.describe('Lines that were written to days that are not kept any more; they are not in `total`.'),
  problems: z.array(problem),
  losses: z.array(loss),
  partial: z.array(gap),
})
export type VerifyAnswer = z.infer<typeof verifyAnswer>

/** `GET /api/v1/dead-letters`: records that could not be decoded, by topic, partition and offset. */
export const deadLettersQuery = z.strictObject({
  limit: z.coerce.number().pipe(z.int().min(1).max(10_000)).default(DEFAULT_LINES).describe('Letters at most.'),
})
export type DeadLettersQuery = z.infer<typeof deadLettersQuery>
export const deadLetterRow = z.object({
  name: z.string(),
  topic: z.string(),
  partition: count,
  offset: count,
  time: z.string().describe('When Kafka appended it.'),
  reason: z
    .string()
    .describe(
      'Why it could not be decoded: `not-msgpack`, `not-json`, `not-inflated`, `unknown-version` or `invalid-chunk`.',
    ),
  message: z.string(),
  key: z.string(),
  headers: z.record(z.string(), z.string()),
  bytes: count.describe('Of its value.'),
})
export type DeadLetterRow = z.infer<typeof deadLetterRow>
export const deadLettersAnswer = z.object({
  letters: z.array(deadLetterRow),
  limited: z.boolean().describe('There are more than `limit` allowed.'),
  dropped: z
    .array(z.object({ partition: count, records: count, bytes: count, from: count, to: count }))
    .describe('Records that were not kept because there was no room, with the offsets of the first and the last.'),
  bytes: count.describe('That all letters take up.'),
  max: count.describe('That they may take up.'),
  partial: z.array(gap),
})
export type DeadLettersAnswer = z.infer<typeof deadLettersAnswer>

/** `GET /api/v1/dead-letters/:name`: one of them, whole. */
export const deadLetterParams = z.strictObject({ name: z.string().min(1).max(512) })
export const deadLetterAnswer = deadLetterRow.extend({
  value: z.string().describe("The record's value in base64."),
  lines: count.optional().describe('Lines that it holds: it can be decoded by now, and be replayed.'),
  refused: z.object({ reason: z.string(), message: z.string() }).optional().describe('Why it still can not.'),
})
export type DeadLetterAnswer = z.infer<typeof deadLetterAnswer>

/** `POST /api/v1/dead-letters/replay`: puts those that can be decoded by now back into Kafka, from where their lines land. */
export const replayBody = z.strictObject({
  names: z.array(z.string().min(1).max(512)).max(10_000).optional().describe('Which ones; all where nothing is said.'),
})
export type ReplayBody = z.infer<typeof replayBody>
export const replayAnswer = z.object({
  replayed: z.array(z.object({ name: z.string(), lines: count })).describe('They are no dead letters any more.'),
  failed: z
    .array(z.object({ name: z.string(), reason: z.string(), message: z.string() }))
    .describe('They stay: they can still not be decoded, or are of another topic.'),
  partial: z.array(gap),
})
export type ReplayAnswer = z.infer<typeof replayAnswer>

/** `POST /api/v1/reindex`: makes the index whole again, from Kafka and from the files. A stream that ends with `end`. */
export const reindexBody = z.strictObject({
  service: z.string().optional().describe('Of this service alone.'),
  module: z.string().optional().describe('Of this module alone.'),
  day: day.optional().describe('Of this day alone.'),
  kafka: z.boolean().default(true).describe('Whether Kafka is read; otherwise the files alone.'),
})
export type ReindexBody = z.infer<typeof reindexBody>
const consumerName = z.string().optional().describe('Whose index it is, where there are several.')
export const reindexedDay = z
  .object({
    consumer: consumerName,
    day,
    damaged: count.describe('Bytes of the index that told nothing.'),
    blank: count.describe('Bytes of files of which no row of the index told what was written there.'),
    fromKafka: count.describe('Of these, those that Kafka still knew: they are as if nothing had happened.'),
    fromFiles: count.describe(
      'Those of which the lines, and the rows around them, tell time, container and source; not run and number, unless they are certain.',
    ),
    guessed: count.describe('Those of lines that say nothing of themselves: their times and containers are unknown.'),
    changed: z.boolean().describe('The index of the day is another one now.'),
  })
  .describe('A day, and what became of its index.')
export type ReindexedDay = z.infer<typeof reindexedDay>
export const reindexEvent = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('progress'),
    consumer: consumerName,
    step: z
      .enum(['index', 'kafka', 'files'])
      .describe('What is read: days of the index, records of Kafka, bytes of files.'),
    done: count,
    total: count,
  }),
  z.object({
    type: z.literal('end'),
    days: z.array(reindexedDay),
    partial: z.array(gap).describe('What of Kafka could not be read.'),
  }),
])
export type ReindexEvent = z.infer<typeof reindexEvent>

/** `/api/v1/session`: GET who one is, POST to log in with a token (sets a cookie), DELETE to log out. */
export const sessionBody = z.strictObject({ token: z.string().min(1).max(1024) })
export const sessionAnswer = z.object({
  required: z.boolean().describe('Whether a token is needed here.'),
  name: z.string().optional().describe('Whose token it is; missing where one is needed and none was given.'),
  services: z.array(z.string()).describe('Globs of the services that may be read.'),
})
export type SessionAnswer = z.infer<typeof sessionAnswer>

/** `GET /api/v1/roots`: the roots of which others hold partitions now, and what they claimed and have not written. */
export const rootClaims = z.object({
  root: z.string().describe("The root's UUID, as it stands in its `.tallyman/uuid`."),
  state: z.enum(['claimed', 'disowned']),
  partitions: z.array(count),
  lines: count.describe('At most so many: what it wrote in its last seconds it may not have told.'),
  uncounted: count.describe(
    'Records of it that Kafka dropped before anybody counted their lines, which are not among these.',
  ),
})
export type RootClaims = z.infer<typeof rootClaims>
export const rootsAnswer = z.object({ roots: z.array(rootClaims), partial: z.array(gap) })
export type RootsAnswer = z.infer<typeof rootsAnswer>

/** `POST /api/v1/roots/:root/disown`: its claims count as lost from now on. */
export const disownParams = z.strictObject({ root: z.uuid({ error: 'must be the UUID of a root' }) })
