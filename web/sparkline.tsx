/** A sparkline: lines a minute over the last hour. */
const WIDTH = 120
const HEIGHT = 24

export function Sparkline({ rate, label }: { rate: number[]; label: string }) {
  const most = Math.max(1, ...rate)
  const step = WIDTH / Math.max(1, rate.length)
  return (
    <svg class="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label} preserveAspectRatio="none">
      {rate.map((lines, minute) => {
        // A minute with a single line is seen beside one with a million.
        const tall = lines === 0 ? 0.6 : Math.max(1.5, (lines / most) * (HEIGHT - 1))
        return (
          <rect
            key={minute}
            class={lines === 0 ? 'none' : ''}
            x={minute * step}
            y={HEIGHT - tall}
            width={step * 0.72}
            height={tall}
          />
        )
      })}
    </svg>
  )
}
