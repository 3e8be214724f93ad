/** A sparkline: lines a minute over the last hour, a bar each, in one path: there may be hundreds of these on a page. */
const WIDTH = 120
const HEIGHT = 24

export function Sparkline({ rate, label }: { rate: number[]; label: string }) {
  const most = Math.max(1, ...rate)
  const step = WIDTH / Math.max(1, rate.length)
  const bars = rate.map((lines, minute) => {
    if (lines === 0) return ''
    // A minute with a single line is seen beside one with a million.
    const tall = Math.max(1.5, (lines / most) * (HEIGHT - 1))
    return `M${(minute * step).toFixed(1)} ${HEIGHT}v${-tall.toFixed(1)}h${(step * 0.72).toFixed(1)}v${tall.toFixed(1)}z`
  })
  return (
    <svg class="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label} preserveAspectRatio="none">
      <path class="none" d={`M0 ${HEIGHT - 0.6}h${WIDTH}v0.6h${-WIDTH}z`} />
      <path d={bars.join('')} />
    </svg>
  )
}
