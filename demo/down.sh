#!/usr/bin/env bash
# Removes what `make demo` started: the sample containers, the consumer, Kafka with its data, the plugin.
#
# Invariants
#  - Nothing else is removed: not the engine, images, log files or anyone's containers.
#  - While other containers use the plugin, all of it stays as it is but for the samples: theirs would stop working.
#  - The plugin's journal goes with it, so it gets time to be shipped first; what is left is said.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/../setup/env.sh"

PLUGIN=tallyman:latest
DRAIN_SECONDS=${DRAIN_SECONDS:-60} # 0: not at all

if ! docker info >/dev/null 2>&1; then
  echo "No Docker engine answers, so nothing runs here." \
    "What a stopped engine still holds is removed by: setup/engine.sh, then make down"
  exit 0
fi

users() { # who is left that logs through the plugin, a line each
  docker ps -aq | xargs -r docker inspect -f '{{.HostConfig.LogConfig.Type}} {{.Name}} {{.State.Status}}' |
    awk '$1 == "tallyman" || $1 == "tallyman:latest" { sub("/", "", $2); print "  " $2 " (" $3 ")" }'
}

echo "removing the sample containers"
docker rm -f tallyman-demo-{web,migration,worker,sensor} >/dev/null 2>&1 || true

others=$(users)
[ -z "$others" ] ||
  fail "Other containers log through the plugin $PLUGIN, so it stays, with Kafka and the consumer:" "$others" \
    "Remove them (docker rm -f NAME), or start them anew with another --log-driver, then run this again."

id=$(docker plugin inspect -f '{{.Id}}' "$PLUGIN" 2>/dev/null || true)
if [ "$DRAIN_SECONDS" != 0 ] && { [ -n "$id" ] || docker inspect tallyman-kafka >/dev/null 2>&1; }; then
  journal=none mount=()
  if [ "$(docker plugin inspect -f '{{.Enabled}}' "$PLUGIN" 2>/dev/null || true)" = true ]; then
    journal=/journal
    mount=(--volume "$(docker info -f '{{.DockerRootDir}}')/plugins/$id/propagated-mount:/journal:ro")
  fi
  echo "waiting up to $DRAIN_SECONDS s until every line is in its file"
  docker run --rm --network host --log-driver none --volume "$REPO:/tallyman:ro" "${mount[@]}" "$BASE_IMAGE" \
    /tallyman/node_modules/.bin/node --disable-warning=TimeoutNegativeWarning \
    /tallyman/demo/drain.ts "$journal" "$DRAIN_SECONDS" ||
    fail "It could not be told whether all lines are in files: see above." "To remove everything all the same: DRAIN_SECONDS=0 make down"
fi

echo "removing the consumer and Kafka"
find_compose
"${COMPOSE[@]}" down --volumes 2>&1 | sed 's/^/  /'
if [ -n "$id" ]; then
  echo "removing the plugin $PLUGIN"
  docker plugin disable --force "$PLUGIN" >/dev/null 2>&1 || true
  docker plugin rm --force "$PLUGIN" >/dev/null
fi
echo "The log files stay: $TALLYMAN_ROOT"
