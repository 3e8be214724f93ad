/**
 * The driver's main thread: answers what dockerd asks, and keeps the threads for intake and shipping together.
 *
 * Invariants
 * - A run.json is durable before its FIFO is read, and StartLogging is answered after the FIFO is held open.
 * - Start order: every FIFO that a run.json names is held open (fifos.ts), then we listen (main.ts), then runs are recovered.
 * - Nothing here waits for Kafka. What waits for the disk has a deadline.
 * - Each FIFO that is there is read, however many runs there are: a container whose pipe nobody reads hangs, and dockerd with it. Runs
 *   that are over wait where there are too many.
 * - Bad state of one run never keeps the driver from starting: dockerd disables a plugin that dies while it boots, and a
 *   daemon whose default driver is disabled starts no container.
 */
import { lstatSync, readFileSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { Logger } from 'pino'
import { type ShippingCheckpoint, startOfRun } from './checkpoint.ts'
import { type ContainerInfo, containerInfo, namedContainer } from './container.ts'
import { DriverError } from './errors.ts'
import { fifoNamed } from './fifos.ts'
import { History, type Readable } from './history.ts'
import { INTAKE_LIMITS, unlinkFifo } from './intake.ts'
import type { IntakeData, IntakeReport, IntakeRequest } from './intake-thread.ts'
import { listRuns, removeRun, runFolder, runsFolder, setAside } from './journal.ts'
import { eventfd } from './kernel.ts'
import { type LeftRun, readLeftRun } from './left-run.ts'
import { type LogOpts, readLogOpts } from './log-opts.ts'
import type { RunState } from './metrics.ts'
import { LogReader, type ReadConfig } from './read-logs.ts'
import { createRun, describeRun, guessRun, makeDurable, type RunRecord, writeRun } from './run.ts'
import type { Settings } from './settings.ts'
import type { ShipperData, ShipperReport, ShipperRequest } from './shipper-thread.ts'
import type { Health } from './shipping-metrics.ts'
import { Slots, slotMemory } from './slots.ts'

/** What we wait for the disk at most before StartLogging is refused. */
const DEADLINE_MS = 5000

/** A container's start waits this long for room on a disk that is full, and tries so often. */
const MAKE_ROOM_MS = 1500
const RETRY_MS = 50

const METRICS_MS = 2000

/** A run that the disk took no run.json of is offered again so often. */
const OFFER_MS = 1000

/** How long a stop waits for what is under way to be acknowledged. */
const STOP_MS = 1500

/** A run with less to keep has smaller segments: they go one by one. */
const SEGMENTS_KEPT = 4
const MIN_SEGMENT_BYTES = 64 * 1024

type Run = Readable & {
  slot: number
  /** Taken up without being known, because its run.json was not understood. */
  guessed?: boolean
}

export type DriverOptions = {
  journal: string
  host: string
  settings: Settings
  log: Logger
  /** As many runs at once. */
  slots?: number | undefined
}

/** Beside us as source and as bundle alike. */
const script = (name: string): URL =>
  new URL(`./${name}${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

export class Driver {
  #options: DriverOptions
  #slots: Slots
  #wake = eventfd()
  #intake: { worker: Worker; port: MessagePort }
  #shipper: { worker: Worker; port: MessagePort }
  #byFile = new Map<string, Run>()
  #bySlot = new Map<number, Run>()
  #history = new History()
  #logReader: LogReader
  #unstopped = 0
  /** Slots of the runs whose bytes the disk refuses. */
  #refused = new Set<number>()
  /** Containers whose start waits for room on the disk. */
  #starting = 0
  #metrics: PromiseWithResolvers<{ text: string; health: Health }> | undefined
  #opening = new Map<number, (fifo: string | undefined) => void>()
  /** StartLogging is under way, by file. */
  #starts = new Map<string, Promise<void>>()
  /** Runs of an earlier driver that are over, and wait for a slot. */
  #left: LeftRun[] = []
  #stopping = false

  /** @param options whose journal is locked for this process */
  constructor(options: DriverOptions) {
    this.#options = options
    this.#slots = new Slots(slotMemory(options.slots))
    this.#logReader = new LogReader(options.journal, this.#history, this.#slots)
    const { slots, wake } = { slots: this.#slots.memory, wake: this.#wake }
    const intake = new MessageChannel()
    const shipper = new MessageChannel()
    const intakeData: IntakeData = { slots, wake, port: intake.port2 }
    const shipperData: ShipperData = {
      slots,
      port: shipper.port2,
      journal: options.journal,
      settings: options.settings,
    }
    this.#intake = { worker: this.#thread('intake-thread', intakeData), port: intake.port1 }
    this.#shipper = { worker: this.#thread('shipper-thread', shipperData), port: shipper.port1 }
    intake.port1.on('message', (report: IntakeReport) => this.#intakeReport(report))
    shipper.port1.on('message', (report: ShipperReport) => this.#shipperReport(report))
  }

  #thread(name: string, workerData: IntakeData | ShipperData): Worker {
    // Intake closes FIFOs that the main thread has opened.
    const options = { workerData, transferList: [workerData.port], name, trackUnmanagedFds: false }
    const worker = new Worker(script(name), options)
    // A thread that died takes the process with it: dockerd restarts the plugin, and the journal holds everything.
    worker.on('error', (error) => {
      this.#options.log.fatal(
        { thread: name, err: error },
        'a thread of the driver died; the driver restarts and goes on from its journal',
      )
      process.exit(1)
    })
    return worker
  }

  /**
   * Takes up the runs of an earlier driver.
   * @param fifos those that are held open, by file: each is read from here on, whatever is known of its run
   */
  async recover(fifos: Map<string, number>): Promise<void> {
    const { journal, log } = this.#options
    /** What a run.json says that is not understood, by its FIFO. */
    const notUnderstood = new Map<string, string>()
    const runs = runsFolder(journal)
    if (statSync(runs, { throwIfNoEntry: false })?.isDirectory() === false) this.#setAside(runs, 'it is no folder')
    const found = listRuns(journal).flatMap((id) => {
      const run = this.#readOrSetAside(id, notUnderstood)
      if (!run) return []
      const held = fifos.get(run.record.file)
      fifos.delete(run.record.file)
      return [{ ...run, held }]
    })
    const [kept, open] = [found, found].map((all, i) =>
      all.filter(({ checkpoint, held }) => (checkpoint.ended && held === undefined) === (i === 0)),
    ) as [typeof found, typeof found]
    for (const { record, checkpoint } of kept.sort((a, b) => a.record.started - b.record.started)) {
      this.#history.add(record, undefined)
      this.#tellShipper({ type: 'keep', record, checkpoint })
    }
    // Those whose FIFOs are read first: they can't wait.
    const [read, over] = [true, false].map((isHeld) => open.filter(({ held }) => (held !== undefined) === isHeld))
    await Promise.all(read!.map((run) => this.#takeUp(run, run.held)))
    await Promise.all([...fifos].map(([file, held]) => this.#takeUpUnknown(file, held, notUnderstood.get(file))))
    this.#left = over!
    this.#takeUpLeft()
    if (open.length > 0) log.info({ runs: open.length }, 'took up the runs of an earlier driver')
    if (this.#left.length === 0) return
    log.error(
      { code: 'RUNS_EXHAUSTED', runs: this.#left.length },
      'too many runs wait to be shipped; these wait until others are, and no container can start meanwhile. See to Kafka',
    )
  }

  #takeUpLeft(): void {
    let next = this.#left[0]
    while (next && this.#takeUp(next, undefined)) {
      this.#left.shift()
      next = this.#left[0]
    }
  }

  #readOrSetAside(id: string, notUnderstood: Map<string, string>): LeftRun | undefined {
    const { journal } = this.#options
    try {
      const left = readLeftRun(journal, id)
      if (left.doubt) this.#tellDoubt(left.record, left.doubt)
      return left
    } catch (error) {
      const runJson = readText(join(runFolder(journal, id), 'run.json'))
      const file = runJson === undefined ? undefined : fifoNamed(runJson)
      if (file !== undefined) notUnderstood.set(file, runJson!)
      this.#setAside(runFolder(journal, id), (error as Error).message)
      return undefined
    }
  }

  #tellDoubt({ run }: RunRecord, { wrong, renamed, anew }: NonNullable<LeftRun['doubt']>): void {
    const { log } = this.#options
    if (anew) {
      log.warn(
        { code: 'JOURNAL_FOREIGN', run, wrong },
        'all that the journal of a run holds is sent again, with the numbers that it had; nothing is lost or doubled by that',
      )
      return
    }
    if (renamed === undefined) {
      log.warn(
        { code: 'JOURNAL_FOREIGN', run, wrong },
        'the last bytes of a journal are gone, as after a loss of power; Kafka has their lines, and the run goes on behind them',
      )
      return
    }
    log.error(
      { code: 'JOURNAL_FOREIGN', run: renamed, wrong, renamed: run },
      'the numbers of the lines of a run are not known any more: what its journal holds is sent as a run of its own, and lines may stand twice',
    )
  }

  /**
   * Takes up a FIFO that no run.json names that is understood: a container whose pipe nobody reads hangs, and dockerd with it.
   * Where the disk takes no journal for it either, its lines are read, counted and dropped.
   */
  async #takeUpUnknown(file: string, held: number, runJson: string | undefined): Promise<void> {
    const { host, log } = this.#options
    const { options } = await readLogOpts(containerInfo.parse({}))
    const record = describeRun(guessRun(file, runJson, { host, options }))
    const error = await this.#offer(record)
    if (error) {
      log.error(
        { code: 'JOURNAL_REFUSED', file, err: error },
        "the journal's disk takes nothing for a container whose run is not known; its lines are read, counted and dropped until it does",
      )
      const again = setInterval(async () => {
        const isOver = !this.#bySlot.values().some((run) => run.record === record)
        if (isOver || !(await this.#offer(record))) clearInterval(again)
      }, OFFER_MS)
    }
    await this.#takeUp({ record, checkpoint: startOfRun(), end: 0 }, held, true)
    const { service, module, container } = record
    log.error(
      { code: 'JOURNAL_FOREIGN', run: record.run, file, service, module, container },
      'a FIFO is there whose run is not known; it is read, and its lines go under what is known of it. Restart the container to have them under its own names',
    )
  }

  /** Has the disk take a run that there is already. Until it does intake finds no folder to journal in. @returns why it does not */
  async #offer(record: RunRecord): Promise<Error | undefined> {
    const { journal } = this.#options
    try {
      writeRun(journal, record)
    } catch (error) {
      return error as Error
    }
    // A disk that does not sync takes the lines all the same: what a loss of power would cost is no reason for another id.
    await makeDurable(journal, record).catch(() => {})
    return undefined
  }

  /**
   * @param guessed whether it is not known of the run's FIFO that dockerd has opened it
   * @returns undefined where no slot is free; else resolves once the FIFO is read
   */
  #takeUp({ record, checkpoint, end }: LeftRun, held: number | undefined, guessed = false): Promise<void> | undefined {
    const slot = this.#slots.claim(end)
    if (slot === undefined) {
      if (held !== undefined)
        this.#options.log.error(
          { code: 'RUNS_EXHAUSTED', run: record.run },
          'too many FIFOs are there: this one is not read',
        )
      return undefined
    }
    const run = this.#enter(record, slot)
    // Before it is opened: one without a writer ends at once.
    run.guessed = guessed
    if (held === undefined) {
      // The container ended, and dockerd took its FIFO away: what is journalled is all there is.
      this.#slots.end(slot)
      run.over.resolve()
      this.#ship(run, checkpoint)
      return Promise.resolve()
    }
    this.#byFile.set(record.file, run)
    return this.#openFifo(run, held).then(() => this.#ship(run, checkpoint))
  }

  #enter(record: RunRecord, slot: number): Run {
    const run = this.#history.add(record, slot) as Run
    this.#bySlot.set(slot, run)
    return run
  }

  /** @returns why the FIFO can't be read, or undefined when it is held open */
  #openFifo(run: Run, held?: number): Promise<string | undefined> {
    const { promise, resolve } = Promise.withResolvers<string | undefined>()
    this.#opening.set(run.slot, resolve)
    const { record, slot } = run
    const folder = runFolder(this.#options.journal, record.run)
    const { cacheBytes, blockMs } = record.options
    const segmentBytes =
      cacheBytes > 0 && cacheBytes < SEGMENTS_KEPT * INTAKE_LIMITS.segmentBytes
        ? Math.max(MIN_SEGMENT_BYTES, Math.floor(cacheBytes / SEGMENTS_KEPT))
        : undefined
    this.#askIntake({ type: 'open', slot, folder, file: record.file, held, segmentBytes, blockMs })
    return promise
  }

  #askIntake(request: IntakeRequest): void {
    this.#intake.port.postMessage(request)
    writeSync(this.#wake, Buffer.from(BigUint64Array.of(1n).buffer))
  }

  #ship(run: Run, checkpoint: ShippingCheckpoint): void {
    this.#tellShipper({ type: 'add', slot: run.slot, record: run.record, checkpoint })
    // Shipping may be waiting for the doorbell with nothing to wait for.
    this.#slots.ring()
  }

  #tellShipper(request: ShipperRequest): void {
    this.#shipper.port.postMessage(request)
  }

  /** Moves what can't be understood to where somebody can look at it. */
  #setAside(path: string, why: string): void {
    const { journal, log } = this.#options
    let to: string
    try {
      to = setAside(journal, path)
    } catch (error) {
      log.error(
        { code: 'JOURNAL_REFUSED', path, why, err: error },
        'a run that is not understood could not be set aside',
      )
      return
    }
    log.error(
      { code: 'JOURNAL_FOREIGN', path, why, to },
      'a run in the journal is not understood and was set aside; its unshipped lines are lost unless it is mended',
    )
  }

  /**
   * LogDriver.StartLogging.
   * @throws DriverError whose message `docker run` shows
   */
  startLogging(file: string, info: ContainerInfo): Promise<void> {
    // dockerd asks again when it did not get the answer, be it that the first one still waits for the disk.
    const underWay = this.#starts.get(file)
    if (underWay) return underWay
    const start = this.#startLogging(file, info).finally(() => this.#starts.delete(file))
    this.#starts.set(file, start)
    return start
  }

  async #startLogging(file: string, info: ContainerInfo): Promise<void> {
    const known = this.#byFile.get(file)
    // The FIFO is held open already.
    if (known && !known.guessed) return
    // Now it is known, and its container prints nothing before the answer.
    if (known) {
      this.#byFile.delete(file)
      this.#askIntake({ type: 'close', slot: known.slot })
      // Else the next driver would find two runs of one FIFO.
      if (this.#slots.written(known.slot) === 0) removeRun(this.#options.journal, known.record.run)
    }
    try {
      const { settings } = this.#options
      const opts = await readLogOpts(info, { own: settings.KAFKA_TOPIC, allowed: settings.KAFKA_TOPICS_ALLOWED })
      await this.#start(file, info, opts)
    } catch (error) {
      // A refusal makes dockerd forget the FIFO that it made.
      if (isFifo(file)) unlinkFifo(file)
      throw error
    }
  }

  async #start(file: string, info: ContainerInfo, opts: LogOpts): Promise<void> {
    const { journal, host } = this.#options
    const slot = this.#slots.claim(0)
    if (slot === undefined) {
      throw new DriverError(
        'RUNS_EXHAUSTED',
        "tallyman holds too many runs that Kafka has not taken yet; see the plugin's log",
      )
    }
    let record: RunRecord
    try {
      record = await this.#create({
        ...opts,
        file,
        host,
        started: Date.now(),
        container: namedContainer(info),
      })
    } catch (error) {
      this.#slots.free(slot)
      throw new DriverError(
        'JOURNAL_REFUSED',
        `tallyman can't write its journal in ${journal}: ${(error as Error).message}`,
      )
    }
    const run = this.#enter(record, slot)
    this.#byFile.set(file, run)
    const undo = () => {
      this.#forget(run)
      this.#history.remove(record)
      removeRun(journal, record.run)
    }
    const durable = makeDurable(journal, record).catch((error: Error) => {
      undo()
      throw new DriverError('JOURNAL_REFUSED', `tallyman can't sync its journal in ${journal}: ${error.message}`)
    })
    const opened = durable
      .then(() => this.#openFifo(run))
      .then((reason) => {
        if (reason === undefined) return this.#ship(run, startOfRun())
        undo()
        throw new DriverError('FIFO_INVALID', `tallyman can't read the container's FIFO: ${reason}`)
      })
    // Too late for dockerd, not for us: should the FIFO be opened after all, its run is shipped and ends as any other.
    const late = sleep(DEADLINE_MS, undefined, { ref: false }).then(() => {
      throw new DriverError(
        'DEADLINE',
        `tallyman could not open the container's FIFO within ${DEADLINE_MS} ms: the disk of its journal may hang`,
      )
    })
    await Promise.race([opened, late])
    const { service, module, container } = record
    this.#options.log.debug({ run: record.run, service, module, container: container.name }, 'run started')
  }

  /** Makes a run's folder. A disk that is full gets a moment to take what is shipped from it. @throws Error of the file system */
  async #create(description: Omit<RunRecord, 'v' | 'run'>): Promise<RunRecord> {
    const until = performance.now() + MAKE_ROOM_MS
    for (let asked = false; ; asked = true) {
      try {
        const record = createRun(this.#options.journal, description)
        if (asked) this.#makeRoom(-1)
        return record
      } catch (error) {
        const full = (error as NodeJS.ErrnoException).code === 'ENOSPC' && performance.now() < until
        if (full !== asked) this.#makeRoom(full ? 1 : -1)
        if (!full) throw error
      }
      await sleep(RETRY_MS)
    }
  }

  /** @param starting how many more containers wait for room on the disk, or fewer */
  #makeRoom(starting = 0): void {
    this.#starting += starting
    this.#tellShipper({ type: 'make-room', wanted: this.#refused.size + this.#starting > 0 })
  }

  /** LogDriver.StopLogging: each FIFO is held open since before anybody could ask, and is read on to its end. */
  stopLogging(file: string): void {
    const run = this.#byFile.get(file)
    if (run) run.stopping = true
    this.#options.log.debug({ file, run: run?.record.run }, 'dockerd is about to close a FIFO')
  }

  /**
   * LogDriver.ReadLogs.
   * @throws DriverError whose message `docker logs` shows
   */
  async readLogs(info: ContainerInfo, config: ReadConfig, gone: AbortSignal): Promise<AsyncIterable<Buffer>> {
    const { options, service, module } = await readLogOpts(info)
    if (options.cacheBytes === 0) {
      throw new DriverError(
        'READ_LOGS_OFF',
        `the container was started with cache-disabled=true, so nothing of it is kept on this host; its lines are in the files of ${service}/${module}`,
      )
    }
    return this.#logReader.read(info.ContainerID, config, gone)
  }

  #intakeReport(report: IntakeReport): void {
    const run = this.#bySlot.get(report.slot)
    const context = { run: run?.record.run, container: run?.record.container.name }
    switch (report.type) {
      case 'opened':
        this.#opening.get(report.slot)?.(report.fifo)
        this.#opening.delete(report.slot)
        break
      case 'ended':
        if (run) this.#ended(run)
        break
      case 'disk-refused':
        this.#refused.add(report.slot)
        this.#makeRoom()
        this.#options.log.warn(
          { code: 'JOURNAL_REFUSED', errno: report.errno, ...context },
          "the journal's disk refuses bytes; room is made of what is shipped, and where that is not enough lines are dropped and counted, so that the container goes on. Make room on the disk",
        )
        break
      case 'disk-recovered':
        this.#refused.delete(report.slot)
        if (this.#refused.size === 0) this.#makeRoom()
        this.#options.log.info(context, "the journal's disk takes bytes again")
    }
  }

  #ended(run: Run): void {
    if (this.#refused.delete(run.slot) && this.#refused.size === 0) this.#makeRoom()
    // Not where another run has it by now.
    if (this.#byFile.get(run.record.file) === run) {
      this.#byFile.delete(run.record.file)
      if (!run.stopping) this.#unstopped++
      // One without a byte may be a FIFO that dockerd has just made and not opened yet.
      if (!run.guessed || this.#slots.written(run.slot) > 0) unlinkFifo(run.record.file)
    }
    run.over.resolve()
    this.#slots.ring()
  }

  #shipperReport(report: ShipperReport): void {
    if (report.type === 'removed') this.#history.remove(report.record)
    if (report.type === 'close-segment') this.#askIntake(report)
    if (report.type === 'metrics') {
      this.#metrics?.resolve(report)
      this.#metrics = undefined
    }
    if (report.type !== 'done') return
    const run = this.#bySlot.get(report.slot)
    if (run) this.#forget(run)
  }

  #forget(run: Run): void {
    this.#bySlot.delete(run.slot)
    if (this.#byFile.get(run.record.file) === run) this.#byFile.delete(run.record.file)
    this.#slots.free(run.slot)
    this.#takeUpLeft()
    const readable: Readable = run
    readable.slot = undefined
  }

  get runs(): RunState {
    return { open: this.#byFile.size, unstopped: this.#unstopped }
  }

  get bytesIn(): number {
    return this.#slots.taken
  }

  /** The longest turn of intake since this was asked last, s. */
  takeLongestTurn(): number {
    return this.#slots.takeLongestTurn() / 1e6
  }

  /** What shipping counted. Rejects when it does not say within METRICS_MS. */
  async shipping(): Promise<{ text: string; health: Health }> {
    if (!this.#metrics) {
      this.#metrics = Promise.withResolvers()
      this.#tellShipper({ type: 'metrics' })
    }
    const late = sleep(METRICS_MS, undefined, { ref: false }).then(() => {
      throw new Error(`the thread for shipping does not say within ${METRICS_MS} ms how it is`)
    })
    return Promise.race([this.#metrics.promise, late])
  }

  /** Lets go of everything: what is in the FIFOs stays there for the next driver, checkpoints are written. */
  async stop(): Promise<void> {
    if (this.#stopping) return
    this.#stopping = true
    const intakeGone = new Promise((resolve) => this.#intake.worker.once('exit', resolve))
    this.#askIntake({ type: 'stop' })
    const stopped = new Promise<void>((resolve) => {
      this.#shipper.port.on('message', (report: ShipperReport) => report.type === 'stopped' && resolve())
    })
    this.#tellShipper({ type: 'stop' })
    await Promise.race([Promise.all([intakeGone, stopped]), sleep(STOP_MS)])
    await this.#shipper.worker.terminate()
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

function isFifo(file: string): boolean {
  return lstatSync(file, { throwIfNoEntry: false })?.isFIFO() ?? false
}
