# shellcheck shell=bash
# Sourced by every script here: fixed names, Node 24 first on the PATH, and how a script fails.
#
# Invariants
#  - Reading this file changes nothing and asks the network nothing.
#  - `fail` says what was wrong and what to do, on stderr, and ends with 1.

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
PATH="$REPO/node_modules/.bin:$PATH"
VAR="$REPO/var"
TALLYMAN_ROOT=$(realpath -m -- "${TALLYMAN_ROOT:-$VAR/logs}")
BASE_IMAGE=debian:bookworm-slim
KAFKA_VERSION=4.4.0
KAFKA_PULLED="apache/kafka:$KAFKA_VERSION"
KAFKA_BUILT="tallyman-kafka:$KAFKA_VERSION"
export REPO PATH VAR TALLYMAN_ROOT BASE_IMAGE KAFKA_VERSION KAFKA_PULLED KAFKA_BUILT

fail() { # WHAT… (one line an argument)
  printf '%s\n' "$@" >&2
  exit 1
}

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Installs Debian packages without a question; waits when another apt holds the lock.
apt_install() {
  { command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; } ||
    fail "Missing: $*." "Install them with your system's package manager, or run this as root on Debian."
  local log="$VAR/apt.log"
  mkdir -p "$VAR"
  {
    apt-get -o DPkg::Lock::Timeout=300 update &&
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
  } </dev/null >"$log" 2>&1 ||
    fail "apt-get could not install: $*. Its last words:" "$(tail -n 5 "$log")" \
      "Make Debian's mirror reachable, or install them yourself; all of its output is in $log."
}

# Pulls IMAGE, where a registry answers: it has 15 s to name the image's layers, and then 15 minutes to send them.
pull_image() { # IMAGE
  local log="$VAR/pull.log" pull i
  mkdir -p "$VAR"
  docker pull "$1" </dev/null >"$log" 2>&1 &
  pull=$!
  for ((i = 0; i < 900; i++)); do
    kill -0 "$pull" 2>/dev/null || break
    [ "$i" -lt 15 ] || [ -s "$log" ] || break
    sleep 1
  done
  kill "$pull" 2>/dev/null || true
  wait "$pull" 2>/dev/null && have_image "$1"
}

# Compose under the fixed project name: Docker's own plugin, or Debian's docker-compose 1.29.
find_compose() {
  if docker compose version >/dev/null 2>&1; then
    COMPOSE=(docker compose)
  else
    command -v docker-compose >/dev/null || apt_install docker-compose
    COMPOSE=(docker-compose)
  fi
  COMPOSE+=(--project-name tallyman --file "$REPO/compose.yaml")
}
