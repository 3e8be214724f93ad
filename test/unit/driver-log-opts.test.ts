import { describe, expect, it } from 'vitest'
import { containerInfo, repositoryName } from '../../driver/container.ts'
import { readLogOpts, type TopicRule } from '../../driver/log-opts.ts'

const read = (config: Record<string, string>, more: Record<string, unknown> = {}, topics?: TopicRule) =>
  readLogOpts(
    containerInfo.parse({
      Config: config,
      ContainerID: '0123456789abcdef0123',
      ContainerName: '/web-1',
      ContainerImageName: 'registry:5000/shop/nginx:1.27',
      ContainerEnv: null,
      ...more,
    }),
    topics,
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
  ])('come from %s', async (_, config, more, expected) => {
    expect(await read(config, more)).toMatchObject(expected)
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
  ])('%o are refused in words that name key, value and what is allowed', async (config, message) => {
    await expect(read(config as Record<string, string>)).rejects.toThrow(message)
  })

  it("dockerd's own keys are taken", async () => {
    const own = {
      mode: 'non-blocking',
      'max-buffer-size': '4m',
      'cache-disabled': 'true',
      'max-size': '10m',
      'max-file': '3',
    }
    expect(await read(own)).toMatchObject({ service: 'nginx', module: 'web-1' })
  })
})

describe('what goes with the lines', () => {
  const env = ['APP=shop', 'VERSION=1=2', 'SECRET=x', 'EMPTY=', 'UNSET', `${'a'.repeat(40)}!=x`]
  const more = {
    ContainerLabels: { team: 'blue', 'com.example.tier': 'web', other: 'o' },
    ContainerEnv: env,
    ContainerImageID: 'sha256:0123456789abcdef',
  }

  it.each([
    ['nothing unless it is asked for', {}, {}],
    ['labels that there are', { labels: 'team,missing' }, { team: 'blue' }],
    ['labels by a pattern', { 'labels-regex': '^com\\.' }, { 'com.example.tier': 'web' }],
    ['variables, with what stands behind the first =', { env: 'VERSION,EMPTY' }, { VERSION: '1=2', EMPTY: '' }],
    ['labels by a pattern of RE2', { 'labels-regex': '(?i)^COM\\.' }, { 'com.example.tier': 'web' }],
    ['nothing by an empty pattern', { 'labels-regex': '', 'env-regex': '' }, {}],
    ['nothing, and soon, by a pattern that could be tried in many ways', { 'env-regex': '^(a+)+$' }, {}],
    ['no variable that has no value', { env: 'UNSET', 'env-regex': '^UN' }, {}],
    ['variables by a pattern', { 'env-regex': '^(APP|VER)' }, { APP: 'shop', VERSION: '1=2' }],
    ["an image's ID as Docker cuts it", { tag: '{{.ImageID}}' }, { tag: 'sha256:01234' }],
    ['a tag', { tag: '{{.Name}}/{{.ID}}' }, { tag: 'web-1/0123456789ab' }],
    ['all of them', { labels: 'team', env: 'APP', tag: 't' }, { team: 'blue', APP: 'shop', tag: 't' }],
  ])('%s', async (_, config, attrs) => {
    expect((await read(config, more)).attrs).toEqual(attrs)
  })

  it.each([
    [{ 'labels-regex': '(' }, /labels-regex=\(: is no regular expression/],
    [{ tag: '{{.Nam}}' }, /tag=.*\{\{\.Name\}\}/],
    // Docker's own drivers have functions and actions of Go's templates as well.
    [{ tag: '{{upper .Name}}' }, /tag=.*\{\{upper \.Name\}\} is no field of a tag template/],
    [{ tag: '{{.Name | lower}}' }, /is no field of a tag template/],
    [{ tag: '{{json .}}' }, /is no field of a tag template/],
    [{ tag: '{{truncate .ID 4}}' }, /is no field of a tag template/],
    [{ tag: '{{if .Name}}x{{end}}' }, /is no field of a tag template/],
    [{ tag: '{{with .Name}}' }, /is no field of a tag template/],
    [{ tag: '{{/* a comment */}}' }, /is no field of a tag template/],
    [{ tag: '{{.Name' }, /is no field of a tag template/],
    [{ tag: '{{.constructor}}' }, /is no field of a tag template/],
    [{ service: '{{upper .Name}}' }, /service=.*is no field of a tag template/],
    [{ env: 'LONG' }, /select LONG, which is longer than 4096/],
    [{ 'env-regex': 'BIG' }, /select 4 attributes of \d+ bytes; at most 256 of 8192/],
  ])('%j is refused in words', async (config, message) => {
    const large = ['LONG='.padEnd(5000, 'x'), ...[1, 2, 3, 4].map((i) => `BIG${i}=`.padEnd(3000, 'x'))]
    await expect(read(config, { ContainerEnv: large })).rejects.toThrow(message)
  })
})

describe('how a run is handled', () => {
  it('unless anything is said', async () => {
    expect((await read({})).options).toEqual({
      maxLineBytes: 256 * 1024,
      cacheBytes: 100 * 1024 ** 2,
      key: 'module',
      format: 'chunk',
      onFull: 'drop-oldest',
      blockMs: 1000,
    })
  })

  it.each([
    [{ 'max-line-bytes': '480k' }, { maxLineBytes: 480 * 1024 }],
    [{ 'kafka-key': 'run' }, { key: 'run' }],
    [{ 'kafka-topic': 'audit' }, { topic: 'audit' }],
    [{ format: 'json' }, { format: 'json' }],
    [
      { 'on-full': 'block', 'block-max': '500ms' },
      { onFull: 'block', blockMs: 500 },
    ],
    [{ 'cache-disabled': 'true', 'cache-max-size': '1g' }, { cacheBytes: 0 }],
    [{ 'cache-max-size': '1m', 'cache-max-file': '3' }, { cacheBytes: 3 * 1024 ** 2 }],
  ])('%j', async (config, options) => {
    expect((await read(config)).options).toMatchObject(options)
  })

  it.each([
    [{ 'max-line-bytes': '1m' }, /max-line-bytes=1m: must be at most 480k/],
    [{ 'max-line-bytes': '100' }, /max-line-bytes=100: must be at least 1k/],
    [{ 'max-line-bytes': 'long' }, /max-line-bytes=long: must be a number of bytes/],
    [{ 'kafka-key': 'host' }, /kafka-key=host: must be module or run/],
    [{ 'kafka-topic': 'a topic' }, /kafka-topic=a topic: must be a Kafka topic name/],
    [{ format: 'xml' }, /format=xml: must be chunk or json/],
    [{ format: 'json', 'max-line-bytes': '300k' }, /max-line-bytes=300k: must be at most 256k with format=json/],
    [{ 'on-full': 'wait' }, /on-full=wait: must be drop-oldest or block/],
    [{ 'block-max': '2 h' }, /block-max=2 h: must be a time, such as 500ms/],
    [{ 'block-max': '2m' }, /block-max=2m: must be at most 60s/],
    [{ 'cache-disabled': 'yes' }, /cache-disabled=yes: must be true or false/],
    [{ 'cache-max-file': '0' }, /cache-max-file=0: must be at least 1/],
    [{ 'kafka-keys': 'run' }, /kafka-keys is not known; the nearest known one is kafka-key/],
  ])('%j is refused in words', async (config, message) => {
    await expect(read(config)).rejects.toThrow(message)
  })
})

describe('the topic that a container names', () => {
  const rule = { own: 'tallyman', allowed: ['audit', 'team-*'] }
  it.each(['tallyman', 'audit', 'team-blue', 'team-'])('%s is allowed', async (topic) => {
    expect((await read({ 'kafka-topic': topic }, {}, rule)).options.topic).toBe(topic)
  })

  it.each(['audits', 'my-team-blue', 'tallyman.x'])(
    '%s is refused, and those that are allowed are named',
    async (topic) => {
      await expect(read({ 'kafka-topic': topic }, {}, rule)).rejects.toThrow(
        `kafka-topic=${topic}: this host's plugin allows tallyman, and what matches audit team-*; others with its setting KAFKA_TOPICS_ALLOWED`,
      )
    },
  )
})
