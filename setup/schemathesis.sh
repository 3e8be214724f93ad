#!/usr/bin/env bash
# Sees to it that Schemathesis is there, in a virtual environment of its own below var/, and prints its path as the last line.
# setup/schemathesis.txt pins it with all that it needs: `pip freeze` writes that file.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

pins="$REPO/setup/schemathesis.txt"
venv="$VAR/schemathesis"
if ! cmp -s "$pins" "$venv/pins.txt"; then
  rm -rf "$venv"
  mkdir -p "$VAR"
  python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv >&2
  log="$VAR/schemathesis.log"
  { python3 -m venv "$venv" && "$venv/bin/pip" install --no-input --disable-pip-version-check -r "$pins"; } >"$log" 2>&1 ||
    fail "Schemathesis could not be installed from PyPI. The last words:" "$(tail -n 5 "$log")" "All of the output is in $log."
  cp "$pins" "$venv/pins.txt"
fi
echo "$venv/bin/schemathesis"
