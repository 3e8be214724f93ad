/** A consumer, run as the image runs it, that has landed a backlog. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Consumer } from '../test/support/consumer.ts'
import { lockEngine } from '../test/support/engine.ts'
import { Kafka } from '../test/support/kafka.ts'
import { until } from '../test/support/until.ts'
import type { Backlog } from './backlog.ts'
import { consumerProgram } from './program.ts'

const OPEN_FILES = 256
const ASK_EVERY_MS = 250

/** A Kafka of our own, or that of BENCH_BROKERS, host:port,…: then nothing else of the engine is used. */
export async function brokersFor(disposables: AsyncDisposableStack): Promise<string[]> {
  const given = process.env['BENCH_BROKERS']
  if (given) return given.split(',')
  disposables.use(await lockEngine())
  return disposables.use(await Kafka.start(`bench-${process.pid}`)).brokers
}

/**
 * Starts a consumer on an empty root and waits until it has landed all of a backlog.
 * @param log file that gets what it prints
 * @param program what is run, unless it is what the image runs
 */
export async function caughtUp(
  brokers: string[],
  root: string,
  log: string,
  backlog: Pick<Backlog, 'topic' | 'lines'>,
  format: 'text' | 'raw',
  program = consumerProgram(),
): Promise<Consumer> {
  const settings = {
    ...{
      KAFKA_BROKERS: brokers.join(),
      KAFKA_TOPIC: backlog.topic,
      KAFKA_GROUP: `${backlog.topic}-${performance.now()}`,
    },
    ...{ ROOT: root, LINE_FORMAT: format, OPEN_FILES: String(OPEN_FILES) },
  }
  const consumer = await Consumer.create(settings, log, program)
  try {
    await consumer.start()
    await until(
      () => `all lines are in the files; the consumer said:\n${consumer.lastWords}`,
      async () => {
        // Answering costs it CPU, too.
        await sleep(ASK_EVERY_MS)
        return (await figureOf(consumer, 'lines_written_total')) >= backlog.lines
      },
      600,
    )
    return consumer
  } catch (error) {
    await consumer.kill()
    throw error
  }
}

/** What its metrics say at the moment. @param name without labels and what all of them begin with */
export async function figureOf({ url }: Pick<Consumer, 'url'>, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  const [, value] = new RegExp(`^tallyman_${name} (\\d+)$`, 'm').exec(text) ?? []
  if (value === undefined) throw new Error(`the consumer has no figure ${name}`)
  return Number(value)
}
