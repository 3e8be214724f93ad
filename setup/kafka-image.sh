#!/usr/bin/env bash
# Sees to it that an image of Kafka exists, and prints its name as the last line.
#
# Invariants
#  - KAFKA_IMAGE names any other image; it is then pulled and never built.
#  - apache/kafka is used where it is there or can be pulled. Else tallyman-kafka is built from pinned, verified jars.
set -euo pipefail
# shellcheck source=setup/env.sh
. "$(dirname -- "$0")/env.sh"

for image in ${KAFKA_IMAGE:-"$KAFKA_PULLED" "$KAFKA_BUILT"}; do
  if have_image "$image"; then echo "$image" && exit 0; fi
done
echo "pulling ${KAFKA_IMAGE:-$KAFKA_PULLED}" >&2
if pull_image "${KAFKA_IMAGE:-$KAFKA_PULLED}"; then echo "${KAFKA_IMAGE:-$KAFKA_PULLED}" && exit 0; fi
[ -z "${KAFKA_IMAGE:-}" ] ||
  fail "KAFKA_IMAGE=$KAFKA_IMAGE could not be pulled: $(tail -n 1 "$VAR/pull.log")" "Correct the name, or unset it."

echo "no registry gives $KAFKA_PULLED: building $KAFKA_BUILT from Maven Central and Debian" >&2
"$REPO/setup/base-image.sh" >&2
node "$REPO/setup/jars.ts"
log="$VAR/kafka-image.log"
tar -c -C "$REPO/setup/kafka" Dockerfile entrypoint.sh log4j2.yaml -C "$VAR/kafka" jars |
  docker build --tag "$KAFKA_BUILT" - >"$log" 2>&1 ||
  fail "$KAFKA_BUILT could not be built. The build's last words:" "$(tail -n 5 "$log")" "All of its output is in $log."
echo "$KAFKA_BUILT"
