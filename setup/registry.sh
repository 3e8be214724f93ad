#!/usr/bin/env bash
# A plain image registry on a free port of 127.0.0.1, for plugins: they are upgraded and installed from registries only.
#
#   registry.sh start [CONTAINER]   starts it where it does not run, prints its host:port as the last line
#   registry.sh stop [CONTAINER]    removes it with all that was pushed
#
# Invariant
#  - registry:2 is used where it is there or can be pulled. Else the same program comes from Debian's docker-registry.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

BUILT=tallyman-registry:2
name=${2:-tallyman-registry}

find_image() {
  for image in registry:2 "$BUILT"; do
    if have_image "$image"; then return; fi
  done
  image=registry:2
  if pull_image "$image"; then return; fi
  image=$BUILT
  local log="$VAR/registry-image.log"
  docker build --tag "$image" - <<'DOCKERFILE' >"$log" 2>&1 ||
FROM debian:bookworm-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends docker-registry \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
# Debian's own configuration asks for a password.
RUN printf '{version: 0.1, storage: {filesystem: {rootdirectory: /var/lib/registry}}, http: {addr: ":5000"}}\\n' >/etc/docker/registry/config.yml
VOLUME /var/lib/registry
ENTRYPOINT ["docker-registry"]
CMD ["serve", "/etc/docker/registry/config.yml"]
DOCKERFILE
    fail "$image could not be built. The build's last words:" "$(tail -n 5 "$log")" "All of its output is in $log."
}

case ${1:-} in
start)
  if [ "$(docker inspect -f '{{.State.Running}}' "$name" 2>/dev/null)" != true ]; then
    docker rm -fv "$name" >/dev/null 2>&1 || true
    find_image
    docker run -d --name "$name" --log-driver json-file --publish 127.0.0.1::5000 "$image" >/dev/null
  fi
  address=$(docker port "$name" 5000/tcp)
  for ((i = 0; i < 100; i++)); do
    if node -e 'fetch(process.argv[1]).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))' "http://$address/v2/"; then
      echo "$address"
      exit 0
    fi
    sleep 0.1
  done
  fail "The registry in container $name does not answer at $address." "See: docker logs $name"
  ;;
stop) docker rm -fv "$name" >/dev/null 2>&1 || true ;;
*) fail "usage: registry.sh start|stop [CONTAINER]" ;;
esac
