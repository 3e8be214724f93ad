/** What a container without log-opts gets, but for what a test is about. */
import { containerInfo } from '../../driver/container.ts'
import { readLogOpts } from '../../driver/log-opts.ts'
import type { RunOptions } from '../../driver/run.ts'

const { options } = await readLogOpts(
  containerInfo.parse({ Config: {}, ContainerID: '', ContainerName: '/x', ContainerImageName: 'x' }),
)

export const runOptions = (differing: Partial<RunOptions> = {}): RunOptions => ({ ...options, ...differing })
