/**
 * The list of a feed's rows, of which those in sight are in the document.
 *
 * Invariants
 * - It follows its end while it is at its end; whoever scrolls up by hand holds the feed, and coming back to the end lets it go on.
 * - What is in sight stays where it is when earlier rows are put before it or let go of.
 */
import { type Signal, signal, useSignal, useSignalEffect } from '@preact/signals'
import {
  elementScroll,
  observeElementOffset,
  observeElementRect,
  Virtualizer,
  type VirtualizerOptions,
} from '@tanstack/virtual-core'
import { useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef } from 'preact/hooks'
import { CAPACITY, type Feed, type Row } from './feed.ts'
import { LogRow, type Wanted } from './log-row.tsx'
import { density, fields, wrap, zone } from './preferences.ts'

/** Rows wrap in a window this narrow whatever is preferred, see page.css. */
const NARROW = matchMedia('(max-width: 560px)')
const narrow = signal(NARROW.matches)
NARROW.addEventListener('change', () => {
  narrow.value = NARROW.matches
})

/** Distance from the end, px, that still counts as there. */
const AT_END = 24
/** A scroll so soon after somebody's hand moved is theirs, ms. */
const BY_HAND_MS = 400

export type ListHandle = { scrollTo(index: number): void; toEnd(): void; toStart(): void; page(by: 1 | -1): void }

type Props = {
  feed: Feed
  live: boolean
  /** Key of the row that keys go from. */
  current: Signal<string | undefined>
  unfolded: Signal<ReadonlySet<string>>
  wanted?: Wanted | undefined
  withService: boolean
  onOpen(row: Row): void
  onToggle(row: Row): void
  handle: { current: ListHandle | undefined }
  /** Somebody scrolled to the first row. */
  onStart(): void
}

export function LogList({
  feed,
  live,
  current,
  unfolded,
  wanted,
  withService,
  onOpen,
  onToggle,
  handle,
  onStart,
}: Props) {
  const scroller = useRef<HTMLDivElement>(null)
  const [, draw] = useReducer((n: number) => n + 1, 0)
  const byHand = useRef(0)
  /** Whether somebody moved it. */
  const touched = useRef(false)
  const version = useSignal(0)
  const follows = live && !feed.held.value
  // A new function tells the virtualizer that rows have changed.
  const keyOf = useCallback((index: number) => feed.at(index)?.key ?? index, [feed, version.value])
  const height = density.value === 'compact' ? 20 : 25
  const options: VirtualizerOptions<HTMLDivElement, HTMLDivElement> = {
    count: feed.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => height,
    getItemKey: keyOf,
    scrollToFn: elementScroll,
    observeElementRect,
    observeElementOffset,
    overscan: 12,
    // Keeping what is in sight in its place costs a walk over all rows: needless where the end is followed.
    anchorTo: follows ? 'start' : 'end',
    scrollEndThreshold: AT_END,
    onChange: () => draw(0),
  }
  const virtual = useMemo(() => new Virtualizer(options), [feed])
  virtual.setOptions(options)
  useLayoutEffect(() => virtual._didMount(), [virtual])
  useLayoutEffect(() => virtual._willUpdate())
  useSignalEffect(() => {
    version.value = feed.version.value
    draw(0)
  })

  useLayoutEffect(() => {
    // Sizes that were measured are kept by key for ever; a tail has ever new ones.
    if (virtual.itemSizeCache.size > 2 * CAPACITY) virtual.measure()
    // History begins at its end, too, where the newest is, and stays there while it comes in.
    if (follows || !touched.current) virtual.scrollToEnd()
  }, [version.value, follows, virtual])
  useLayoutEffect(() => virtual.measure(), [narrow.value, wrap.value, density.value, fields.value, virtual])

  useEffect(() => {
    handle.current = {
      scrollTo: (index) => {
        touched.current = true
        virtual.scrollToIndex(index, { align: 'auto' })
      },
      toEnd: () => virtual.scrollToEnd(),
      toStart: () => {
        touched.current = true
        virtual.scrollToOffset(0)
      },
      page: (by) => scroller.current?.scrollBy({ top: by * (scroller.current.clientHeight - 2 * height) }),
    }
  })

  // Rows that move away under a selection would take it along.
  useEffect(() => {
    const selecting = (): void => {
      const selection = getSelection()
      if (live && selection && !selection.isCollapsed && scroller.current?.contains(selection.anchorNode)) feed.hold()
    }
    document.addEventListener('selectionchange', selecting)
    return () => document.removeEventListener('selectionchange', selecting)
  }, [feed, live])

  const hand = (): void => {
    byHand.current = performance.now()
  }
  const scrolled = (): void => {
    if (performance.now() - byHand.current > BY_HAND_MS) return
    touched.current = true
    if (scroller.current?.scrollTop === 0) onStart()
    if (!live) return
    // The virtualizer hears of it after this.
    const { scrollHeight, scrollTop, clientHeight } = scroller.current!
    if (scrollHeight - scrollTop - clientHeight <= AT_END) {
      if (!feed.held.value || feed.pinned.value) return
      feed.release()
    } else feed.hold()
  }
  // Rows that are all of one height are not measured: that would lay the list out anew for each.
  const varies = wrap.value === 'on' || narrow.value
  const items = virtual.getVirtualItems()
  return (
    <div
      ref={scroller}
      class={`log ${wrap.value === 'on' ? 'wraps' : ''}`}
      role="region"
      aria-label="Log lines"
      tabIndex={0}
      onWheel={hand}
      onTouchMove={hand}
      onPointerDown={hand}
      onPointerMove={(event) => event.buttons > 0 && hand()}
      onKeyDown={hand}
      onScroll={scrolled}
    >
      <div class="rows" role="list" style={{ height: `${virtual.getTotalSize()}px` }}>
        {items.map(({ index, key, start }) => {
          const row = feed.at(index)
          if (!row) return null
          return (
            // biome-ignore lint/a11y/useKeyWithClickEvents: Enter opens the current row, see keys.ts
            <div
              key={key}
              ref={varies || unfolded.value.has(row.key) ? virtual.measureElement : null}
              data-index={index}
              data-at={row.key}
              class="item"
              role="listitem"
              aria-current={current.value === row.key ? 'true' : undefined}
              style={{ transform: `translateY(${start}px)` }}
              onClick={({ target }) => {
                const does = (target as Element).closest('button')
                if (!does && getSelection()?.isCollapsed !== false) onOpen(row)
              }}
            >
              <LogRow
                row={row}
                current={current.value === row.key}
                unfolded={unfolded.value.has(row.key)}
                wanted={wanted}
                withService={withService}
                onToggle={onToggle}
                zone={zone.value}
                frames={row.frames.length}
                summarized={fields.value === 'on'}
              />
            </div>
          )
        })}
      </div>
    </div>
  )
}
