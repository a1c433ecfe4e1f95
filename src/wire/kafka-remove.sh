# Kafka, without Qualm: what `qualm wire kafka --namespace @namespace@ --remove` prints. Nothing has been done.
#
# What it does: takes back what `qualm wire kafka --namespace @namespace@` sets up, once Qualm and
# the shippers are stopped.
# What it changes: rights, quotas, Qualm's place in the topics, and the topics it writes. The access logs stay.
# How to undo it: run what `qualm wire kafka --namespace @namespace@` prints again. What was in the deleted topics is gone.
set -eu
: "${BROKERS:?host:port of one or more brokers, separated by commas}"
: "${ADMIN:?a file of client properties}"
ACCESS_LOGS="${ACCESS_LOGS:-@topic@}"
QUALM="User:@prefix@"
SHIPPER="User:@prefix@-shipper"

# 1. The shippers' right to write, then Qualm's.
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --remove --force --allow-principal "$SHIPPER" \
  --operation Write --operation Describe --topic "$ACCESS_LOGS"
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --remove --force --allow-principal "$QUALM" \
  --operation Write --operation Describe --topic @prefix@-dead-letters --topic @prefix@-alerts
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --remove --force --allow-principal "$QUALM" \
  --operation Read --group @prefix@
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --remove --force --allow-principal "$QUALM" \
  --operation Read --operation Describe --topic "$ACCESS_LOGS"
#    What the hooks were given, if they were; first let them take back what they did (`qualm hooks list`).
# kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --remove --force \
#   --allow-principal "$QUALM-hooks" --cluster --operation Describe --operation Alter \
#   --operation DescribeConfigs --operation AlterConfigs
# 2. Quotas.
kafka-configs.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --alter --entity-type users \
  --entity-name "${SHIPPER#User:}" --delete-config producer_byte_rate
kafka-configs.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --alter --entity-type users \
  --entity-name "${QUALM#User:}" --delete-config consumer_byte_rate
# 3. Topics that only Qualm writes.
kafka-topics.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --delete --if-exists --topic @prefix@-dead-letters
kafka-topics.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --delete --if-exists --topic @prefix@-alerts
# 4. By hand, if nobody else reads it: kafka-topics.sh --delete --topic "$ACCESS_LOGS", and the group
#    (kafka-consumer-groups.sh --delete --group @prefix@).
