/**
 * Intake: moves bytes from dockerd's FIFOs into journals, inside the kernel, before anything looks at them.
 *
 * Invariants
 * - A byte is in the FIFO or in the journal. `splice` takes it out of the one as it puts it into the other, so there is no
 *   moment at which a SIGKILL loses one, doubles one or tears a frame.
 * - Nothing here waits for Kafka or for another thread. The thread sits in epoll_wait; an eventfd ends the wait when
 *   main has something to say.
 * - A FIFO is armed for one event at a time. After the event the thread waits a little, so that one splice takes what a
 *   container wrote meanwhile: dockerd writes a frame at a time, and a splice for each would cost ten times the CPU. Where many
 *   containers print a little it waits longer, and shipping with it: a send costs the same for one line of a run as for five.
 * - A disk that refuses leaves the bytes in the pipe, and the FIFO is tried again after `retryMs`. After `blockMs` of that they are
 *   read out, counted and dropped: a pipe that stays full hangs the container, and dockerd with it. How many lines that were is
 *   noted in the journal before anything is written behind them, and meanwhile in a file that has its room on the disk since the run
 *   began.
 * - A run that shipping holds (slots.ts) is left alone: its bytes wait in the pipe, and its container with them.
 *
 * The end of a stream is a splice of 0 bytes: dockerd holds its end open from before StartLogging until after the answer
 * to StopLogging, so 0 means that it has closed it, or died.
 */
import { closeSync, constants, openSync, readSync, unlinkSync } from 'node:fs'
import { DroppedFrames, tornFrame } from './drops.ts'
import { openFifo } from './fifos.ts'
import { JournalReader, readDropped, segmentPath, writeDropped, writeGap } from './journal.ts'
import { EAGAIN, EINTR, EIO, ENOSPC, Epoll, setPipeSize, splice } from './kernel.ts'
import type { Slots } from './slots.ts'

export type IntakeLimits = {
  /** A segment is closed once it holds this many bytes. */
  segmentBytes: number
  /**
   * Bytes that all pipes together may hold, as far as that is up to us. The kernel grants a user's pipes 64 MiB (pipe-user-pages-soft) and
   * gives every further one two pages. Docker's own take 384 KiB a container (dockerd 20.10: six pipes, beside our FIFO), so that some
   * 170 use that up, whichever their logging driver.
   */
  pipeBytes: number
  /** A FIFO whose bytes the disk refuses is tried again after this long, ms. */
  retryMs: number
}

/** How one run is taken in. */
export type OpenOptions = {
  /** The FIFO's descriptor, where it is open already. */
  held?: number | undefined
  /** At which size its segments are closed, if not at that of all. */
  segmentBytes?: number | undefined
  /** Its container waits for this long while the disk refuses bytes, ms; then they are dropped. */
  blockMs: number
}

export const INTAKE_LIMITS: IntakeLimits = {
  segmentBytes: 8 * 1024 * 1024,
  pipeBytes: 8 * 1024 * 1024,
  retryMs: 100,
}

/** After an event the thread waits this long while a run is busy, ms: its pipe fills up in no time. */
const PACE_MS = 2
/** Where none is, the pipes have room: this long at least, longer for each run that had something to say the last time. */
const QUIET_PACE_MS = 5
const QUIET_PACE_MS_PER_RUN = 1.3
const MAX_QUIET_PACE_MS = 40
/** Whether a run is still held is looked at this often. */
const HELD_MS = 20
/** A wait ends at least this often, should a wake-up ever be missed. */
const NET_MS = 1000
const PIPE_DEFAULT = 64 * 1024
const PIPE_BUSY = 256 * 1024
/** Where there are so many runs that pipes of the default size would take too much. */
const PIPE_SMALL = 16 * 1024
/** One splice that moves this much tells a busy run; of a small pipe, one that was nearly full. */
const BUSY_BYTES = 24 * 1024
const NEARLY_FULL = 0.75
/** A run is busy, and keeps its pipe, until this long after its last busy splice. */
const QUIET_MS = 2000
/** As many reads in a row for what is dropped of one run. */
const DROP_TURNS = 16
/** As many splices in a row for one run before the others get their turn. */
const TURNS = 4
/** Number of the eventfd in the epoll set; runs are known by their slot. */
const WAKE = 0xffff_ffff

type Run = {
  slot: number
  folder: string
  file: string
  fifo: number
  segment: number
  segmentBytes: number
  /** The segment is closed once it holds this many. */
  segmentMax: number
  blockMs: number
  /** How large its pipe is now, and while it is not busy. */
  pipe: number
  pipeQuiet: number
  busyAt: number
}

/** A run whose bytes the disk refuses: since when, when it was tried last, and what was dropped. */
type Refused = { since: number; tried: number; dropped: DroppedFrames | undefined }

export type IntakeEvents = {
  /** The stream is over and all of it is in the journal. */
  ended(slot: number): void
  /** The disk refuses the run's bytes; they stay in the pipe. Said once until `diskRecovered`. */
  diskRefused(slot: number, errno: number): void
  diskRecovered(slot: number): void
}

export class Intake {
  #epoll = new Epoll(512)
  #runs = new Map<number, Run>()
  #slots: Slots
  #events: IntakeEvents
  #limits: IntakeLimits
  #wake: number
  #pipeBytes = 0
  #enlarged = new Set<Run>()
  #refused = new Map<Run, Refused>()
  /** Runs that are held and have something to say. */
  #waiting = new Set<Run>()
  /** Waits for nothing but a wake-up. */
  #pause = new Epoll(1)
  #wakeBuffer = Buffer.alloc(8)
  #stopped = false
  #busyUntil = 0
  /** How many runs had something to say the last time. */
  #spoke = 0
  /** Something was moved or ended since the doorbell last rang. */
  #moving = false

  /** @param wake an eventfd that other threads write to */
  constructor(slots: Slots, wake: number, events: IntakeEvents, limits = INTAKE_LIMITS) {
    this.#slots = slots
    this.#events = events
    this.#limits = limits
    this.#wake = wake
    this.#epoll.add(wake, WAKE)
    this.#pause.add(wake, WAKE)
  }

  /**
   * Holds the FIFO open from here on and journals what it gives.
   * @param folder the run's, where `slots.written(slot)` bytes are journalled already
   * @throws FifoError when `file` is missing or is no FIFO
   */
  open(slot: number, folder: string, file: string, options: OpenOptions): void {
    const fifo = options.held ?? openFifo(file)
    const run: Run = {
      slot,
      folder,
      file,
      fifo,
      segment: -1,
      segmentBytes: 0,
      segmentMax: options.segmentBytes ?? this.#limits.segmentBytes,
      blockMs: options.blockMs,
      pipe: PIPE_DEFAULT,
      pipeQuiet: PIPE_DEFAULT,
      busyAt: 0,
    }
    this.#runs.set(slot, run)
    // What is left is for those that are busy. One that holds more than that stays as it is.
    if (this.#pipeBytes + PIPE_DEFAULT > this.#limits.pipeBytes / 2 && setPipeSize(fifo, PIPE_SMALL) > 0)
      run.pipe = run.pipeQuiet = PIPE_SMALL
    this.#pipeBytes += run.pipe
    // A FIFO that has lost its writers before we came reports nothing to epoll: only a splice tells.
    this.#epoll.addOnce(fifo, slot)
    if (!this.#dropsOn(run)) this.#drain(run, performance.now())
  }

  /** Lets go of the FIFO, whatever is in it, as at the end of the stream. */
  close(slot: number): void {
    const run = this.#runs.get(slot)
    if (run) this.#finish(run)
  }

  /** Has the run begin another segment with what comes next, so that this one can go. */
  closeSegment(slot: number): void {
    const run = this.#runs.get(slot)
    if (run && run.segmentBytes > 0) this.#closeSegment(run)
  }

  /** Takes up what a driver dropped that was killed before the disk took bytes again. @returns whether the disk still takes none */
  #dropsOn(run: Run): boolean {
    const dropped = readDropped(run.folder)
    if (dropped?.offset !== this.#slots.written(run.slot)) return false
    const drops = new DroppedFrames(dropped.lines)
    if (this.#noteGap(run, drops)) return false
    const now = performance.now()
    this.#refused.set(run, { since: now, tried: now, dropped: drops })
    this.#events.diskRefused(run.slot, ENOSPC)
    return true
  }

  stop(): void {
    this.#stopped = true
  }

  /** Runs until `stop`. @param messages called after each write to the eventfd */
  loop(messages: () => void): void {
    const due: Run[] = []
    while (!this.#stopped) {
      due.length = 0
      const held = this.#waiting.size > 0
      this.#collect(due, held ? HELD_MS : this.#refused.size > 0 ? this.#limits.retryMs : NET_MS, messages)
      if (due.length > 0) {
        this.#pause.wait(this.#pace)
        this.#collect(due, 0, messages)
        this.#spoke = due.length
      }
      const now = performance.now()
      // One that was closed since it had something to say is gone.
      for (const run of due) if (this.#runs.get(run.slot) === run) this.#drain(run, now)
      if (held) this.#release(now)
      if (this.#refused.size > 0) this.#retry(now)
      if (this.#moving) this.#slots.ring()
      this.#moving = false
      if (this.#enlarged.size > 0) this.#giveBack(now)
      if (due.length > 0) this.#slots.turned(Math.ceil((performance.now() - now) * 1000))
    }
  }

  get #pace(): number {
    if (performance.now() < this.#busyUntil) return PACE_MS
    return Math.min(Math.max(QUIET_PACE_MS, this.#spoke * QUIET_PACE_MS_PER_RUN), MAX_QUIET_PACE_MS)
  }

  #collect(due: Run[], timeout: number, messages: () => void): void {
    const count = this.#epoll.wait(timeout)
    for (let i = 0; i < count; i++) {
      const id = this.#epoll.id(i)
      if (id === WAKE) {
        readSync(this.#wake, this.#wakeBuffer)
        messages()
        continue
      }
      const run = this.#runs.get(id)
      if (run) due.push(run)
    }
  }

  /** Takes what the pipe holds, then arms it again; closes it at the end of the stream. */
  #drain(run: Run, now: number): void {
    if (this.#slots.held(run.slot)) {
      this.#waiting.add(run)
      return
    }
    for (let turn = 0; turn < TURNS; turn++) {
      const moved = this.#splice(run)
      if (moved === 0) {
        this.#finish(run)
        return
      }
      if (moved < 0) {
        if (moved === -EINTR) continue
        if (moved === -EAGAIN) break
        this.#refuse(run, -moved, now)
        return
      }
      this.#moved(run, moved, now)
      // Nearly full: there is more by now, and the writer may be blocked.
      if (moved < run.pipe * NEARLY_FULL) break
    }
    if (this.#refused.delete(run)) this.#events.diskRecovered(run.slot)
    this.#epoll.rearm(run.fifo, run.slot)
  }

  /** @returns as `splice` does; a segment that can't be opened is a disk that refuses */
  #splice(run: Run): number {
    try {
      return splice(run.fifo, this.#segment(run), PIPE_BUSY)
    } catch (error) {
      return (error as NodeJS.ErrnoException).errno ?? -EIO
    }
  }

  #moved(run: Run, bytes: number, now: number): void {
    this.#slots.addWritten(run.slot, bytes)
    this.#slots.addTaken(bytes)
    this.#moving = true
    run.segmentBytes += bytes
    if (run.segmentBytes >= run.segmentMax) this.#closeSegment(run)
    if (bytes < Math.min(BUSY_BYTES, run.pipe * NEARLY_FULL)) return
    run.busyAt = now
    this.#busyUntil = now + QUIET_MS
    if (run.pipe < PIPE_BUSY && this.#pipeBytes + PIPE_BUSY - run.pipe <= this.#limits.pipeBytes) this.#enlarge(run)
  }

  /** The segment to write to. One that exists already is empty: a driver was killed between opening and filling it. */
  #segment(run: Run): number {
    if (run.segment !== -1) return run.segment
    const path = segmentPath(run.folder, this.#slots.written(run.slot))
    run.segment = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
    run.segmentBytes = 0
    return run.segment
  }

  #closeSegment(run: Run): void {
    if (run.segment === -1) return
    closeSync(run.segment)
    run.segment = -1
    this.#slots.close(run.slot)
    if (run.segmentBytes > 0) return
    try {
      unlinkSync(segmentPath(run.folder, this.#slots.written(run.slot)))
    } catch {
      // Gone with its folder, or on a disk that only reads: one without a byte does no harm.
    }
  }

  #finish(run: Run): void {
    this.#runs.delete(run.slot)
    this.#waiting.delete(run)
    if (this.#refused.delete(run)) this.#events.diskRecovered(run.slot)
    closeSync(run.fifo)
    this.#pipeBytes -= run.pipe
    this.#enlarged.delete(run)
    this.#closeSegment(run)
    this.#slots.end(run.slot)
    this.#moving = true
    this.#events.ended(run.slot)
  }

  /** Goes on with the runs that are held no more. */
  #release(now: number): void {
    for (const run of this.#waiting) {
      if (this.#slots.held(run.slot)) continue
      this.#waiting.delete(run)
      this.#drain(run, now)
    }
  }

  #refuse(run: Run, errno: number, now: number): void {
    if (this.#refused.has(run)) return
    this.#refused.set(run, { since: now, tried: now, dropped: undefined })
    this.#events.diskRefused(run.slot, errno)
  }

  #retry(now: number): void {
    for (const [run, refused] of this.#refused) {
      if (now - refused.tried < this.#limits.retryMs) continue
      refused.tried = now
      if (!refused.dropped && now - refused.since < run.blockMs) this.#drain(run, now)
      else this.#drop(run, refused, now)
    }
  }

  /** Takes out of the pipe what the disk refuses, unless it takes something again by now. */
  #drop(run: Run, refused: Refused, now: number): void {
    refused.dropped ??= new DroppedFrames([0, 0], this.#torn(run))
    const { dropped } = refused
    for (let turn = 0; turn < DROP_TURNS; turn++) {
      // Within a frame journalling can't go on.
      if (dropped.needed === 0 && this.#resume(run, refused, now)) return
      let read: number
      try {
        const { room } = dropped
        read = readSync(run.fifo, room, 0, Math.min(room.length, dropped.needed || room.length), null)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return
        throw error
      }
      if (read === 0) {
        // Until the disk takes the note the run is not over: without it nobody would know of these lines.
        if (this.#noteGap(run, dropped)) this.#finish(run)
        return
      }
      this.#slots.addTaken(read)
      dropped.count(read)
      writeDropped(run.folder, { offset: this.#slots.written(run.slot), lines: dropped.linesAndRest })
    }
  }

  /** What the journal has of the frame whose rest comes next. */
  #torn(run: Run): Uint8Array {
    const reader = new JournalReader(run.folder)
    try {
      return tornFrame(reader, this.#slots.written(run.slot))
    } finally {
      reader.close()
    }
  }

  /** Notes what was dropped, and journals on. @returns whether the disk takes it */
  #resume(run: Run, refused: Refused, now: number): boolean {
    if (!this.#noteGap(run, refused.dropped!)) return false
    const before = this.#slots.written(run.slot)
    this.#drain(run, now)
    if (!this.#refused.has(run)) return true
    if (this.#slots.written(run.slot) === before) return false
    // It took some. What is dropped from here on is a gap of its own.
    Object.assign(refused, { since: now, dropped: undefined })
    return true
  }

  /** @returns whether the disk took the note. A segment begins behind it. */
  #noteGap(run: Run, dropped: DroppedFrames): boolean {
    try {
      this.#closeSegment(run)
      writeGap(run.folder, { offset: this.#slots.written(run.slot), lines: dropped.linesAndRest })
      return true
    } catch {
      return false
    }
  }

  #enlarge(run: Run): void {
    if (setPipeSize(run.fifo, PIPE_BUSY) < 0) return
    this.#pipeBytes += PIPE_BUSY - run.pipe
    run.pipe = PIPE_BUSY
    this.#enlarged.add(run)
  }

  #shrink(run: Run): void {
    if (setPipeSize(run.fifo, run.pipeQuiet) < 0) return
    this.#pipeBytes -= run.pipe - run.pipeQuiet
    run.pipe = run.pipeQuiet
    this.#enlarged.delete(run)
  }

  #giveBack(now: number): void {
    for (const run of this.#enlarged) if (now - run.busyAt > QUIET_MS) this.#shrink(run)
  }
}

/** Removes the FIFO of a run that is over, where dockerd did not live to do it. */
export function unlinkFifo(file: string): void {
  try {
    unlinkSync(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}
