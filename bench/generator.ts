/** A container that prints at people's pace. */
import { BASE_IMAGE, docker, LABEL } from '../test/support/engine.ts'
import type { House } from '../test/support/house.ts'

const LINE_BYTES = 105

/** Prints so many lines at once, so often a second, until it is stopped. */
const PRINT = `$| = 1; my $lines = ("x" x ${LINE_BYTES} . "\\n") x $ARGV[0]; for (;;) { print $lines; select undef, undef, undef, 1 / $ARGV[1] }`

/**
 * Starts one that prints `atOnce` lines so often a second into a module of the house's own service, or nothing at all where that
 * is 0, until it is removed as a `generator`.
 */
export async function startGenerator(house: House, module: string, atOnce: number, perSecond: number): Promise<void> {
  const container = await docker.createContainer({
    name: `${house.id}-${module}`,
    Image: BASE_IMAGE,
    Cmd: atOnce > 0 ? ['perl', '-e', PRINT, String(atOnce), String(perSecond)] : ['sleep', '3600'],
    Labels: { [LABEL]: 'generator' },
    HostConfig: {
      NetworkMode: 'none',
      LogConfig: { Type: house.plugin.name, Config: { service: house.id, module } },
    },
  })
  await container.start()
}
