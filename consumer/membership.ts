/**
 * Membership: the id under which we are in the consumer group, kept in a file so that it outlives a kill.
 *
 * Kafka holds a killed member's partitions until its session times out, 6 s at least. Whoever starts on the same root is that
 * member, for the root has one daemon at a time: it leaves the group in the dead one's name, and has the partitions at once.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Kafka } from 'kafkajs'
import { leaveGroup } from '../wire/kafka.ts'
import { within } from '../wire/within.ts'

const LEAVE_MS = 1_000

export class Membership {
  #path: string

  /** @param state the folder of the root's own state */
  constructor(state: string) {
    this.#path = join(state, 'member')
  }

  /** Remembers the id. A disk that does not take it costs a slow restart and nothing else. */
  joined(memberId: string): void {
    try {
      writeFileSync(this.#path, memberId)
    } catch {
      // The next restart waits for the session to time out.
    }
  }

  /** The group was left in good order. */
  left(): void {
    rmSync(this.#path, { force: true })
  }

  /**
   * Leaves the group in the name of a daemon that was killed, where there was one, or of our own connection that stood still. Where Kafka
   * does not answer it is left at that: the session times out.
   */
  async leaveForTheDead(kafka: Kafka, groupId: string): Promise<void> {
    let memberId: string
    try {
      memberId = readFileSync(this.#path, 'utf8')
    } catch {
      return
    }
    const leaving = memberId === '' ? Promise.resolve() : leaveGroup(kafka, groupId, memberId)
    await within(LEAVE_MS, leaving, new AbortController().signal).catch(() => {})
    this.left()
  }
}
