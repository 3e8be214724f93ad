#!/usr/bin/env bash
# Writes Kafka's configuration from KAFKA_* variables, as apache/kafka does, formats an empty data folder and becomes Kafka.
#
# Invariants
#  - KAFKA_FOO_BAR sets foo.bar; `__` stands for `_` and `___` for `-`. Variables for the JVM are left out.
#  - A formatted data folder is never formatted again.
#  - java is PID 1, so SIGTERM reaches it and Kafka stops cleanly.
set -euo pipefail

CONFIG=/opt/kafka/config/server.properties
CLASSPATH='/opt/kafka/libs/*'
JVM=(-Dlog4j2.configurationFile=/opt/kafka/log4j2.yaml)

export KAFKA_NODE_ID=${KAFKA_NODE_ID:-1}
export KAFKA_PROCESS_ROLES=${KAFKA_PROCESS_ROLES:-broker,controller}
export KAFKA_LISTENERS=${KAFKA_LISTENERS:-PLAINTEXT://:9092,CONTROLLER://:9093}
export KAFKA_ADVERTISED_LISTENERS=${KAFKA_ADVERTISED_LISTENERS:-PLAINTEXT://localhost:9092}
export KAFKA_CONTROLLER_LISTENER_NAMES=${KAFKA_CONTROLLER_LISTENER_NAMES:-CONTROLLER}
export KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=${KAFKA_LISTENER_SECURITY_PROTOCOL_MAP:-CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT}
export KAFKA_CONTROLLER_QUORUM_VOTERS=${KAFKA_CONTROLLER_QUORUM_VOTERS:-$KAFKA_NODE_ID@localhost:9093}
export KAFKA_LOG_DIRS=${KAFKA_LOG_DIRS:-/var/lib/kafka/data}

for variable in "${!KAFKA_@}"; do
  case $variable in
  KAFKA_HEAP_OPTS | KAFKA_JVM_PERFORMANCE_OPTS | KAFKA_OPTS | KAFKA_LOG4J_* | KAFKA_JMX_* | KAFKA_VERSION) continue ;;
  esac
  key=${variable#KAFKA_}
  key=${key,,}
  key=${key//___/-}
  key=${key//__/$'\n'}
  key=${key//_/.}
  printf '%s=%s\n' "${key//$'\n'/_}" "${!variable}"
done >"$CONFIG"

if [ ! -e "${KAFKA_LOG_DIRS%%,*}/meta.properties" ]; then
  java -Xmx128m "${JVM[@]}" -cp "$CLASSPATH" kafka.tools.StorageTool format --ignore-formatted \
    --cluster-id "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" --config "$CONFIG"
fi

read -ra options <<<"${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} ${KAFKA_JVM_PERFORMANCE_OPTS:-} ${KAFKA_OPTS:-}"
exec java "${options[@]}" "${JVM[@]}" -cp "$CLASSPATH" kafka.Kafka "$CONFIG"
