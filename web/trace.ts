/**
 * Stack traces: which lines go on with the one before them, as runtimes print them.
 *
 *   java.lang.IllegalStateException: …      Traceback (most recent call last):       panic: …
 *       at shop.Cart.add(Cart.java:42)        File "cart.py", line 42, in add
 *   Caused by: java.io.IOException            raise ValueError(…)                     goroutine 1 [running]:
 *       ... 12 more                         ValueError: …                            main.main()
 *                                                                                    	/src/main.go:42 +0x1d
 */

const FRAME = new RegExp(
  [
    String.raw`\s+at .`, // Java, JavaScript, C#
    String.raw`\s+\.\.\. \d+ (?:more|common frames omitted)`,
    String.raw`\s*Caused by: .`,
    String.raw`\s+Suppressed: .`,
    String.raw`\s*--- End of (?:inner exception )?stack trace`,
    String.raw`\s+File ".*", line \d+`, // Python, and what stands below
    String.raw`\s{4,}\S`,
    String.raw`\t+\S`, // Go's places
    String.raw`goroutine \d+ \[.*\]:`,
    String.raw`created by [\w./*()-]+`,
    String.raw`[\w./*()-]+\(.*\)$`, // Go's functions: shop/cart.(*Cart).Add(0xc000…)
    String.raw`\s+from .+:\d+:in .`, // Ruby
    String.raw`#\d+ .+\(\d+\): .`, // PHP
    String.raw`\s+\d+: .+`, // Rust
    '(?:During handling of the above exception|The above exception was the direct cause)',
  ]
    .map((form) => `(?:${form})`)
    .join('|'),
  'y',
)
/** What ends a Python traceback is written at the margin. */
const PYTHON_END = /[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning|Iteration)\b/y
const PYTHON_HEAD = /^\s*Traceback \(most recent call last\):/
const GO_FUNCTION = /^[\w./*()-]+\(.*\)$/
const GO_HEAD = /^(?:panic: |fatal error: |goroutine \d+ \[|SIG[A-Z]+: )/
const LONGEST = 2_000

const matchesAt = (pattern: RegExp, text: string): boolean => {
  pattern.lastIndex = 0
  return pattern.test(text)
}

/** Whether `text` goes on with the trace that `head` began. @param last the line before it, of the same stream */
export function continues(text: string, head: string, last: string): boolean {
  if (text.length > LONGEST) return false
  const first = text.charCodeAt(0)
  // Nearly every line: it begins with what no frame begins with.
  if (GO_FUNCTION.test(text)) return GO_HEAD.test(head)
  if (matchesAt(FRAME, text)) return true
  if (PYTHON_HEAD.test(head) && first !== 32) return /^\s/.test(last) && matchesAt(PYTHON_END, text)
  return text === '' && GO_HEAD.test(head)
}
