/** A container that prints what is known, through the plugin under test. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ContainerInspectInfo } from 'dockerode'
import { docker, LABEL, removeContainer } from './engine.ts'
import type { Printed } from './printed.ts'

export type ContainerOptions = {
  name: string
  image: string
  printed: Printed
  /** What the container runs. It finds what it shall print in /in/stdout and /in/stderr. Default: CAT. */
  command?: string[]
  logDriver: string
  logOpts: Record<string, string>
  labels?: Record<string, string>
  /** What it may have of the memory, at most. */
  memoryBytes?: number
}

/** Both sources at once, in large blocks. */
export const CAT = ['sh', '-c', 'cat /in/stderr >&2 & cat /in/stdout; wait']

/**
 * Line by line, stdout and stderr in turn, at most `perSecond` of them: a hundredth of that, then 10 ms of rest.
 * @param goAfter after so many lines it waits until /in/go is there
 */
export const paced = (perSecond: number, goAfter?: number): string[] => [
  ...['perl', '-e', PACED, String(Math.ceil(perSecond / 100))],
  ...(goAfter === undefined ? [] : [String(goAfter)]),
]

const PACED = `
  open my $out, "<:raw", "/in/stdout"; open my $err, "<:raw", "/in/stderr";
  for (my $printed = 0;;) {
    my ($o, $e) = (scalar <$out>, scalar <$err>);
    last unless defined $o or defined $e;
    for ([*STDOUT, $o], [*STDERR, $e]) {
      my ($to, $line) = @$_;
      next unless defined $line;
      syswrite $to, $line;
      select undef, undef, undef, 0.01 while @ARGV > 1 && $printed + 1 == $ARGV[1] && !-e "/in/go";
      select undef, undef, undef, 0.01 if ++$printed % $ARGV[0] == 0;
    }
  }`

/** All but the last line, and that one once /in/go is there. */
export const AWAITING_GO = [
  'sh',
  '-c',
  'head -n -1 /in/stdout; until [ -e /in/go ]; do sleep 0.01; done; tail -n 1 /in/stdout',
]

export class Container {
  readonly name: string
  readonly id: string
  readonly printed: Printed
  #in: string

  private constructor(name: string, id: string, printed: Printed, folder: string) {
    this.name = name
    this.id = id
    this.printed = printed
    this.#in = folder
  }

  /** @param folder a folder of the container's own, which it sees as /in */
  static async create(folder: string, options: ContainerOptions): Promise<Container> {
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'stdout'), options.printed.stdout)
    writeFileSync(join(folder, 'stderr'), options.printed.stderr)
    const { id } = await docker.createContainer({
      name: options.name,
      Image: options.image,
      Cmd: options.command ?? CAT,
      Labels: { ...options.labels, [LABEL]: 'generator' },
      HostConfig: {
        NetworkMode: 'none',
        ...(options.memoryBytes !== undefined && { Memory: options.memoryBytes, MemorySwap: options.memoryBytes }),
        Binds: [`${folder}:/in:ro`],
        LogConfig: { Type: options.logDriver, Config: options.logOpts },
      },
    })
    return new Container(options.name, id, options.printed, folder)
  }

  /** @throws Error with the logging driver's words, where it refuses */
  async start(): Promise<void> {
    await docker.getContainer(this.id).start()
  }

  /** Lets one that waits for /in/go go on. */
  go(): void {
    writeFileSync(join(this.#in, 'go'), '')
  }

  /** Resolves with the exit code once it has ended. */
  async ended(): Promise<number> {
    return (await docker.getContainer(this.id).wait()).StatusCode
  }

  /** `docker stop`. @returns how long that took, s */
  async stop(grace: number): Promise<number> {
    const begun = performance.now()
    await docker.getContainer(this.id).stop({ t: grace })
    return (performance.now() - begun) / 1000
  }

  inspect(): Promise<ContainerInspectInfo> {
    return docker.getContainer(this.id).inspect()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeContainer(this.id)
  }
}
