/** The long forms of tests: `make soak` runs what `make test` runs, longer and more often. */
export const inSoak = <T>(short: T, long: T): T => (process.env['SOAK'] ? long : short)
