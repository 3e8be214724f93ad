/** Where a token is needed and none was given. The token goes to the server once, which answers with a cookie that scripts cannot read. */
import { useSignal } from '@preact/signals'
import { logIn } from './session.ts'

export function Login() {
  const busy = useSignal(false)
  const failure = useSignal<string | undefined>(undefined)
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault()
    const form = event.currentTarget as HTMLFormElement
    busy.value = true
    try {
      await logIn(String(new FormData(form).get('token') ?? '').trim())
    } catch (error) {
      failure.value = (error as Error).message
      form.querySelector('input')?.select()
    } finally {
      busy.value = false
    }
  }
  return (
    <main class="login">
      <form class="login-card" onSubmit={(event) => void submit(event as SubmitEvent)}>
        <img src="./mark.svg" alt="" width="48" height="48" />
        <h1>tallyman</h1>
        <p class="muted">These logs are read with a token. Whoever runs this consumer has one for you.</p>
        <label>
          Token
          <input
            name="token"
            type="password"
            autocomplete="current-password"
            required
            autofocus
            aria-invalid={failure.value !== undefined}
            aria-describedby="login-failure"
          />
        </label>
        <p id="login-failure" class="failure" role="alert">
          {failure.value}
        </p>
        <button type="submit" class="primary" disabled={busy.value}>
          {busy.value ? 'Logging in…' : 'Log in'}
        </button>
      </form>
    </main>
  )
}
