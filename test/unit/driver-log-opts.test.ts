import { describe, expect, it } from 'vitest'
import { containerInfo, repositoryName } from '../../driver/container.ts'
import { readLogOpts } from '../../driver/log-opts.ts'

const read = (config: Record<string, string>, more: Record<string, unknown> = {}) =>
  readLogOpts(
    containerInfo.parse({
      Config: config,
      ContainerID: '0123456789abcdef0123',
      ContainerName: '/web-1',
      ContainerImageName: 'registry:5000/shop/nginx:1.27',
      ContainerEnv: null,
      ...more,
    }),
  )

const labels = (map: Record<string, string>) => ({ ContainerLabels: map })
const compose = { 'com.docker.compose.project': 'shop', 'com.docker.compose.service': 'api' }
const swarm = { 'com.docker.stack.namespace': 'mall', 'com.docker.swarm.service.name': 'mall_cart' }
const own = { 'tallyman.service': 'own', 'tallyman.module': 'mine' }

describe('service and module', () => {
  it.each([
    ['nothing but an image and a name', {}, {}, { service: 'nginx', module: 'web-1' }],
    ['Compose', {}, labels(compose), { service: 'shop', module: 'api' }],
    ['Swarm, before Compose', {}, labels({ ...compose, ...swarm }), { service: 'mall', module: 'cart' }],
    [
      'a Swarm service without a stack',
      {},
      labels({ 'com.docker.swarm.service.name': 'solo' }),
      { service: 'nginx', module: 'solo' },
    ],
    ['our labels, before Swarm', {}, labels({ ...compose, ...swarm, ...own }), { service: 'own', module: 'mine' }],
    ['log-opts, before all', { service: 's', module: 'm' }, labels(own), { service: 's', module: 'm' }],
    [
      'templates',
      { service: '{{.ImageName}}', module: 'x-{{ .Name }}-{{.ID}}' },
      {},
      { service: 'registry:5000/shop/nginx:1.27', module: 'x-web-1-0123456789ab' },
    ],
    [
      'a name that looks like a template',
      { module: '{{.Name}}' },
      { ContainerName: '/{{.Foo}}' },
      { service: 'nginx', module: '{{.Foo}}' },
    ],
    ['an image without a name', {}, { ContainerImageName: '' }, { service: 'unknown', module: 'web-1' }],
    [
      'a label of 5,000 characters',
      {},
      labels({ 'tallyman.service': 'x'.repeat(5000) }),
      { service: 'x'.repeat(1024), module: 'web-1' },
    ],
  ])('come from %s', (_, config, more, expected) => {
    expect(read(config, more)).toEqual(expected)
  })

  it.each([
    ['nginx', 'nginx'],
    ['nginx:1.27', 'nginx'],
    ['registry:5000/nginx', 'nginx'],
    ['a/b/c@sha256:0123', 'c'],
    ['sha256:0123456789ab', '0123456789ab'],
  ])('the repository of %s is %s', (image, name) => {
    expect(repositoryName(image)).toBe(name)
  })
})

describe('log-opts', () => {
  it.each([
    [{ servce: 'x' }, /servce is not known; the nearest known one is service/],
    [{ modul: 'x' }, /nearest known one is module/],
    [{ service: '' }, /log-opt service=: must not be empty/],
    [{ module: '{{.Name' }, /log-opt module=\{\{\.Name: .*there are .*\{\{\.Name\}\}/],
    [{ module: '{{.Nme}}' }, /\{\{\.Nme\}\} is no field/],
    [{ module: '{{.constructor}}' }, /is no field/],
    [{ service: 'x'.repeat(1025) }, /longer than 1024/],
  ])('%o are refused in words that name key, value and what is allowed', (config, message) => {
    expect(() => read(config as Record<string, string>)).toThrow(message)
  })

  it("dockerd's own keys are taken", () => {
    const own = {
      mode: 'non-blocking',
      'max-buffer-size': '4m',
      'cache-disabled': 'true',
      'max-size': '10m',
      'max-file': '3',
    }
    expect(read(own)).toEqual({ service: 'nginx', module: 'web-1' })
  })
})
