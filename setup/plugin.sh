#!/usr/bin/env bash
# Creates or upgrades the plugin NAME from the image tallyman-plugin-rootfs (or PLUGIN_IMAGE), sets its env and enables it:
#
#   plugin.sh NAME [KEY=VALUE…]
#
# Invariants
#  - A plugin that exists is upgraded, never removed: removing it throws away its journal. What containers print
#    meanwhile waits in their pipes.
#  - Which build a plugin was made from stands in its own description. Same build, same env: nothing is touched.
#  - It is enabled with --timeout 0: a plain enable has dockerd cut each `docker logs --follow` after 30 s.
#  - An upgrade that dockerd does not carry out leaves the old plugin enabled.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

[ $# -gt 0 ] || fail "usage: plugin.sh NAME [KEY=VALUE…]"
name=$1
[[ ${name##*/} == *:* ]] || name+=:latest
shift

IMAGE=${PLUGIN_IMAGE:-tallyman-plugin-rootfs:latest}
image=$(docker image inspect -f '{{.Id}}' "$IMAGE" 2>/dev/null) ||
  fail "There is no image $IMAGE, which the plugin is made from." "Build it with: make images"
build=$( (echo "$image" && cat "$REPO/plugin-config.json") | sha256sum | head -c 12)

inspect() { docker plugin inspect -f "$1" "$name" 2>/dev/null; }

work=$(mktemp -d)
registry=
undo=:
finish() {
  ($undo) || true
  [ -z "$registry" ] || "$REPO/setup/registry.sh" stop "$registry"
  rm -rf -- "$work"
}
trap finish EXIT

create() { # NAME
  local container
  mkdir "$work/rootfs"
  container=$(docker create "$IMAGE" none)
  docker export "$container" | tar -x -C "$work/rootfs" --exclude .dockerenv
  docker rm "$container" >/dev/null
  # dockerd refuses a second plugin with the same content, so each has its own name in it.
  echo "$1 $build" >"$work/rootfs/plugin"
  sed "s|\(\"description\": \"tallyman: [^\"]*\)\"|\1 ($1, build $build)\"|" "$REPO/plugin-config.json" >"$work/config.json"
  docker plugin create "$1" "$work" >/dev/null
}

disable() { [ "$(inspect '{{.Enabled}}')" = false ] || docker plugin disable --force "$name" >/dev/null; }

enable() {
  docker plugin enable --timeout 0 "$name" >/dev/null ||
    fail "The plugin $name could not be enabled." \
      "What it printed is in the engine's log (journalctl -u docker, or /var/log/dockerd.log)." \
      "Wrong settings are mended with: docker plugin set $name KEY=VALUE"
}

upgrade() {
  local address reference
  registry=tallyman-registry-$$
  address=$("$REPO/setup/registry.sh" start "$registry" | tail -n 1)
  reference="$address/tallyman:$build"
  create "$reference"
  docker plugin push "$reference" >/dev/null
  docker plugin rm "$reference" >/dev/null
  undo=enable
  disable
  docker plugin upgrade --skip-remote-check --grant-all-permissions "$name" "$reference" >/dev/null </dev/null
  # The docker CLI ends with 0 even where it gave the upgrade up.
  [ "$(inspect '{{.PluginReference}}')" = "$reference" ] ||
    fail "The plugin $name was not upgraded: it still is $(inspect '{{.PluginReference}}')." "Run this again."
}

if ! inspect '{{.Id}}' >/dev/null; then
  create "$name"
  echo "created $name, build $build"
elif ! inspect '{{.Config.Description}}' | grep -q "build $build)"; then
  upgrade
  echo "upgraded $name to build $build"
else
  echo "$name already is build $build"
fi

env=$(inspect '{{range .Settings.Env}}{{println .}}{{end}}')
for setting; do
  if ! grep -qxF -- "$setting" <<<"$env"; then
    undo=enable
    disable
    docker plugin set "$name" "$setting" >/dev/null || fail "The plugin $name does not take $setting: see above."
  fi
done
undo=:
if [ "$(inspect '{{.Enabled}}')" = false ]; then enable; fi
