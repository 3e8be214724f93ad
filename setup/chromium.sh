#!/usr/bin/env bash
# Sees to it that there is a Chromium, for the tests of the page and for its pictures. One that CHROMIUM names is taken as it is.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

command -v "${CHROMIUM:-chromium}" >/dev/null || apt_install chromium
