/** The help: what keys do. */
import { Dialog } from './dialog.tsx'
import { BINDINGS, keyName } from './keys.ts'

export const KeysHelp = ({ onClose }: { onClose(): void }) => (
  <Dialog title="Keys" className="keys" onClose={onClose}>
    <div class="keys-groups">
      {(['Go', 'Lines', 'Look'] as const).map((group) => (
        <section key={group}>
          <h3>{group}</h3>
          <dl>
            {BINDINGS.filter((binding) => binding.group === group).map(({ command, keys, says }) => (
              <div key={command}>
                <dt>{says}</dt>
                <dd>
                  {keys.map((key) => (
                    <kbd key={key}>{keyName(key)}</kbd>
                  ))}
                </dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </div>
  </Dialog>
)
