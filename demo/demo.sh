#!/usr/bin/env bash
# Sets everything up and logs four sample containers through it: container → plugin → Kafka → consumer → file.
#
# Invariants
#  - Run again, it changes nothing that is already as it should be; running samples run on.
#  - Each step shows itself and its time. One that fails shows its last words and what to do, and nothing goes on.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/../setup/env.sh"

STEPS=9
LOG="$VAR/demo.log"
SERVICES="$REPO/demo/services"
READY_SECONDS=60
mkdir -p "$VAR" "$TALLYMAN_ROOT"
: >"$LOG"

number=0
step() { # TITLE COMMAND…
  local title=$1 start=$SECONDS from job
  shift
  number=$((number + 1))
  printf '[%d/%d] %-28s … ' "$number" "$STEPS" "$title"
  echo "== $title" >>"$LOG"
  from=$(wc -l <"$LOG")
  "$@" </dev/null >>"$LOG" 2>&1 &
  job=$!
  if wait "$job"; then
    echo "ok ($((SECONDS - start)) s)"
  else
    echo "failed after $((SECONDS - start)) s"
    tail -n "+$((from + 1))" "$LOG" | tail -n 12 | sed 's/^/    /' >&2
    fail "" "When that is mended, run make demo again: it goes on from here. All output is in $LOG."
  fi
}

engine() {
  "$REPO/setup/engine.sh"
  find_compose
}

# On the host's network another program's port answers just as well, and would be taken for ours.
need_ports() { # CONTAINER PORT…
  local port
  [ "$(docker inspect -f '{{.State.Running}}' "$1" 2>/dev/null)" != true ] || return 0
  for port in "${@:2}"; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      fail "Another program listens on port $port of 127.0.0.1, which $1 needs." "Stop it; it is found with: ss -ltnp 'sport = :$port'"
    fi
  done
}

# Waits for URL to answer well, as long as the container runs.
await() { # CONTAINER URL
  local i
  for ((i = 0; i < READY_SECONDS * 2; i++)); do
    if node -e 'fetch(process.argv[1]).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))' "$2"; then return; fi
    sleep 0.5
  done
  docker logs --tail 10 "$1"
  fail "The container $1 was not ready at $2 within $READY_SECONDS s." "See: docker logs $1"
}

kafka() {
  local i
  need_ports tallyman-kafka 9092 9093
  find_compose
  "${COMPOSE[@]}" up -d kafka
  for ((i = 0; i < READY_SECONDS * 2; i++)); do
    if [ "$(docker inspect -f '{{.State.Health.Status}}' tallyman-kafka)" = healthy ]; then return; fi
    sleep 0.5
  done
  docker logs --tail 10 tallyman-kafka
  fail "Kafka was not healthy within $READY_SECONDS s." \
    "See: docker logs tallyman-kafka"
}

consumer() {
  need_ports tallyman-consumer 4680
  find_compose
  "${COMPOSE[@]}" up -d consumer
  await tallyman-consumer http://127.0.0.1:4680/readyz
}

sample() { # NAME SCRIPT [docker run's options…]
  local container="tallyman-demo-$1" script="$SERVICES/$2"
  shift 2
  if docker inspect "$container" >/dev/null 2>&1; then
    docker start "$container"
  else
    docker run -d --name "$container" --network none --memory 64m --log-driver tallyman "$@" "$BASE_IMAGE" \
      perl -e "$(cat "$script")"
  fi
}

# One says its names in log-opts, two in labels; the last says nothing: its names are the image's and the container's.
samples() {
  touch "$VAR/demo.started"
  sample web web.pl --log-opt service=shop --log-opt module=web
  sample migration migration.pl --log-opt service=shop --log-opt module=migration
  sample worker worker.pl --label tallyman.service=billing --label tallyman.module=worker
  sample sensor sensor.pl
}

lines_arrive() {
  local i folder missing
  for ((i = 0; i < READY_SECONDS * 2; i++)); do
    missing=
    for folder in shop/web shop/migration billing/worker debian/tallyman-demo-sensor; do
      [ -n "$(find "$TALLYMAN_ROOT/$folder" -type f -newer "$VAR/demo.started" -size +0 2>/dev/null | head -n 1)" ] || missing+=" $folder"
    done
    [ -n "$missing" ] || return 0
    sleep 0.5
  done
  docker logs --tail 5 tallyman-consumer
  fail "No line came into$missing below $TALLYMAN_ROOT within $READY_SECONDS s." \
    "See: docker logs tallyman-consumer, docker logs tallyman-kafka, and the engine's log for what the plugin says."
}

step 'Docker engine' engine
step 'base image' "$REPO/setup/base-image.sh"
step 'Kafka image' "$REPO/setup/kafka-image.sh"
KAFKA_IMAGE=$(tail -n 1 "$LOG")
export KAFKA_IMAGE
step 'our images' "$REPO/setup/images.sh"
step "Kafka ($KAFKA_IMAGE)" kafka
step 'consumer' consumer
step 'plugin tallyman:latest' "$REPO/setup/plugin.sh" tallyman:latest KAFKA_BROKERS=127.0.0.1:9092
step 'sample containers' samples
step 'lines arrive' lines_arrive

cd -- "$TALLYMAN_ROOT"
echo
echo "$TALLYMAN_ROOT"
find . -path ./.tallyman -prune -o -type f -name '*.log*' -printf '%10s bytes  %P\n' | sort -k 3 | head -n 40
for folder in shop/web shop/migration billing/worker; do
  file=$(find "$folder" -name '*.log' | sort | tail -n 1)
  echo
  echo "── $file"
  tail -n 4 "$file" | cut -c 1-150
done
cat <<TEXT

Read it all in a browser:     http://127.0.0.1:4680/
or in a terminal:             docker exec -it tallyman-consumer tallyman tail 'shop/*'
                              docker exec tallyman-consumer tallyman grep -i error '*/worker'
                              tail -F $TALLYMAN_ROOT/shop/web/*.log
Did we lose any?              docker exec tallyman-consumer tallyman verify
Log a container of your own:  docker run --log-driver tallyman --log-opt service=NAME --log-opt module=NAME IMAGE
Stop all of this:             make down     (the files stay)
TEXT
