/** The picker: a few letters find a service, a module, a host, a container, or something that the page does. */

import uFuzzy from '@leeoniya/ufuzzy'
import { useSignal } from '@preact/signals'
import { Box, Boxes, Command as CommandIcon, Container, Server } from 'lucide'
import { useMemo, useRef } from 'preact/hooks'
import { hosts, modules } from './catalog.ts'
import { Dialog } from './dialog.tsx'
import { Icon } from './icon.tsx'
import { BINDINGS, type Command, keyName } from './keys.ts'
import { goToLines } from './route.ts'
import { brief } from './words.ts'

const SHOWN = 60
/** What is found is shown in this order, the best of each kind first. */
const KINDS = ['service', 'module', 'host', 'container', 'command']
const fuzzy = new uFuzzy({ intraIns: Number.POSITIVE_INFINITY, intraChars: '.', interChars: '.' })

type Choice = { text: string; kind: string; icon: typeof Box; note: string; choose(): void }

export function Picker({ onClose, onCommand }: { onClose(): void; onCommand(command: Command): void }) {
  const typed = useSignal('')
  const at = useSignal(0)
  const list = useRef<HTMLDivElement>(null)
  const choices = useMemo((): Choice[] => {
    const byService = Map.groupBy(modules.value, ({ service }) => service)
    const containers = [...new Set(modules.value.flatMap((one) => one.containers))]
    return [
      ...[...byService].map(([service, of]) => ({
        ...{ text: `${service}/*`, kind: 'service', icon: Boxes, note: `${of.length} modules` },
        choose: () => goToLines({ targets: [`${service}/*`] }),
      })),
      ...modules.value.map(({ service, module, lines }) => ({
        ...{ text: `${service}/${module}`, kind: 'module', icon: Box, note: `${brief(lines)} lines` },
        choose: () => goToLines({ targets: [`${service}/${module}`] }),
      })),
      ...hosts.value.map((host) => ({
        ...{ text: host, kind: 'host', icon: Server, note: '', choose: () => goToLines({ hosts: [host] }) },
      })),
      ...containers.map((container) => ({
        ...{ text: container, kind: 'container', icon: Container, note: '' },
        choose: () => goToLines({ containers: [container] }),
      })),
      ...BINDINGS.filter(({ command }) => !['picker', 'close', 'next', 'previous', 'open'].includes(command)).map(
        ({ command, says, keys }) => ({
          ...{
            text: says,
            kind: 'command',
            icon: CommandIcon,
            note: keyName(keys[0]!),
            choose: () => onCommand(command),
          },
        }),
      ),
    ]
  }, [modules.value, hosts.value, onCommand])
  const found = useMemo((): { choice: Choice; ranges: number[] }[] => {
    const needle = typed.value.trim()
    if (needle === '') return choices.slice(0, SHOWN).map((choice) => ({ choice, ranges: [] }))
    const [indexes, info, order] = fuzzy.search(
      choices.map(({ text }) => text),
      needle,
      1,
    )
    if (!indexes) return []
    if (!info || !order) return indexes.slice(0, SHOWN).map((i) => ({ choice: choices[i]!, ranges: [] }))
    const ranked = order.map((i) => ({ choice: choices[info.idx[i]!]!, ranges: info.ranges[i] ?? [] }))
    return ranked.sort((a, b) => KINDS.indexOf(a.choice.kind) - KINDS.indexOf(b.choice.kind)).slice(0, SHOWN)
  }, [typed.value, choices])

  const choose = (choice: Choice | undefined): void => {
    if (!choice) return
    onClose()
    choice.choose()
  }
  const move = (by: number): void => {
    at.value = Math.max(0, Math.min(found.length - 1, at.value + by))
    list.current?.children[at.value]?.scrollIntoView({ block: 'nearest' })
  }
  return (
    <Dialog title="Pick what to read" className="picker" onClose={onClose} bare>
      <input
        type="text"
        role="combobox"
        class="picker-input"
        placeholder="Service, module, host, container, or what to do…"
        aria-label="Pick what to read"
        aria-expanded="true"
        aria-controls="picked"
        aria-activedescendant={found.length > 0 ? `pick-${at.value}` : undefined}
        spellcheck={false}
        autocomplete="off"
        autofocus
        value={typed.value}
        onInput={(event) => {
          typed.value = event.currentTarget.value
          at.value = 0
        }}
        onKeyDown={(event) => {
          if (event.key === 'ArrowDown' || (event.ctrlKey && event.key === 'n')) move(1)
          else if (event.key === 'ArrowUp' || (event.ctrlKey && event.key === 'p')) move(-1)
          else if (event.key === 'Enter') choose(found[at.value]?.choice)
          else return
          event.preventDefault()
        }}
      />
      <div ref={list} id="picked" class="picked" role="listbox" aria-label="Found">
        {found.map(({ choice, ranges }, i) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: keys act on the input that owns this list
          // biome-ignore lint/a11y/useFocusableInteractive: the focus stays in the input
          <div
            key={`${choice.kind} ${choice.text}`}
            id={`pick-${i}`}
            role="option"
            aria-selected={i === at.value}
            onPointerMove={() => {
              at.value = i
            }}
            onClick={() => choose(choice)}
          >
            <Icon of={choice.icon} />
            <span class="picked-text">{marked(choice.text, ranges)}</span>
            <span class="muted picked-note">{choice.note}</span>
            <span class="tag">{choice.kind}</span>
          </div>
        ))}
      </div>
      {found.length === 0 && <p class="empty muted">Nothing is called so.</p>}
    </Dialog>
  )
}

/** @param ranges begin and end of what was found, by turns */
function marked(text: string, ranges: number[]) {
  const parts = []
  let at = 0
  for (let i = 0; i < ranges.length; i += 2) {
    parts.push(text.slice(at, ranges[i]), <b key={i}>{text.slice(ranges[i], ranges[i + 1])}</b>)
    at = ranges[i + 1]!
  }
  return [...parts, text.slice(at)]
}
