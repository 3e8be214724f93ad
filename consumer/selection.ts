/** Which lines are meant by a question: globs and access as a check of names, regular expressions as a check of text. */
import { RE2JS, RE2JSSyntaxException } from 're2js'
import type { Access } from './access.ts'
import type { Filters, Selection } from './api-schema.ts'
import { ConsumerError } from './errors.ts'
import { globMatcher } from './glob.ts'
import type { Names } from './index-log.ts'
import { MAX_STEPS, stepsOf } from './pattern-size.ts'

export type Source = 'stdout' | 'stderr'

/** A selection as it is held against what is there. */
export type Selector = {
  /** Whether lines with these names can be meant at all. */
  names(names: Omit<Names, 'format'>): boolean
  stdout: boolean
  stderr: boolean
}

type ModuleNames = Pick<Names, 'service' | 'module'>

const any = (): boolean => true
const given = (globs: readonly string[]): ((name: string) => boolean) => (globs.length === 0 ? any : globMatcher(globs))

/** `service/module` is told apart at its first slash: a module's name may hold more of them. */
function pairs(targets: readonly string[]): ((names: ModuleNames) => boolean)[] {
  return targets.map((target) => {
    const slash = target.indexOf('/')
    const service = globMatcher([target.slice(0, slash)])
    const module = globMatcher([target.slice(slash + 1)])
    return (names) => service(names.service) && module(names.module)
  })
}

/** @param may services that whoever asks may read */
export function selectorOf(selection: Selection, may: Access['may']): Selector {
  const { service, module, host, container, target, source } = selection
  const byModule = moduleSelector({ service, module, target: [] }, may)
  const [byHost, byContainer] = [given(host), given(container)]
  const ofPair = pairs(target.filter((name) => name.includes('/')))
  const single = globMatcher(target.filter((name) => !name.includes('/')))
  const targeted =
    target.length === 0
      ? any
      : (names: Omit<Names, 'format'>) =>
          single(names.service) || single(names.container) || ofPair.some((matches) => matches(names))
  return {
    names: (names) => byModule(names) && byHost(names.host) && byContainer(names.container) && targeted(names),
    stdout: source.length === 0 || source.includes('stdout'),
    stderr: source.length === 0 || source.includes('stderr'),
  }
}

/** Which modules are meant, where nothing is known of hosts and containers. */
export function moduleSelector(
  { target, service, module }: Pick<Selection, 'target' | 'service' | 'module'>,
  may: Access['may'],
): (names: ModuleNames) => boolean {
  const [byService, byModule] = [given(service), given(module)]
  const ofPair = pairs(target.filter((name) => name.includes('/')))
  const single = globMatcher(target.filter((name) => !name.includes('/')))
  const targeted =
    target.length === 0
      ? any
      : (names: ModuleNames) => single(names.service) || ofPair.some((matches) => matches(names))
  return (names) => may(names.service) && byService(names.service) && byModule(names.module) && targeted(names)
}

/** Places in a text, in UTF-16 code units. */
export type Spans = [begin: number, end: number][]

export type TextFilter = {
  passes(text: string): boolean
  /** Where a text that passes matched; nothing is said where there is nothing to be included. */
  spans(text: string): Spans | undefined
}

/**
 * Compiles what is to be included and excluded.
 * @returns undefined where every text passes
 * @throws ConsumerError for what is no regular expression of RE2's
 */
export function textFilter({ include, exclude, ignoreCase }: Filters): TextFilter | undefined {
  if (include.length === 0 && exclude.length === 0) return undefined
  refuseLarge([...include, ...exclude])
  const included = include.map((pattern) => compile(pattern, ignoreCase))
  const includes = include.map((pattern, i) => wordsOf(pattern, ignoreCase) ?? included[i]!)
  const excludes = exclude.map((pattern) => {
    const compiled = compile(pattern, ignoreCase)
    return wordsOf(pattern, ignoreCase) ?? compiled
  })
  return {
    passes: (text) =>
      (includes.length === 0 || includes.some((pattern) => pattern.test(text))) &&
      !excludes.some((pattern) => pattern.test(text)),
    spans: (text) => (included.length === 0 ? undefined : included.flatMap((pattern) => spansOf(pattern, text))),
  }
}

/** @throws ConsumerError where the patterns of a question get too large together */
function refuseLarge(patterns: readonly string[]): void {
  const steps = patterns.reduce((sum, pattern) => sum + stepsOf(pattern), 0)
  if (steps <= MAX_STEPS) return
  const message = `the regular expressions are too large: repetitions such as {1,1000} count as often as they may repeat, here ${steps} steps in all, and there may be ${MAX_STEPS}`
  throw new ConsumerError('QUERY_INVALID', message)
}

/**
 * A pattern that is a choice of plain words, such as `error|panic`, as JavaScript's own, which is many times as fast and needs no more
 * than linear time for these.
 * @returns undefined for any other pattern
 */
function wordsOf(pattern: string, ignoreCase: boolean): RegExp | undefined {
  const [, flag, words] = /^(\(\?i\))?((?:[^\\^$.|?*+()[\]{}]|\|)+)$/su.exec(pattern) ?? []
  if (words === undefined) return undefined
  return new RegExp(words, ignoreCase || flag ? 'iu' : 'u')
}

/** @throws ConsumerError saying what of the pattern is not understood */
export function compile(pattern: string, ignoreCase: boolean): RE2JS {
  refuseLarge([pattern])
  try {
    return RE2JS.compile(pattern, ignoreCase ? RE2JS.CASE_INSENSITIVE : 0)
  } catch (error) {
    if (!(error instanceof RE2JSSyntaxException)) throw error
    throw new ConsumerError('QUERY_INVALID', `the regular expression ${pattern} is not understood: ${error.message}`)
  }
}

/** A line that matches in more places than this is marked in the first ones; places that are empty count, they take as long to find. */
const MAX_SPANS = 100

export function spansOf(pattern: RE2JS, text: string): Spans {
  const matcher = pattern.matcher(text)
  const spans: Spans = []
  for (let i = 0; i < MAX_SPANS && matcher.find(); i++) {
    const [begin, end] = [matcher.start(), matcher.end()]
    if (end > begin) spans.push([begin, end])
  }
  return spans
}
