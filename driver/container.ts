/**
 * A container as dockerd describes it in StartLogging (moby daemon/logger/loginfo.go), and what its log-opts select of it.
 */
import * as z from 'zod'

const strings = z
  .record(z.string(), z.string())
  .nullish()
  .transform((map) => map ?? {})

/** Info of StartLogging. Keys that we have no use for are left out, and what may be null is made empty. */
export const containerInfo = z.object({
  Config: strings,
  ContainerID: z.string().default(''),
  ContainerName: z.string().default(''),
  ContainerEntrypoint: z.string().default(''),
  ContainerArgs: z
    .array(z.string())
    .nullish()
    .transform((list) => list ?? []),
  ContainerImageID: z.string().default(''),
  ContainerImageName: z.string().default(''),
  ContainerEnv: z
    .array(z.string())
    .nullish()
    .transform((list) => list ?? []),
  ContainerLabels: strings,
  DaemonName: z.string().default(''),
})

export type ContainerInfo = z.infer<typeof containerInfo>

/** The name as people know it: dockerd hands it over with a slash before it. */
export const containerName = (info: ContainerInfo): string => info.ContainerName.replace(/^\//, '')

/** Names travel with every chunk, and Docker's own are far shorter. */
const MAX_NAME = 255
const cut = (text: string): string => text.slice(0, MAX_NAME).toWellFormed()

/** The container as its lines name it. */
export const namedContainer = (info: ContainerInfo): { id: string; name: string; image: string } => ({
  id: cut(info.ContainerID),
  name: cut(containerName(info)),
  image: cut(info.ContainerImageName),
})

/** The last part of an image's repository: `api` of `registry:5000/shop/api:1.2@sha256:…`. */
export function repositoryName(image: string): string {
  const repository = image.replace(/^sha256:/, '').replace(/@.*$/, '')
  return repository.slice(repository.lastIndexOf('/') + 1).replace(/:.*$/, '')
}

/** Docker's tag template fields (moby daemon/logger/loggerutils/log_tag.go), each with its value. */
export const FIELDS: Record<string, (info: ContainerInfo) => string> = {
  ID: (info) => info.ContainerID.slice(0, 12),
  FullID: (info) => info.ContainerID,
  Name: containerName,
  // With `sha256:` in front, where there is one: so does Docker.
  ImageID: (info) => info.ContainerImageID.slice(0, 12),
  ImageFullID: (info) => info.ContainerImageID,
  ImageName: (info) => info.ContainerImageName,
  DaemonName: (info) => info.DaemonName,
  Command: (info) => [info.ContainerEntrypoint, ...info.ContainerArgs].filter(Boolean).join(' '),
}

/**
 * Fills `{{.Name}}` and the like.
 * @throws Error naming the fields that there are
 */
export function fillTemplate(template: string, info: ContainerInfo): string {
  const filled = template.replace(/\{\{\s*\.(\w+)\s*\}\}/g, (whole, field: string) => FIELDS[field]?.(info) ?? whole)
  // What a value brings in is not looked at again: only what the template itself leaves unfilled is a mistake.
  const unknown = template.match(/\{\{.*?(\}\}|$)/g)?.find((part) => {
    const field = /^\{\{\s*\.(\w+)\s*\}\}$/.exec(part)?.[1]
    return field === undefined || !Object.hasOwn(FIELDS, field)
  })
  if (unknown !== undefined) {
    const fields = Object.keys(FIELDS).map((field) => `{{.${field}}}`)
    throw new Error(`${unknown} is no field of a tag template; there are ${fields.join(' ')}`)
  }
  return filled
}

/** Whether a label's or a variable's name is meant. */
export type NameTest = (name: string) => boolean

/** Which labels and variables of a container go with its lines. */
export type AttributeOpts = {
  labels: string[]
  'labels-regex'?: NameTest | undefined
  env: string[]
  'env-regex'?: NameTest | undefined
}

/** The attributes that the options select, as Docker's own drivers do (moby daemon/logger/loginfo.go, ExtraAttributes). */
export function extraAttributes(info: ContainerInfo, opts: AttributeOpts): Record<string, string> {
  // A name alone takes its variable out of those of the image: it is none of the container's.
  const variables = info.ContainerEnv.filter((pair) => pair.includes('=')).map((pair): [string, string] => {
    const [name = '', ...value] = pair.split('=')
    return [name, value.join('=')]
  })
  const selected = (pairs: [string, string][], names: string[], matches: NameTest | undefined) =>
    pairs.filter(([name]) => names.includes(name) || matches?.(name))
  return Object.fromEntries([
    ...selected(Object.entries(info.ContainerLabels), opts.labels, opts['labels-regex']),
    ...selected(variables, opts.env, opts['env-regex']),
  ])
}

const firstOf = (...candidates: (string | undefined)[]): string => candidates.find((c) => c) ?? 'unknown'

/** The service of a container without a log-opt that says it. */
export const derivedService = ({ ContainerLabels: labels, ContainerImageName }: ContainerInfo): string =>
  firstOf(
    labels['tallyman.service'],
    labels['com.docker.stack.namespace'],
    labels['com.docker.compose.project'],
    repositoryName(ContainerImageName),
  )

/** The module of a container without a log-opt that says it. */
export function derivedModule(info: ContainerInfo): string {
  const labels = info.ContainerLabels
  const stack = labels['com.docker.stack.namespace']
  const swarmService = labels['com.docker.swarm.service.name']
  return firstOf(
    labels['tallyman.module'],
    stack && swarmService?.startsWith(`${stack}_`) ? swarmService.slice(stack.length + 1) : swarmService,
    labels['com.docker.compose.service'],
    containerName(info),
    info.ContainerID,
  )
}
