/** What the measured containers print: lines of a web server's access log, which compress about as well as real ones do. */

const METHODS = ['GET', 'GET', 'GET', 'GET', 'POST', 'PUT']
const PATHS = ['/', '/cart', '/api/orders', '/api/search', '/static/app.js', '/login', '/api/items', '/img/logo.svg']
const STATUS = [200, 200, 200, 200, 200, 304, 302, 404, 500]

/** `count` lines of exactly `bytes` bytes and a newline each, the same ones every time, no two alike. */
export function accessLog(count: number, bytes: number): Buffer {
  const all = Buffer.alloc(count * (bytes + 1))
  let state = 1
  const next = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  const of = <T>(list: readonly T[]): T => list[next(list.length)]!
  for (let i = 0; i < count; i++) {
    const second = new Date(1_795_422_281_000 + Math.floor(i / 200) * 1000).toISOString().slice(0, 19)
    const line = `10.${next(4)}.${next(256)}.${next(256)} [${second}Z] "${of(METHODS)} ${of(PATHS)} HTTP/1.1" ${of(STATUS)} ${next(60_000)} 0.${next(1000)} ${i} `
    const id = `${next(2 ** 32).toString(16)}${next(2 ** 32).toString(16)}`
    all.write(`${line}${id}`.padEnd(bytes, '-').slice(0, bytes), i * (bytes + 1), 'latin1')
    all[(i + 1) * (bytes + 1) - 1] = 10
  }
  return all
}
