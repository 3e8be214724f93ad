/**
 * The plugin's process. What dockerd waits for comes first, and the libraries after it.
 *
 * dockerd dials the socket of a plugin that it restarted after 0.5 s, and then at most three times more, 3 s apart. While it
 * sleeps it sees no further crash, and after the last refusal it disables the plugin (moby plugin/manager_linux.go,
 * pluginPostStart). So the FIFOs are held and the socket is listened on within some dozen ms, on a busy machine too;
 * requests wait for their handler here.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { parseArgs } from 'node:util'
import { holdFifos } from './fifos.ts'
import { lockJournal } from './journal.ts'

const { values: paths } = parseArgs({
  options: {
    socket: { type: 'string', default: '/run/docker/plugins/tallyman.sock' },
    journal: { type: 'string', default: '/run/docker/logging' },
  },
})

mkdirSync(paths.journal, { recursive: true })
const holder = lockJournal(paths.journal)
if (holder !== undefined) {
  process.stderr.write(
    `tallyman: ${paths.journal} is held by the driver with process id ${holder}; stop that one first\n`,
  )
  process.exit(1)
}
const fifos = holdFifos(paths.journal)

const early: [IncomingMessage, ServerResponse][] = []
const hold = (request: IncomingMessage, response: ServerResponse): void => void early.push([request, response])
const server = createServer({ keepAliveTimeout: 1 }, hold)
// A driver that was killed leaves its socket file, and listening on it would fail.
rmSync(paths.socket, { force: true })
server.listen(paths.socket)

const { start } = await import('./start.ts')
await start({ ...paths, fifos, server })
server.off('request', hold)
for (const [request, response] of early) server.emit('request', request, response)
