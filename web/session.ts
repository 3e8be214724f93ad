/** Who looks: whether the consumer wants a token, and whether it has one. */
import { signal } from '@preact/signals'
import type { SessionAnswer } from '../consumer/api-schema.ts'
import { apiAt } from './api.ts'

export const session = signal<SessionAnswer | undefined>(undefined)
/** Why it could not be asked. */
export const unreachable = signal<string | undefined>(undefined)

export const api = apiAt(new URL('.', location.href).pathname, () => {
  if (session.value) session.value = { required: true, services: [] }
})

/** Whether the page may be shown: else the login is. */
export const admitted = (of: SessionAnswer): boolean => !of.required || of.name !== undefined

/** Asks until it is answered. */
export async function openSession(): Promise<void> {
  for (;;) {
    try {
      session.value = await api.get<SessionAnswer>('/session')
      unreachable.value = undefined
      return
    } catch (error) {
      unreachable.value = (error as Error).message
      await new Promise((resolve) => setTimeout(resolve, 2_000))
    }
  }
}

export async function logIn(token: string): Promise<void> {
  session.value = await api.login(token)
}
export async function logOut(): Promise<void> {
  await api.logout()
  session.value = { required: true, services: [] }
}
