/** The sidebar: which services, modules, hosts and sources are read. Nothing chosen is everything. */
import { useSignal } from '@preact/signals'
import { Minus, X } from 'lucide'
import { hosts, hueOf, modules, services } from './catalog.ts'
import { Icon } from './icon.tsx'
import { go, view } from './route.ts'
import type { Source } from './view.ts'
import { brief, exact } from './words.ts'

type Box = { checked: boolean; some?: boolean; onChange(checked: boolean): void; children: preact.ComponentChildren }

const Check = ({ checked, some = false, onChange, children }: Box) => (
  <label class="check">
    <input
      type="checkbox"
      checked={checked}
      ref={(box) => {
        if (box) box.indeterminate = some && !checked
      }}
      onChange={(event) => onChange(event.currentTarget.checked)}
    />
    <span class="box" aria-hidden="true">
      {some && !checked && <Icon of={Minus} size={10} />}
    </span>
    {children}
  </label>
)

/** A list with something put in or taken out. */
const put = <T,>(list: readonly T[], item: T, inside: boolean): T[] =>
  inside ? [...new Set([...list, item])] : list.filter((one) => one !== item)

export function Sidebar({ onClose }: { onClose?: () => void }) {
  const wanted = useSignal('')
  const { targets, hosts: chosen, containers, sources } = view.value
  const needle = wanted.value.toLowerCase()
  const byService = [...Map.groupBy(modules.value, ({ service }) => service)]
    .map(([service, of]) => ({
      service,
      modules: of
        .map((one) => ({ ...one, name: `${one.service}/${one.module}` }))
        .filter(({ name }) => name.toLowerCase().includes(needle)),
      all: of,
    }))
    .filter((one) => one.modules.length > 0)
    .sort((a, b) => a.service.localeCompare(b.service))
  const known = new Set(modules.value.flatMap(({ service, module }) => [`${service}/${module}`, `${service}/*`]))
  // What a link or the picker named that is none of the boxes.
  const others = [
    ...targets.filter((target) => !known.has(target)).map((value) => ['targets', value] as const),
    ...containers.map((value) => ['containers', value] as const),
  ]
  const nothing = targets.length + chosen.length + containers.length + sources.length === 0
  const choose = (change: Parameters<typeof go>[0]): void => go({ ...change, at: undefined })
  return (
    <nav class="sidebar" aria-label="What is read">
      <div class="sidebar-head">
        <input
          type="search"
          placeholder="Find…"
          aria-label="Find a module"
          value={wanted.value}
          onInput={(event) => {
            wanted.value = event.currentTarget.value
          }}
        />
        {onClose && (
          <button type="button" class="ghost square" aria-label="Close" onClick={onClose}>
            <Icon of={X} />
          </button>
        )}
      </div>
      <div class="sidebar-scroll">
        <div class="group-head">
          <h2>Services</h2>
          {!nothing && (
            <button
              type="button"
              class="link"
              onClick={() => choose({ targets: [], hosts: [], containers: [], sources: [] })}
            >
              All
            </button>
          )}
        </div>
        {others.map(([key, value]) => (
          <span key={value} class="other">
            <code>{value}</code>
            <button
              type="button"
              aria-label={`Without ${value}`}
              onClick={() => choose({ [key]: put(view.value[key], value, false) })}
            >
              <Icon of={X} size={12} />
            </button>
          </span>
        ))}
        {services.value === undefined && <p class="muted">Loading…</p>}
        {services.value && byService.length === 0 && <p class="muted">Nothing is called so.</p>}
        {byService.map(({ service, modules: shown, all }) => {
          const whole = `${service}/*`
          const names = all.map(({ module }) => `${service}/${module}`)
          const isWhole = targets.includes(whole) || names.every((name) => targets.includes(name))
          return (
            <div key={service} class="group service-group">
              <Check
                checked={isWhole}
                some={names.some((name) => targets.includes(name))}
                onChange={(checked) => {
                  const rest = targets.filter((target) => target !== whole && !names.includes(target))
                  choose({ targets: checked ? [...rest, whole] : rest })
                }}
              >
                <b>{service}</b>
              </Check>
              {shown.map(({ name, module, rate }) => {
                const lastMinute = rate.at(-2) ?? 0
                return (
                  <Check
                    key={name}
                    checked={isWhole || targets.includes(name)}
                    onChange={(checked) => {
                      const rest = targets.filter((target) => target !== whole && target !== name)
                      const siblings =
                        isWhole && !checked ? names.filter((one) => one !== name && !rest.includes(one)) : []
                      choose({ targets: checked ? [...rest, name] : [...rest, ...siblings] })
                    }}
                  >
                    <span class={`dot hue-${hueOf(name)}`} />
                    <span class="check-name">{module}</span>
                    <span class="muted count" title={`${exact(lastMinute)} lines in the last minute`}>
                      {lastMinute > 0 && `${brief(lastMinute)}/min`}
                    </span>
                  </Check>
                )
              })}
            </div>
          )
        })}
        <h2>Hosts</h2>
        <div class="group">
          {hosts.value.map((host) => (
            <Check
              key={host}
              checked={chosen.includes(host)}
              onChange={(checked) => choose({ hosts: put(chosen, host, checked) })}
            >
              <span class="check-name">{host}</span>
            </Check>
          ))}
        </div>
        <h2>Source</h2>
        <div class="group">
          {(['stdout', 'stderr'] as Source[]).map((source) => (
            <Check
              key={source}
              checked={sources.includes(source)}
              onChange={(checked) => {
                const next = put(sources, source, checked)
                choose({ sources: next.length === 2 ? [] : next })
              }}
            >
              <span class="check-name">{source}</span>
            </Check>
          ))}
        </div>
      </div>
    </nav>
  )
}
