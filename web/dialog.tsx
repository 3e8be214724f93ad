/** A dialog over the page: the browser's own, which keeps the focus inside and gives it back. */
import { X } from 'lucide'
import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { Icon } from './icon.tsx'

type Props = { title: string; className?: string; onClose(): void; children: ComponentChildren; bare?: boolean }

export function Dialog({ title, className = '', onClose, children, bare = false }: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    dialog.current?.showModal()
  }, [])
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the browser closes it with Escape by itself
    <dialog
      ref={dialog}
      class={`dialog ${className}`}
      aria-label={title}
      onClose={onClose}
      onClick={(event) => {
        if (event.target === dialog.current) dialog.current?.close()
      }}
    >
      <div class="dialog-body">
        {!bare && (
          <header class="dialog-head">
            <h2>{title}</h2>
            <button type="button" class="ghost square" aria-label="Close" onClick={() => dialog.current?.close()}>
              <Icon of={X} />
            </button>
          </header>
        )}
        {children}
      </div>
    </dialog>
  )
}
