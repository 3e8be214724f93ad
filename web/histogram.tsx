/**
 * The histogram: lines over time, by module, service, host or source, from the index. Dragging over it narrows the range.
 *
 * Invariants
 * - It counts all lines of the selection; what is looked for in them does not change it, and the caption says so.
 * - It never asks while an answer is outstanding, nor for a page that nobody sees.
 */

import { type Signal, useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import { hueOf, modules } from './catalog.ts'
import 'uplot/dist/uPlot.min.css'
import type { HistogramAnswer } from '../consumer/api-schema.ts'
import type { Api } from './api.ts'
import { theme, zone } from './preferences.ts'
import { histogramQuery, type Span, spanOf } from './queries.ts'
import { BYS, type By, sameLines, type View } from './view.ts'
import { brief, counted, minuteOf, stamp } from './words.ts'

const HEIGHT = 96
const LIVE_EVERY_MS = 5_000
/** Series that are told apart; the rest is one. */
const SERIES = 9
const OTHERS = 'others'

type Props = {
  api: Api
  view: View
  /** Of the reader: counts up when the range is read anew. */
  now: Signal<number>
  onRange(span: Span): void
  onBy(by: By): void
}

type Series = { key: string; lines: number[]; total: number }

/** The biggest series, the rest as one, the biggest first. */
function seriesOf({ series }: HistogramAnswer): Series[] {
  const all = series.map(({ key, lines }) => ({ key, lines, total: lines.reduce((sum, n) => sum + n, 0) }))
  all.sort((a, b) => b.total - a.total)
  if (all.length <= SERIES) return all
  const rest = all.slice(SERIES - 1)
  const lines = rest[0]!.lines.map((_, i) => rest.reduce((sum, one) => sum + one.lines[i]!, 0))
  return [...all.slice(0, SERIES - 1), { key: OTHERS, lines, total: rest.reduce((sum, one) => sum + one.total, 0) }]
}

const fixed: Record<string, string> = { stdout: '--accent', stderr: '--bad', total: '--accent', [OTHERS]: '--faint' }
const colorOf = (key: string): string => themeColor(fixed[key] ?? `--hue-${hueOf(key)}`)

/** A colour of the theme, as a canvas takes it: the property itself says what it is in either theme. */
function themeColor(property: string): string {
  const probe = document.body.appendChild(document.createElement('span'))
  probe.style.color = `var(${property})`
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}

export function Histogram({ api, view, now, onRange, onBy }: Props) {
  const answer = useSignal<HistogramAnswer | undefined>(undefined)
  const failure = useSignal<string | undefined>(undefined)
  const hovered = useSignal<number | undefined>(undefined)
  const place = useRef<HTMLDivElement>(null)
  const asked = useRef(view)
  if (!sameLines(asked.current, view) || asked.current.by !== view.by) asked.current = view
  const of = asked.current
  const live = of.since === undefined
  const width = useSignal(0)

  useEffect(() => {
    const ended = new AbortController()
    let timer: ReturnType<typeof setTimeout> | undefined
    const ask = async (): Promise<void> => {
      if (document.visibilityState === 'visible') {
        const at = live ? Date.now() : now.value
        const buckets = Math.max(20, Math.min(240, Math.floor((place.current?.clientWidth ?? 800) / 6)))
        try {
          answer.value = await api.get<HistogramAnswer>(
            '/histogram',
            histogramQuery(of, spanOf(of, at), buckets),
            ended.signal,
          )
          failure.value = undefined
        } catch (error) {
          if (ended.signal.aborted) return
          failure.value = (error as Error).message
        }
      }
      if (live && !ended.signal.aborted) timer = setTimeout(ask, LIVE_EVERY_MS)
    }
    void ask()
    return () => {
      ended.abort()
      clearTimeout(timer)
    }
  }, [of, now.value, live, api])

  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => {
      width.value = Math.floor(entry!.contentRect.width)
    })
    observer.observe(place.current!)
    return () => observer.disconnect()
  }, [width])

  const series = answer.value ? seriesOf(answer.value) : []
  const total = series.reduce((sum, one) => sum + one.total, 0)
  const choose = useRef(onRange)
  choose.current = onRange

  useEffect(() => {
    const data = answer.value
    if (!data || !place.current || width.value < 50 || total === 0) return
    const plot = draw(place.current, data, series, width.value, hovered, (span) => choose.current(span))
    return () => plot.destroy()
  }, [answer.value, width.value, theme.value, zone.value, modules.value.length])

  const at = hovered.value
  const step = answer.value?.step ?? 0
  const from = answer.value && at !== undefined ? Date.parse(answer.value.since) + at * step : 0
  return (
    <section class="histogram" aria-label="Lines over time">
      <div class="histogram-head">
        <span class="muted">
          {failure.value ??
            (answer.value
              ? `${counted(Math.round(total), 'line')}${of.text === '' && of.exclude.length === 0 ? '' : ' before the search'}`
              : 'Counting…')}
        </span>
        <ul class="legend">
          {series.slice(0, 6).map(({ key }) => (
            <li key={key}>
              <span class={`swatch ${fixed[key] ? `swatch-${key}` : `hue-${hueOf(key)}`}`} />
              {key}
            </li>
          ))}
          {series.length > 6 && <li>+{series.length - 6}</li>}
        </ul>
        <label class="by">
          <span class="muted">by</span>
          <select value={view.by} onChange={(event) => onBy(event.currentTarget.value as By)}>
            {BYS.map((by) => (
              <option key={by} value={by}>
                {by}
              </option>
            ))}
          </select>
        </label>
      </div>
      <div
        ref={place}
        class="plot"
        role="img"
        aria-label={`Histogram: ${counted(Math.round(total), 'line')}. Drag to narrow the range.`}
      >
        {answer.value && total === 0 && <div class="plot-empty muted">No lines in this range</div>}
        {at !== undefined && answer.value && total > 0 && (
          <div class={`plot-tip ${at > answer.value.series[0]!.lines.length / 2 ? 'left' : ''}`}>
            <div class="muted">
              {stamp(new Date(from), step < 1_000)} · {step >= 1_000 ? `${Math.round(step / 1_000)} s` : `${step} ms`}
            </div>
            {series
              .filter(({ lines }) => lines[at]! > 0)
              .map(({ key, lines }) => (
                <div key={key} class="plot-tip-row">
                  <span class={`swatch ${fixed[key] ? `swatch-${key}` : `hue-${hueOf(key)}`}`} />
                  <span>{key}</span>
                  <b>{brief(Math.round(lines[at]!))}</b>
                </div>
              ))}
          </div>
        )}
      </div>
    </section>
  )
}

/** Bars stand one on another: each is drawn as high as all below it, the highest first. */
function draw(
  place: HTMLElement,
  answer: HistogramAnswer,
  series: Series[],
  width: number,
  hovered: Signal<number | undefined>,
  onRange: (span: Span) => void,
): uPlot {
  const since = Date.parse(answer.since)
  const count = series[0]?.lines.length ?? 1
  // A bucket's bar stands in the middle of its time.
  const xs = Array.from({ length: count }, (_, i) => (since + (i + 0.5) * answer.step) / 1_000)
  const sums = Array<number>(count).fill(0)
  const stacked = series.map(({ lines }) => lines.map((n, i) => (sums[i] = sums[i]! + n)))
  const bars = uPlot.paths.bars!({ size: [0.86, 24], gap: 0 })
  const axis = {
    stroke: themeColor('--muted'),
    font: '11px "Inter Variable", sans-serif',
    grid: { stroke: themeColor('--line'), width: 1 },
    ticks: { show: false },
  }
  return new uPlot(
    {
      width,
      height: HEIGHT,
      ms: 1e-3,
      tzDate: (seconds) =>
        zone.value === 'utc' ? uPlot.tzDate(new Date(seconds * 1_000), 'Etc/UTC') : new Date(seconds * 1_000),
      legend: { show: false },
      padding: [6, 16, 0, 0],
      cursor: { drag: { x: true, y: false, setScale: false, dist: 5 }, points: { show: false }, y: false },
      scales: {
        x: { range: [since / 1_000, Date.parse(answer.until) / 1_000] },
        y: { range: (_self, _min, max) => [0, Math.max(1, max)] },
      },
      axes: [
        { ...axis, size: 22, gap: 4, grid: { show: false }, space: 90, values: (_self, ticks) => tickWords(ticks) },
        {
          ...axis,
          size: 42,
          gap: 4,
          space: 28,
          values: (_self, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? brief(tick) : '')),
        },
      ],
      series: [
        {},
        ...series
          .map(({ key }) => ({ label: key, fill: colorOf(key), width: 0, paths: bars, points: { show: false } }))
          .toReversed(),
      ],
      hooks: {
        setCursor: [
          (self) => {
            hovered.value = self.cursor.idx ?? undefined
          },
        ],
        setSelect: [
          (self) => {
            const { left, width: wide } = self.select
            if (wide < 4) return
            onRange({
              since: Math.floor(self.posToVal(left, 'x') * 1_000),
              until: Math.ceil(self.posToVal(left + wide, 'x') * 1_000),
            })
          },
        ],
      },
    },
    [xs, ...stacked.toReversed()],
    place,
  )
}

/** The day is told where it changes. */
function tickWords(ticks: number[]): string[] {
  const apart = ticks.length > 1 ? ticks[1]! - ticks[0]! : 0
  let day = ''
  return ticks.map((tick) => {
    const words = minuteOf(new Date(tick * 1_000))
    const [, today, clock] = /^(\w+ \d+) (.*)$/.exec(words)!
    const changes = today !== day && day !== ''
    day = today!
    if (apart >= 86_400) return today!
    if (apart < 60) return stamp(new Date(tick * 1_000), false).slice(11)
    return changes ? words : clock!
  })
}
