#!/usr/bin/env bash
# Sees to it that a Docker engine answers.
#
# Invariants
#  - An engine that answers is used as it is: nothing is installed, configured or restarted.
#  - Only the machine's default engine is ever started here; with DOCKER_HOST set that is someone else's to start.
#  - Of a dead engine's leftovers, only files that name a dead or a foreign process are removed, never data.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

LOG=/var/log/dockerd.log
WAIT=90

answers() { timeout 20 docker info >/dev/null 2>&1; }

# /run lies on a disk in some machines: after a power cut a pid in there can belong to anyone.
forget_if_not() { # PIDFILE COMMAND
  [ -e "$1" ] || return 0
  local pid
  pid=$(tr -dc 0-9 <"$1")
  { [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]; } || rm -f -- "$1"
}

start_directly() {
  forget_if_not /var/run/docker.pid dockerd
  forget_if_not /var/run/docker/containerd/containerd.pid containerd
  # dockerd takes an existing socket file for a running containerd and then waits for it in vain.
  if [ -S /run/containerd/containerd.sock ] && ! pgrep -x containerd >/dev/null; then
    rm -f /run/containerd/containerd.sock /run/containerd/containerd.sock.ttrpc
  fi
  setsid dockerd </dev/null >>"$LOG" 2>&1 &
  dockerd=$!
}

if command -v docker >/dev/null && answers; then exit 0; fi

[ -z "${DOCKER_HOST:-}" ] ||
  fail "No Docker engine answers at DOCKER_HOST=$DOCKER_HOST." "Start it, or unset DOCKER_HOST to use this machine's."
[ "$(id -u)" = 0 ] ||
  fail "No Docker engine answers to user $(id -un)." \
    "Start Docker and let this user into the group 'docker', or run this as root." \
    "Where none is installed: https://docs.docker.com/engine/install/"
if ! command -v docker >/dev/null || ! command -v dockerd >/dev/null; then
  [ -r /etc/debian_version ] ||
    fail "No Docker engine is installed, and only Debian's can be installed from here." \
      "Install Docker Engine 20.10 or newer: https://docs.docker.com/engine/install/"
  echo "installing Debian's docker.io"
  apt_install docker.io ca-certificates iptables procps
fi

dockerd=
if [ -d /run/systemd/system ]; then
  systemctl start docker || fail "systemd could not start docker." "See: journalctl -u docker"
elif ! pgrep -x dockerd >/dev/null; then
  start_directly
fi

for ((i = 0; i < WAIT; i++)); do
  if answers; then exit 0; fi
  if [ -n "$dockerd" ] && ! kill -0 "$dockerd" 2>/dev/null; then
    fail "dockerd ended while starting. Its last words:" "$(tail -n 5 "$LOG")" "All of its output is in $LOG."
  fi
  sleep 1
done
fail "dockerd runs, but did not answer within $WAIT s." "See $LOG, or journalctl -u docker under systemd."
