/** Time zones by what the clock says in them now, so that no test meets a midnight that it did not ask for. */

const HOUR_MS = 3_600_000

/** The zone without summer time whose clock is this many hours ahead of UTC. POSIX counts westward. */
const zone = (ahead: number): string => (ahead === 0 ? 'Etc/GMT' : `Etc/GMT${ahead > 0 ? '-' : '+'}${Math.abs(ahead)}`)

/** A zone where it is noon, give or take an hour. */
export function zoneAtNoon(): string {
  return zone(12 - new Date().getUTCHours())
}

/** A zone where it is another day than in UTC, and stays so for an hour, and that day. */
export function zoneOfAnotherDay(): { zone: string; day: string } {
  const ahead = new Date().getUTCHours() >= 10 ? 14 : -12
  return { zone: zone(ahead), day: new Date(Date.now() + ahead * HOUR_MS).toISOString().slice(0, 10) }
}
