/** The page that a consumer serves: reads all logs as if they were one machine's. */
import '@fontsource-variable/inter/index.css'
import '@fontsource-variable/jetbrains-mono/index.css'
import './theme.css'
import './page.css'
import { render } from 'preact'
import { App } from './app.tsx'
import { watchCatalog } from './catalog.ts'
import { applyPreferences } from './preferences.ts'
import { openSession } from './session.ts'

applyPreferences(document.documentElement)
watchCatalog()
void openSession()
render(<App />, document.getElementById('page')!)
