/** What people ask of Docker all day, with our driver and with json-file: how much longer each takes with ours. */
import { docker } from './engine.ts'
import type { House } from './house.ts'
import { printed } from './printed.ts'
import { until } from './until.ts'

/** So much longer than with json-file a command may take in any state that the driver is in, s. */
export const MOST_DELAY = 2

const COMMANDS = ['run', 'inspect', 'logs', 'stop', 'rm'] as const
type Seconds = Record<(typeof COMMANDS)[number], number>

/**
 * The longest of the delays, s.
 * @param disturb called right before our turn
 */
export async function delay(house: House, disturb = () => {}): Promise<number> {
  const theirs = await secondsOf(house, 'json-file')
  disturb()
  const ours = await secondsOf(house, house.plugin.name)
  return Math.max(...COMMANDS.map((command) => ours[command] - theirs[command]))
}

async function secondsOf(house: House, logDriver: string): Promise<Seconds> {
  const seconds: Partial<Seconds> = {}
  const timed = async <T>(command: keyof Seconds, doing: () => Promise<T>): Promise<T> => {
    const begun = performance.now()
    const result = await doing()
    seconds[command] = (performance.now() - begun) / 1000
    return result
  }
  const container = await timed('run', () =>
    house.run({
      print: printed('a line\n'),
      command: ['sh', '-c', 'cat /in/stdout; exec sleep 600'],
      logDriver,
      ...(logDriver === 'json-file' && { logOpts: {} }),
    }),
  )
  await timed('inspect', () => container.inspect())
  const logs = () => docker.getContainer(container.id).logs({ stdout: true, tail: 1 })
  await until('docker logs shows its line', async () => (await logs()).includes('a line'))
  await timed('logs', logs)
  await timed('stop', () => container.stop(0))
  // With ours its line is still expected to land.
  await timed('rm', () => (logDriver === 'json-file' ? house.forget(container) : container[Symbol.asyncDispose]()))
  return seconds as Seconds
}
