/** JSON as a tree that opens and closes. A node's children are made when it is opened. */
import { useState } from 'preact/hooks'
import { Pieces } from './pieces.tsx'

/** Children that are made at once; more on demand. */
const SHOWN = 100

type Props = { name?: string; value: unknown; open?: boolean; depth?: number }

const isNode = (value: unknown): value is object => typeof value === 'object' && value !== null

function Leaf({ value }: { value: unknown }) {
  if (typeof value === 'string') {
    return (
      <span class="json-string">
        "<Pieces text={value} />"
      </span>
    )
  }
  return <span class={`json-${value === null ? 'null' : typeof value}`}>{String(value)}</span>
}

const Name = ({ name }: { name: string }) => (
  <span class="json-name">
    <Pieces text={name} />
    <span class="json-colon">: </span>
  </span>
)

export function JsonTree({ name, value, open = true, depth = 0 }: Props) {
  const [isOpen, setOpen] = useState(open)
  const [shown, setShown] = useState(SHOWN)
  if (!isNode(value)) {
    return (
      <div class="json-leaf">
        {name !== undefined && <Name name={name} />}
        <Leaf value={value} />
      </div>
    )
  }
  const entries = Object.entries(value)
  const [begin, end] = Array.isArray(value) ? ['[', ']'] : ['{', '}']
  return (
    <div class="json-node">
      <button type="button" class="json-toggle" aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
        <span class="twist" aria-hidden="true" />
        {name !== undefined && <Name name={name} />}
        <span class="json-count">{isOpen ? begin : `${begin} ${entries.length} ${end}`}</span>
      </button>
      {isOpen && (
        <div class="json-children">
          {entries.slice(0, shown).map(([key, child]) => (
            <JsonTree key={key} name={key} value={child} open={depth < 1} depth={depth + 1} />
          ))}
          {entries.length > shown && (
            <button type="button" class="link" onClick={() => setShown(shown + 10 * SHOWN)}>
              {entries.length - shown} more
            </button>
          )}
        </div>
      )}
      {isOpen && <div class="json-end">{end}</div>}
    </div>
  )
}
