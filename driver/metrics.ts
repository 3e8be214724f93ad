/**
 * What the operator sees: Prometheus metrics and the state of health, on METRICS_ADDR.
 *
 * Each thread counts what it does in a registry of its own; shipping's is asked for when somebody wants to see it, so nothing
 * is counted twice and nothing goes between threads meanwhile.
 */
import Fastify, { type FastifyInstance } from 'fastify'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { type Health, LOOP_DELAY_MS } from './shipping-metrics.ts'

/** What the main thread knows of the runs. */
export type RunState = {
  /** Runs whose FIFO is held open. */
  open: number
  /** Runs that ended without a StopLogging: dockerd was restarted, or died. */
  unstopped: number
}

export type Sources = {
  runs(): RunState
  /** Bytes that intake took out of FIFOs. */
  bytesIn(): number
  /** The longest turn of intake since this was asked last, s. */
  longestTurn(): number
  /** What shipping counted, and how it is. Rejects when it does not say. */
  shipping(): Promise<{ text: string; health: Health }>
}

/** GET /metrics and GET /healthz, to be listened for. */
export function metricsApi({ runs, bytesIn, longestTurn, shipping }: Sources): FastifyInstance {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: LOOP_DELAY_MS })
  new Gauge({
    name: 'tallyman_driver_runs_open',
    help: 'Runs whose FIFO is held open.',
    registers,
    collect() {
      this.set(runs().open)
    },
  })
  new Counter({
    name: 'tallyman_driver_runs_unstopped_total',
    help: 'Runs that ended without a StopLogging.',
    registers,
    collect() {
      this.reset()
      this.inc(runs().unstopped)
    },
  })
  new Counter({
    name: 'tallyman_driver_bytes_in_total',
    help: "Bytes of dockerd's frames that were taken out of FIFOs.",
    registers,
    collect() {
      this.reset()
      this.inc(bytesIn())
    },
  })
  new Gauge({
    name: 'tallyman_driver_intake_turn_max_seconds',
    help: 'The longest turn of intake since the last scrape: containers that it did not come to waited as long.',
    registers,
    collect() {
      this.set(longestTurn())
    },
  })

  const api = Fastify({ forceCloseConnections: true })
  api.get('/metrics', async (_request, reply) => {
    reply.type(registry.contentType)
    return `${await registry.metrics()}\n${(await shipping()).text}`
  })
  api.get('/healthz', async (_request, reply) => {
    const { health } = await shipping()
    reply.code(health.kafka === 'away' ? 503 : 200)
    return { kafka: health.kafka, since: new Date(health.since).toISOString() }
  })
  return api
}
