#!/usr/bin/env bash
# Bundles the programs and builds their images, tallyman-plugin-rootfs and tallyman-consumer: images.sh [plugin-rootfs] [consumer]
#
# Invariant
#  - Needs an engine and the base image. What has not changed is taken from the builder's cache.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

[ $# -gt 0 ] || set -- plugin-rootfs consumer
for target; do
  case $target in
  plugin-rootfs) node "$REPO/setup/bundle.ts" driver ;;
  consumer) node "$REPO/setup/bundle.ts" consumer cli web ;;
  *) fail "images.sh: there is no image '$target'." "The images are: plugin-rootfs consumer" ;;
  esac
  log="$VAR/$target-image.log"
  mkdir -p "$VAR"
  old=$(docker image inspect -f '{{.Id}}' "tallyman-$target" 2>/dev/null || true)
  docker build --target "$target" --tag "tallyman-$target" "$REPO" </dev/null >"$log" 2>&1 ||
    fail "The image tallyman-$target could not be built. The build's last words:" "$(tail -n 5 "$log")" \
      "All of its output is in $log."
  # An image that this one replaces would only take up room; one that a container still uses stays.
  if [ -n "$old" ] && [ "$(docker image inspect -f '{{.Id}}' "tallyman-$target")" != "$old" ]; then
    docker image rm "$old" >/dev/null 2>&1 || true
  fi
done
