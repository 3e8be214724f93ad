/**
 * Preloaded into a process (`node --import`), and with it into its threads: its clock is off by as many ms as the file named by
 * CLOCK_OFFSET_FILE says, soon after somebody writes there.
 */
import { readFileSync } from 'node:fs'

/** The file is looked at this often at most, ms. */
const LOOK_MS = 20

const file = process.env['CLOCK_OFFSET_FILE']
const { now } = Date
let offset = 0
let lookedAt = Number.NEGATIVE_INFINITY

Date.now = () => {
  if (file !== undefined && performance.now() - lookedAt > LOOK_MS) {
    offset = Number(readFileSync(file, 'utf8'))
    lookedAt = performance.now()
  }
  return now() + offset
}
