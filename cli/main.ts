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
  // An error of ours must not look like grep's «no line matches».
  say(
    error instanceof CliError
      ? `${error.message} (${error.code})`
      : `this is a mistake of tallyman's own: ${(error as Error).stack}`,
  )
  process.exit(EXIT.FAILED)
}
