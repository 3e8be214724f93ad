import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { configuredServers, serversOf } from '../../cli/servers.ts'
import { temporaryFolder } from '../support/folder.ts'

const NOWHERE = { XDG_CONFIG_HOME: '/nonexistent' }

function configured(files: Record<string, string>) {
  const folder = temporaryFolder()
  mkdirSync(join(folder.path, 'tallyman'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder.path, 'tallyman', name), text)
  return { ...folder, env: { XDG_CONFIG_HOME: folder.path } }
}

const places = async (named: string[], env: NodeJS.ProcessEnv): Promise<string[]> =>
  (await serversOf(named, env)).map(({ name, url }) => `${name} ${url}`)

describe('without a configuration', () => {
  it.each([
    [{}, ['127.0.0.1:4680 http://127.0.0.1:4680/']],
    [{ HTTP_ADDR: '0.0.0.0:80' }, ['0.0.0.0 http://0.0.0.0/']],
    [
      { TALLYMAN_URL: 'https://logs.example/tallyman', HTTP_ADDR: 'x:1' },
      ['logs.example https://logs.example/tallyman/'],
    ],
    [{ TALLYMAN_URL: 'http://a:1, b:2,,http://a:1' }, ['a:1 http://a:1/', 'b:2 http://b:2/']],
  ])('%j asks %j', async (env, expected) => {
    expect(await places([], { ...NOWHERE, ...env })).toEqual(expected)
  })

  it.each(['ftp://a', 'http://', 'http://a:b'])('TALLYMAN_URL=%s is refused', async (url) => {
    await expect(serversOf([], { ...NOWHERE, TALLYMAN_URL: url })).rejects.toThrow(/TALLYMAN_URL says .* is no URL/)
  })

  it('a named server is unknown, and it is said where one would be written', async () => {
    await expect(serversOf(['prod'], NOWHERE)).rejects.toThrow(
      "no server 'prod': nobody wrote /nonexistent/tallyman/config.json or /nonexistent/tallyman/config.toml",
    )
  })

  it('TALLYMAN_TOKEN is the token of all', async () => {
    const servers = await serversOf([], { ...NOWHERE, TALLYMAN_URL: 'http://a,http://b', TALLYMAN_TOKEN: 't' })
    expect(servers.map(({ token }) => token)).toEqual(['t', 't'])
  })
})

const TOML = `
default = "prod"
[servers.prod]
url = "https://logs.example:4680"
tokenFile = "prod.token"
[servers.test]
url = "http://127.0.0.1:1"
token = "own"
`

describe('a configuration', () => {
  it('says servers by name, one of them as the default, with tokens of their own or in files', async () => {
    using config = configured({ 'config.toml': TOML, 'prod.token': 'secret\n' })
    expect(await serversOf([], config.env)).toMatchObject([{ name: 'prod', token: 'secret' }])
    expect(await serversOf(['test', 'test'], { ...config.env, TALLYMAN_TOKEN: 'other' })).toMatchObject([
      { name: 'test', url: new URL('http://127.0.0.1:1/'), token: 'own' },
    ])
    expect(await configuredServers(config.env)).toEqual(['prod', 'test'])
  })

  it('of all servers asks all where it has no default, and TALLYMAN_URL goes before it', async () => {
    using config = configured({ 'config.json': '{"servers": {"a": {"url": "http://a"}, "b": {"url": "http://b"}}}' })
    expect(await places([], config.env)).toEqual(['a http://a/', 'b http://b/'])
    expect(await places([], { ...config.env, TALLYMAN_URL: 'http://c' })).toEqual(['c http://c/'])
    expect(await places(['b'], { ...config.env, TALLYMAN_URL: 'http://c' })).toEqual(['b http://b/'])
    await expect(serversOf(['prod'], config.env)).rejects.toThrow("has no server 'prod'; it has a, b")
  })

  it.each([
    ['config.json', '{', /config\.json is no JSON/],
    ['config.toml', 'a = ', /config\.toml is no TOML/],
    ['config.json', '{"server": {}}', /server is not known; the nearest known one is servers/],
    [
      'config.json',
      '{"servers": {"a": {"url": "http://a", "tokn": "x"}}}',
      /servers\.a\.tokn .* the nearest .* token$/,
    ],
    ['config.json', '{"servers": {"a": {"url": "nowhere"}}}', /servers\.a\.url: must be a URL/],
    ['config.json', '{"default": "b", "servers": {}}', /default names the server 'b', which is not there/],
    ['config.toml', '[servers.a]\nurl="http://a"\ntokenFile="none"', /the token of a cannot be read: ENOENT/],
  ])('%s with %s is refused', async (name, text, message) => {
    using config = configured({ [name]: text })
    await expect(serversOf([], config.env)).rejects.toThrow(message)
  })

  it('that TALLYMAN_CONFIG names has to be there', async () => {
    await expect(serversOf([], { TALLYMAN_CONFIG: '/nonexistent.json' })).rejects.toThrow(/cannot be read: ENOENT/)
  })
})
