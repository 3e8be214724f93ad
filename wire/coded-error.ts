/** An error out of a program's table: a stable code, and who must act. */
export abstract class CodedError<Code extends string, Actor extends string> extends Error {
  readonly code: Code
  readonly acts: Actor

  constructor(table: Readonly<Record<Code, Actor>>, code: Code, message: string) {
    super(message)
    this.name = new.target.name
    this.code = code
    this.acts = table[code]
  }
}
