/** What there is: services and modules, how the consumers are, and what came of the lines. Asked for again while it is looked at. */
import { computed, effect, signal } from '@preact/signals'
import type { LedgerAnswer, LedgerRow, ServicesAnswer, StatusAnswer } from '../consumer/api-schema.ts'
import { huesOf, ownHue } from './color.ts'
import { admitted, api, session } from './session.ts'

const EVERY_MS = 5_000

export const services = signal<ServicesAnswer | undefined>(undefined)
export const status = signal<StatusAnswer | undefined>(undefined)
export const ledger = signal<LedgerAnswer | undefined>(undefined)
/** Why it is not known, or no longer. */
export const trouble = signal<string | undefined>(undefined)
/** ms since 1970; ages are counted from it. */
export const asOf = signal(Date.now())

export const modules = computed(() => services.value?.modules ?? [])
/** Modules, services and hosts are never in one picture, so each kind has all hues to itself. */
const hues = computed(
  () =>
    new Map([
      ...huesOf(hosts.value),
      ...huesOf(modules.value.map(({ service }) => service)),
      ...huesOf(modules.value.map(({ service, module }) => `${service}/${module}`)),
    ]),
)
/** Which hue of the style sheet a module, service or host has. */
export const hueOf = (name: string): number => hues.value.get(name) ?? ownHue(name)
export const hosts = computed(() => [...new Set(modules.value.flatMap(({ hosts }) => hosts))].sort())
/** Rows by module, lost lines first. */
export const ledgerRows = computed(() => (ledger.value?.rows ?? []) as LedgerRow[])
/** Records that Kafka has and no file yet, over all consumers. */
export const lag = computed(() => status.value?.consumers.reduce((sum, one) => sum + one.lag, 0))

async function refresh(): Promise<void> {
  try {
    const [ofServices, ofStatus, ofLedger] = await Promise.all([
      api.get<ServicesAnswer>('/services'),
      api.get<StatusAnswer>('/status'),
      api.get<LedgerAnswer>('/ledger', new URLSearchParams({ by: 'module' })),
    ])
    services.value = ofServices
    status.value = ofStatus
    ledger.value = ofLedger
    trouble.value = undefined
    asOf.value = Date.now()
  } catch (error) {
    trouble.value = (error as Error).message
  }
}

/** Keeps the catalog fresh while somebody looks at the page and may. */
export function watchCatalog(): void {
  let timer: ReturnType<typeof setTimeout> | undefined
  const next = async (): Promise<void> => {
    clearTimeout(timer)
    if (document.visibilityState === 'visible' && session.value && admitted(session.value)) await refresh()
    clearTimeout(timer)
    timer = setTimeout(next, EVERY_MS)
  }
  document.addEventListener('visibilitychange', () => void next())
  effect(() => {
    if (session.value && admitted(session.value)) void next()
  })
}
