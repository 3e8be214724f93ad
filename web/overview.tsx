/** The overview: what there is, how it goes, and what came of every line: how many were lost, where and why. */
import { useSignal } from '@preact/signals'
import type { IconNode } from 'lucide'
import { AlertTriangle, ArrowRight, CheckCircle2, HardDrive, Layers, Timer, XCircle } from 'lucide'
import type { LedgerAnswer, LedgerRow, ModuleOverview, RunRow } from '../consumer/api-schema.ts'
import { asOf, hueOf, lag, ledger, ledgerRows, modules, services, status, trouble } from './catalog.ts'
import { Icon } from './icon.tsx'
import { roughly } from './moment.ts'
import { changed, linkTo, view } from './route.ts'
import { api } from './session.ts'
import { Sparkline } from './sparkline.tsx'
import { EMPTY } from './view.ts'
import { ALLOWED_ONE_IN, brief, bytes, counted, exact, lossRatio, stamp } from './words.ts'

const REASONS: Record<string, string> = {
  gap: 'numbers that never came',
  'journal-full': 'the journal was full while Kafka was away',
  disk: "the host's disk refused",
  'too-large': 'lines that Kafka does not take',
  damaged: "a host's disk damaged them: an estimate",
  expired: 'Kafka removed them before they were read',
  disowned: 'a consumer had claimed them whose disk is gone',
}

function Tile({
  icon,
  name,
  value,
  note,
  tone = '',
}: {
  icon: IconNode
  name: string
  value: string
  note: string
  tone?: string
}) {
  return (
    <div class={`tile ${tone}`}>
      <div class="tile-name">
        <Icon of={icon} />
        {name}
      </div>
      <div class="tile-value">{value}</div>
      <div class="tile-note muted">{note}</div>
    </div>
  )
}

function Tiles() {
  const total = ledger.value?.total
  const consumers = status.value?.consumers ?? []
  const away = status.value?.partial ?? []
  const perMinute = modules.value.reduce((sum, { rate }) => sum + (rate.at(-2) ?? 0), 0)
  const disks = consumers.map(({ disk }) => disk)
  const fullest = disks.toSorted((a, b) => a.free / a.size - b.free / b.size)[0]
  const within = !total || total.ratio <= 1 / ALLOWED_ONE_IN
  const unready = consumers.filter(({ ready }) => !ready)
  return (
    <div class="tiles">
      <Tile
        icon={Layers}
        name="Lines counted"
        value={total ? brief(total.lines) : '…'}
        note={total ? `${exact(total.lines)} in all · ${brief(perMinute)} in the last minute` : 'Counting…'}
      />
      <Tile
        icon={within ? CheckCircle2 : AlertTriangle}
        tone={total ? (total.lost <= 0 ? 'good' : within ? 'fair' : 'bad') : ''}
        name="Lost"
        value={total ? exact(total.lost) : '…'}
        note={
          total
            ? total.lost <= 0
              ? `of ${brief(total.lines)}: every line is there`
              : `${lossRatio(total.ratio)}; allowed is 1 in ${exact(ALLOWED_ONE_IN)}`
            : ''
        }
      />
      <Tile
        icon={Timer}
        name="Lag"
        value={lag.value === undefined ? '…' : exact(lag.value)}
        note={lag.value === 0 ? 'Kafka holds nothing that is in no file' : 'records in Kafka that are in no file yet'}
      />
      <Tile
        icon={unready.length + away.length > 0 ? XCircle : HardDrive}
        tone={unready.length + away.length > 0 ? 'bad' : ''}
        name={consumers.length === 1 ? 'Consumer' : 'Consumers'}
        value={
          status.value
            ? unready.length + away.length > 0
              ? `${unready.length + away.length} in trouble`
              : 'Ready'
            : '…'
        }
        note={
          unready[0]?.reason ??
          away[0]?.message ??
          (fullest ? `${bytes(fullest.free)} of ${bytes(fullest.size)} free · ${consumers[0]!.keepDays} days kept` : '')
        }
      />
    </div>
  )
}

/** Modules that are shown at once; more on demand. */
const SHOWN = 200

/** Figures that do not hold what every consumer has. */
function Missing() {
  const all = [services.value, ledger.value, status.value].flatMap((answer) => answer?.partial ?? [])
  const words = [...new Set(all.map(({ consumer, message }) => (consumer ? `${consumer}: ${message}` : message)))]
  if (words.length === 0) return null
  return (
    <div class="notice fair" role="status">
      <Icon of={AlertTriangle} /> These figures are not whole. {words.slice(0, 3).join('; ')}
      {words.length > 3 && `; and ${words.length - 3} more`}
    </div>
  )
}

const SORTS = {
  name: (a: ModuleOverview, b: ModuleOverview) => `${a.service}/${a.module}`.localeCompare(`${b.service}/${b.module}`),
  rate: (a: ModuleOverview, b: ModuleOverview) => total(b) - total(a),
  last: (a: ModuleOverview, b: ModuleOverview) => b.last.localeCompare(a.last),
  lines: (a: ModuleOverview, b: ModuleOverview) => b.lines - a.lines,
  lost: (a: ModuleOverview, b: ModuleOverview) => b.lost - a.lost,
} as const
type Sort = keyof typeof SORTS

const total = ({ rate }: ModuleOverview): number => rate.reduce((sum, n) => sum + n, 0)

export function Overview() {
  const sort = useSignal<Sort>('name')
  const wanted = useSignal('')
  const limit = useSignal(SHOWN)
  const shown = modules.value
    .filter(({ service, module }) => `${service}/${module}`.toLowerCase().includes(wanted.value.toLowerCase()))
    .toSorted(SORTS[sort.value])
  const Head = ({ by, children, className = '' }: { by: Sort; children: string; className?: string }) => (
    <th
      scope="col"
      class={className}
      aria-sort={sort.value === by ? (by === 'name' ? 'ascending' : 'descending') : undefined}
    >
      <button
        type="button"
        class="th"
        onClick={() => {
          sort.value = by
        }}
      >
        {children}
      </button>
    </th>
  )
  return (
    <main class="overview" id="main">
      <h1 class="offscreen">Overview</h1>
      {trouble.value && (
        <div class="notice bad" role="alert">
          <Icon of={AlertTriangle} />
          {trouble.value}
        </div>
      )}
      <Missing />
      <Tiles />
      <section class="card">
        <header class="card-head">
          <h2>Services</h2>
          <span class="muted">{services.value && counted(modules.value.length, 'module')}</span>
          <input
            type="search"
            class="card-filter"
            placeholder="Filter…"
            aria-label="Filter modules"
            value={wanted.value}
            onInput={(event) => {
              wanted.value = event.currentTarget.value
            }}
          />
        </header>
        {services.value === undefined ? (
          <Skeleton />
        ) : modules.value.length === 0 ? (
          <Empty />
        ) : (
          <div class="table-scroll" role="region" aria-label="Modules" tabIndex={0}>
            <table>
              <thead>
                <tr>
                  <Head by="name">Module</Head>
                  <Head by="rate">Last hour</Head>
                  <Head by="last" className="number">
                    Last line
                  </Head>
                  <Head by="lines" className="number">
                    Lines
                  </Head>
                  <th scope="col" class="number wide">
                    Size
                  </th>
                  <Head by="lost" className="number">
                    Lost
                  </Head>
                  <th scope="col" class="wide">
                    Hosts
                  </th>
                </tr>
              </thead>
              <tbody>
                {shown.slice(0, limit.value).map((one) => (
                  <ModuleRow key={`${one.service}/${one.module}`} of={one} />
                ))}
              </tbody>
            </table>
            {shown.length === 0 && <p class="empty muted">No module is called so.</p>}
            {shown.length > limit.value && (
              <p class="more-modules">
                <button
                  type="button"
                  class="link"
                  onClick={() => {
                    limit.value *= 10
                  }}
                >
                  {exact(shown.length - limit.value)} more
                </button>
              </p>
            )}
          </div>
        )}
      </section>
      <Losses />
    </main>
  )
}

const linesOf = (target: string): string =>
  linkTo(changed({ ...EMPTY, targets: [target], since: undefined, at: undefined }))

/** A link that the page follows by itself, and that opens in a new tab as any other. */
export function follow(event: MouseEvent): void {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return
  event.preventDefault()
  const { href } = event.currentTarget as HTMLAnchorElement
  history.pushState(null, '', href)
  dispatchEvent(new PopStateEvent('popstate'))
}

function ModuleRow({ of }: { of: ModuleOverview }) {
  const name = `${of.service}/${of.module}`
  const age = asOf.value - Date.parse(of.last)
  const hour = total(of)
  return (
    <tr>
      <th scope="row">
        <a class="module-link" href={linesOf(name)} onClick={follow}>
          <span class={`dot hue-${hueOf(name)}`} />
          <span>
            <span class="muted">{of.service}/</span>
            {of.module}
          </span>
          <Icon of={ArrowRight} size={14} />
        </a>
      </th>
      <td>
        <div class="rate">
          <Sparkline rate={of.rate} label={`${exact(hour)} lines in the last hour`} />
          <span class="muted">{brief(hour)}</span>
        </div>
      </td>
      <td class="number" title={of.last && stamp(new Date(of.last))}>
        <span class={age < 90_000 ? 'fresh' : 'muted'}>{of.last ? `${roughly(age)} ago` : 'never'}</span>
      </td>
      <td class="number" title={exact(of.lines)}>
        {brief(of.lines)}
      </td>
      <td class="number wide muted">{bytes(of.bytes)}</td>
      <td class="number">{of.lost === 0 ? <span class="muted">0</span> : <b class="lost">{exact(of.lost)}</b>}</td>
      <td class="wide muted">{of.hosts.join(', ')}</td>
    </tr>
  )
}

/** Where lines were lost, and why. */
function Losses() {
  const { value } = ledger
  if (!value) return null
  const rows = ledgerRows.value.filter(({ lost }) => lost > 0).toSorted((a, b) => b.lost - a.lost)
  return (
    <section class="card">
      <header class="card-head">
        <h2>Ledger</h2>
        <span class="muted">
          {exact(value.total.written)} written
          {value.total.doubled > 0 && `, ${exact(value.total.doubled)} came twice and were written once`}
        </span>
      </header>
      {rows.length === 0 ? (
        <p class="all-there">
          <Icon of={CheckCircle2} size={20} />
          <span>
            Every line that was printed is in a file.{' '}
            <span class="muted">Had one been lost, it would stand here, with where and why.</span>
          </span>
        </p>
      ) : (
        <div class="table-scroll" role="region" aria-label="Lost lines" tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">Where</th>
                <th scope="col" class="number">
                  Lost
                </th>
                <th scope="col" class="number">
                  Ratio
                </th>
                <th scope="col">Why</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <LossRow key={`${row.service}/${row.module}`} row={row} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  )
}

function LossRow({ row }: { row: LedgerRow }) {
  const name = `${row.service}/${row.module}`
  const over = row.ratio > 1 / ALLOWED_ONE_IN
  return (
    <tr>
      <th scope="row">
        <a class="module-link" href={linesOf(name)} onClick={follow}>
          <span class={`dot hue-${hueOf(name)}`} />
          {name}
        </a>
      </th>
      <td class="number">
        <b class="lost">{exact(row.lost)}</b>
        <span class="muted"> of {brief(row.lines)}</span>
      </td>
      <td class={`number ${over ? 'over' : ''}`}>
        {lossRatio(row.ratio)}
        {over && <span class="tag bad">over 1 in {exact(ALLOWED_ONE_IN)}</span>}
      </td>
      <td>
        {Object.entries(row.lostBy)
          .filter(([, lines]) => lines !== 0)
          .map(([reason, lines]) => (
            <div key={reason}>
              <code>{reason}</code> {exact(lines)} <span class="muted">{REASONS[reason] ?? ''}</span>
            </div>
          ))}
        <Holes service={row.service ?? ''} module={row.module ?? ''} />
      </td>
    </tr>
  )
}

/** Holes that are listed. */
const HOLES = 100

/** Which numbers of which runs are missing; asked for when it is opened. */
function Holes({ service, module }: { service: string; module: string }) {
  const runs = useSignal<RunRow[] | undefined>(undefined)
  const failure = useSignal<string | undefined>(undefined)
  const ask = async (): Promise<void> => {
    try {
      const answer = await api.get<LedgerAnswer>('/ledger', new URLSearchParams({ by: 'run', service, module }))
      runs.value = answer.rows as RunRow[]
    } catch (error) {
      failure.value = (error as Error).message
    }
  }
  const holes = (runs.value ?? []).flatMap(({ run, host, container, sources }) =>
    (['stdout', 'stderr'] as const).flatMap((source) =>
      sources[source].holes.map((hole) => ({ ...hole, key: `${run} ${source} ${hole.from}`, host, container, source })),
    ),
  )
  return (
    <details class="holes" onToggle={(event) => event.currentTarget.open && void ask()}>
      <summary>Which ones</summary>
      {failure.value && <p class="failure">{failure.value}</p>}
      {runs.value && holes.length === 0 && (
        <p class="muted">Of runs that are over: their numbers are no longer kept.</p>
      )}
      {holes.length > 0 && (
        <ul>
          {holes.slice(0, HOLES).map(({ key, container, host, source, from, to, reason }) => (
            <li key={key}>
              {container} <span class="muted">on {host},</span> {source}{' '}
              <b>{from === to ? exact(from) : `${exact(from)} – ${exact(to)}`}</b> <code>{reason}</code>
            </li>
          ))}
          {holes.length > HOLES && (
            <li class="muted">and {exact(holes.length - HOLES)} more: tallyman verify lists all</li>
          )}
        </ul>
      )}
    </details>
  )
}

const Skeleton = () => (
  <div class="skeleton" role="status">
    <span class="offscreen">Loading</span>
    {[0, 1, 2, 3].map((i) => (
      <div key={i} class="skeleton-row" />
    ))}
  </div>
)

export const Empty = () => (
  <div class="empty">
    <p>
      <b>No lines yet.</b>
    </p>
    <p class="muted">Log a container through the driver, and its lines are here a moment later:</p>
    <pre>
      <code>docker run --log-driver tallyman --log-opt service=shop --log-opt module=web IMAGE</code>
    </pre>
  </div>
)

/** For the header: how the ledger stands, wherever one is. */
export function LedgerChip() {
  const sum = ledger.value?.total
  if (!sum) return null
  const tone = sum.lost <= 0 ? 'good' : sum.ratio <= 1 / ALLOWED_ONE_IN ? 'fair' : 'bad'
  return (
    <a
      class={`chip ${tone}`}
      href={linkTo({ ...view.value, page: 'overview' })}
      onClick={follow}
      title={`${exact(sum.lost)} of ${exact(sum.lines)} lines lost`}
    >
      <Icon of={sum.lost <= 0 ? CheckCircle2 : AlertTriangle} size={14} />
      <span>{sum.lost <= 0 ? 'none lost' : `${brief(sum.lost)} lost`}</span>
    </a>
  )
}
