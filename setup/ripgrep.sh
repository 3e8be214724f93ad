#!/usr/bin/env bash
# Sees to it that ripgrep and zstd are on this machine: a consumer that runs from its source searches with them, as in its image.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

missing=()
command -v rg >/dev/null || missing+=(ripgrep)
command -v zstd >/dev/null || missing+=(zstd)
[ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
