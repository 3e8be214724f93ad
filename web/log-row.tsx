/** A row: a line with its time and where it comes from; a trace or a JSON object behind it unfolds. */

import { memo } from 'preact/compat'
import { useMemo } from 'preact/hooks'
import type { Line } from '../consumer/api-schema.ts'
import { hueOf } from './catalog.ts'
import { levelOfRow, type Row } from './feed.ts'
import { fieldsOf, summaryOf } from './json.ts'
import { JsonTree } from './json-tree.tsx'
import { Pieces, placesOf } from './pieces.tsx'
import { clock, date } from './words.ts'

/** What is looked for as text: the places of it are found here where the server did not say them. */
export type Wanted = { text: string; matchCase: boolean }

type Props = {
  row: Row
  /** Whether it is the one that keys go from. */
  current: boolean
  unfolded: boolean
  wanted?: Wanted | undefined
  /** Whether its service stands before its module. */
  withService: boolean
  onToggle(row: Row): void
  /** How many frames it has by now. */
  frames: number
  /** What decides how times look. */
  zone: string
  summarized: boolean
}

const today = (time: Date): boolean => date(time) === date(new Date())

export const LogRow = memo(({ row, current, unfolded, wanted, withService, onToggle, summarized }: Props) => {
  const { line, frames } = row
  const time = new Date(line.time)
  const level = levelOfRow(row)
  const json = useMemo(() => fieldsOf(line.line), [line])
  const name = `${line.service}/${line.module}`
  const folds = frames.length > 0 || json !== undefined
  return (
    <div class={`row ${level ? `level-${level}` : ''} ${current ? 'current' : ''} ${line.context ? 'around' : ''}`}>
      {folds ? (
        <button
          type="button"
          class="fold"
          aria-expanded={unfolded}
          aria-label={frames.length > 0 ? `Stack trace, ${frames.length} more lines` : 'JSON'}
          onClick={() => onToggle(row)}
        >
          <span class="twist" />
        </button>
      ) : (
        <span class="fold" />
      )}
      <time class="time" dateTime={line.time}>
        {!today(time) && <span class="date">{date(time)} </span>}
        {clock(time)}
      </time>
      <span class={`module hue-${hueOf(name)}`} title={`${name} · ${line.container} on ${line.host}`}>
        {withService && <span class="service">{line.service}/</span>}
        {line.module}
      </span>
      {level ? <span class={`level ${level}`}>{level}</span> : <span class="level" />}
      <span class="text">
        <Text line={line} wanted={wanted} json={summarized ? json : undefined} />
        {frames.length > 0 && !unfolded && <span class="frames">+{frames.length} lines</span>}
        {unfolded && frames.length > 0 && (
          <div class="trace">
            {frames.map((frame) => (
              <div key={frame.at}>
                <Pieces text={frame.line} matches={frame.matches} />
                {frame.line === '' && '\u00a0'}
              </div>
            ))}
          </div>
        )}
        {unfolded && json && (
          <div class="tree">
            <JsonTree value={json} />
          </div>
        )}
      </span>
      {line.source === 'stderr' && (
        <span class="stderr" title="Printed to stderr">
          stderr
        </span>
      )}
    </div>
  )
})

type TextProps = { line: Line; wanted: Wanted | undefined; json: ReturnType<typeof fieldsOf> }

function Text({ line, wanted, json }: TextProps) {
  const places = useMemo(
    () => line.matches ?? (wanted ? placesOf(line.line, wanted.text, wanted.matchCase) : undefined),
    [line, wanted],
  )
  const summary = useMemo(() => json && summaryOf(json), [json])
  // What was found is shown where it was found.
  if (summary && !places?.length) {
    return (
      <>
        <span class="message">
          <Pieces text={summary.message} />
        </span>
        {summary.fields.map(([key, value]) => (
          <span class="field" key={key}>
            <span class="field-name">{key}=</span>
            {value}
          </span>
        ))}
      </>
    )
  }
  return <Pieces text={line.line} matches={places} />
}
