/** What a container without log-opts gets, but for what a test is about. */
import { containerInfo } from '../../driver/container.ts'
import { readLogOpts } from '../../driver/log-opts.ts'
import type { RunOptions } from '../../driver/run.ts'

export const runOptions = (differing: Partial<RunOptions> = {}): RunOptions => ({
  ...readLogOpts(containerInfo.parse({ Config: {}, ContainerID: '', ContainerName: '/x', ContainerImageName: 'x' }))
    .options,
  ...differing,
})
