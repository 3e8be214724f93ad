#!/usr/bin/env node
/**
 * The command `tallyman`: asks consumers over HTTP and prints what they say.
 *
 * Exit status: 0 all is well, 1 it is not (something is lost or damaged; for grep, no line matches), 2 the command was wrong or not
 * everybody who was asked has answered in full, 130 Ctrl-C.
 */
import { CliError, EXIT } from './errors.ts'
import { program } from './program.ts'
import { clearProgress, endOnInterrupt, say } from './terminal.ts'

endOnInterrupt()
try {
  await program().parseAsync()
} catch (error) {
  clearProgress()
  if (!(error instanceof CliError)) throw error
  say(`${error.message} (${error.code})`)
  process.exit(EXIT.FAILED)
}
