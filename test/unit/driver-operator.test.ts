/** What the operator sees of a driver, a real process without dockerd: metrics, health and the log, also where something is wrong. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { DriverProcess, Pipe } from '../support/driver-process.ts'
import { startRequest } from '../support/fed-run.ts'
import { temporaryFolder } from '../support/folder.ts'
import { frame } from '../support/log-entry.ts'
import { freePorts } from '../support/ports.ts'
import { until } from '../support/until.ts'

const line = (text: string) => frame({ source: 'stdout', time: 1_000n, line: Buffer.from(text) })

/** A driver, and a run of it that is fed by hand. */
async function house(env: Record<string, string>) {
  await using stack = new AsyncDisposableStack()
  const folder = stack.use(temporaryFolder())
  const driver = stack.use(await DriverProcess.start(folder.path, env))
  const pipe = new Pipe(folder.path, 'fifo')
  const request = JSON.parse(startRequest(pipe.file, { service: 'shop' }))
  expect(await driver.post('LogDriver.StartLogging', request)).toBe('')
  const all = stack.move()
  return { driver, pipe, [Symbol.asyncDispose]: () => all.disposeAsync() }
}

/** What a metric says, of all of its labels together. */
async function metric(address: string, name: string): Promise<number> {
  const text = await (await fetch(`http://${address}/metrics`)).text()
  const values = text.matchAll(new RegExp(`^tallyman_driver_${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))
  return Array.from(values, ([, value]) => Number(value)).reduce((sum, value) => sum + value, 0)
}

async function freeAddress(): Promise<string> {
  const [port] = await freePorts(1)
  return `127.0.0.1:${port}`
}

describe('the operator', () => {
  it('is warned of a METRICS_ADDR that is taken, and all else goes on', async () => {
    await using taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as { port: number }
    await using own = await house({ METRICS_ADDR: `127.0.0.1:${port}` })
    const { driver, pipe } = own
    await until('that is said', () => driver.log.some(({ code }) => code === 'METRICS_REFUSED'))
    expect(driver.log.find(({ code }) => code === 'METRICS_REFUSED')).toMatchObject({
      level: 40,
      address: { host: '127.0.0.1', port },
    })
    await pipe.feed(Buffer.concat(Array.from({ length: 6_000 }, (_, i) => line(`${i}`.padEnd(100)))))
    expect(driver.ended).toBe(false)
    pipe.close()
  })

  it('sees which runs ended without a StopLogging, as where dockerd was killed', async () => {
    const address = await freeAddress()
    await using own = await house({ METRICS_ADDR: address })
    const { driver, pipe } = own
    await until('the metrics are served', () => metric(address, 'runs_open').then((open) => open === 1))
    expect(await metric(address, 'runs_unstopped_total')).toBe(0)
    pipe.close()
    await until('the run is over', async () => (await metric(address, 'runs_open')) === 0)
    expect(await metric(address, 'runs_unstopped_total')).toBe(1)
    const stopped = new Pipe(`${pipe.file}/..`, 'stopped')
    await driver.post('LogDriver.StartLogging', JSON.parse(startRequest(stopped.file, { service: 'shop' })))
    await driver.post('LogDriver.StopLogging', { File: stopped.file })
    stopped.close()
    await until('the run is over', async () => (await metric(address, 'runs_open')) === 0)
    expect(await metric(address, 'runs_unstopped_total')).toBe(1)
  })

  it('reads a few lines of log of an outage, however often Kafka is tried and however much waits', async () => {
    const address = await freeAddress()
    await using own = await house({ METRICS_ADDR: address })
    const { driver, pipe } = own
    const tried = () => metric(address, 'send_failures_total')
    await until('Kafka is tried', () => tried().then((times) => times > 0))
    const before = await tried()
    await until(
      'Kafka is tried again',
      async () => {
        pipe.write(line('waits'))
        return (await tried()) > before
      },
      30,
    )
    expect(driver.log.filter(({ level }) => level >= 40).map(({ code }) => code)).toEqual(['KAFKA_AWAY'])
    expect((await fetch(`http://${address}/healthz`)).status).toBe(503)
    pipe.close()
  })
})
