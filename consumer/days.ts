/**
 * Days: which day of the files' time zone a moment falls on.
 *
 * A day is looked up in Intl once, with both of its midnights, so that lines need a comparison each and no more.
 */

export type Day = {
  /** YYYY-MM-DD. */
  name: string
  /** First ms of the day and first ms of the next one, since 1970. */
  start: number
  end: number
}

const DAY_MS = 86_400_000

/** The day that is so many days after another; their names are a calendar's, whatever the zone. */
export const dayAfter = (day: string, days: number): string =>
  new Date(Date.parse(day) + days * DAY_MS).toISOString().slice(0, 10)

export class Days {
  #format: Intl.DateTimeFormat
  #known: Day[] = []

  /** @param zone an IANA time zone */
  constructor(zone: string) {
    // The Swedish way of writing a date is ISO's.
    this.#format = new Intl.DateTimeFormat('sv-SE', {
      timeZone: zone,
      year: 'numeric',
      month: '2-digit',
      day: '2-digit',
    })
  }

  /** The day of `ms` since 1970. */
  at(ms: number): Day {
    const known = this.#known.find((day) => ms >= day.start && ms < day.end)
    if (known) return known
    const name = this.#format.format(ms)
    const day = { name, start: this.#edge(ms, name, -1), end: this.#edge(ms, name, 1) }
    this.#known.unshift(day)
    this.#known.length = Math.min(this.#known.length, 16)
    return day
  }

  /** The day of this name. */
  named(name: string): Day {
    // Noon in Greenwich is on that day nearly everywhere, and on the day after in the far east.
    const day = this.at(Date.parse(`${name}T12:00:00Z`))
    return day.name > name ? this.at(day.start - 1) : day
  }

  /** The first ms of the day `name`, or of the day after it, looked for from `inside` on. Days have 23 to 25 hours. */
  #edge(inside: number, name: string, direction: 1 | -1): number {
    let within = inside
    let beyond = inside + direction * DAY_MS * 1.5
    while (Math.abs(beyond - within) > 1) {
      const middle = Math.floor((within + beyond) / 2)
      if (this.#format.format(middle) === name) within = middle
      else beyond = middle
    }
    return Math.max(within, beyond)
  }
}
