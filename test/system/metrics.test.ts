/** What the operator sees of the driver: figures that are true, and the state of Kafka. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { AWAITING_GO } from '../support/container.ts'
import { type House, startHouse } from '../support/house.ts'
import { numberedLines, printed } from '../support/printed.ts'
import { until } from '../support/until.ts'

let house: House
beforeAll(async () => {
  house = await startHouse('metrics')
})
afterAll(() => house?.[Symbol.asyncDispose]())

const health = async (): Promise<{ status: number; kafka: string; since: string }> => {
  const answer = await fetch(`${house.metrics}/healthz`)
  return { status: answer.status, ...((await answer.json()) as { kafka: string; since: string }) }
}

it('lines, bytes, latency and open runs are those of the containers', async () => {
  const before = await house.samples()
  const done = await house.run({ print: printed(numberedLines(1_000, 105), numberedLines(234, 105)) })
  const open = await house.run({ print: printed(numberedLines(10, 105)), command: AWAITING_GO })
  await house.landed(done)
  // What is told since the last scrape is gone with it.
  const longest = { turn: 0, shipping: 0, loop: 0 }
  const after = await until('nine lines of the open one are acknowledged, and the other run is over', async () => {
    const now = await house.samples()
    longest.turn = Math.max(longest.turn, now['tallyman_driver_intake_turn_max_seconds']!)
    longest.shipping = Math.max(longest.shipping, now['tallyman_driver_shipping_loop_delay_seconds{quantile="1"}']!)
    longest.loop = Math.max(longest.loop, now['nodejs_eventloop_lag_max_seconds']!)
    const shipped = now['tallyman_driver_lines_shipped_total']! - before['tallyman_driver_lines_shipped_total']!
    const told = Object.values(longest).every((seconds) => seconds > 0)
    return shipped === 1_243 && now['tallyman_driver_runs_open'] === 1 && told && now
  })
  const of = (name: string) => after[name]! - (before[name] ?? 0)
  expect(of('tallyman_driver_lines_in_total')).toBe(1_243)
  expect(of('tallyman_driver_bytes_in_total')).toBeGreaterThan(1_243 * 105)
  expect(of('tallyman_driver_bytes_shipped_total')).toBeGreaterThan(1_243 * 105)
  expect(of('tallyman_driver_sends_total')).toBeGreaterThan(0)
  expect(of('tallyman_driver_ack_latency_seconds_count')).toBeGreaterThan(0)
  expect(of('tallyman_driver_ack_latency_seconds_bucket{le="10"}')).toBe(
    of('tallyman_driver_ack_latency_seconds_count'),
  )
  for (const seconds of Object.values(longest)) expect(seconds).toBeLessThan(10)
  expect(after['tallyman_driver_journal_bytes']).toBeGreaterThan(1_243 * 105)
  expect(after['tallyman_driver_lines_lost_total{reason="journal-full"}']).toBe(0)
  open.go()
  await house.landed(open)
  await until('no run is open', async () => (await house.samples())['tallyman_driver_runs_open'] === 0)
})

it('the consumer says what it has written, how long that took and that nothing is left', async () => {
  const samples = await until('all that was acknowledged is written', async () => {
    const text = await (await fetch(`${house.consumer.url}/metrics`)).text()
    const value = (name: string) => Number(new RegExp(`^tallyman_${name} (\\d+)$`, 'm').exec(text)?.[1])
    return value('lines_written_total') === 1_244 && value
  })
  expect(samples('lines_doubled_total')).toBe(0)
  expect(samples('records_undecodable_total')).toBe(0)
  expect(samples('latency_seconds_count')).toBeGreaterThan(0)
  expect(samples('latency_seconds_bucket{le="10"}')).toBe(samples('latency_seconds_count'))
  expect(samples('lag_records{partition="0"}')).toBe(0)
})

it('while Kafka is away, health says since when, and the journal how much waits and how long', async () => {
  expect(await health()).toMatchObject({ status: 200, kafka: 'reached' })
  await house.kafka.stop()
  const stopped = Date.now()
  const container = await house.run({ print: printed(numberedLines(500, 105)) })
  expect(await container.ended()).toBe(0)
  const { since } = await until('health says so', async () => {
    const now = await health()
    return now.status === 503 && now.kafka === 'away' && now
  })
  expect(Math.abs(Date.parse(since) - stopped)).toBeLessThan(30_000)
  const waiting = await house.samples()
  expect(waiting['tallyman_driver_journal_unshipped_bytes']).toBeGreaterThan(500 * 105)
  await until(
    'the age of what waits grows',
    async () =>
      (await house.samples())['tallyman_driver_journal_oldest_unshipped_seconds']! >
      waiting['tallyman_driver_journal_oldest_unshipped_seconds']!,
  )
  expect((await house.samples())['tallyman_driver_send_failures_total']).toBeGreaterThan(0)
  await house.kafka.start()
  await house.landed(container)
  await until('health says so', async () => (await health()).kafka === 'reached')
  expect((await house.samples())['tallyman_driver_journal_unshipped_bytes']).toBe(0)
})
