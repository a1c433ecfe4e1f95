# Kafka, wired to Qualm: what `qualm wire kafka --namespace @namespace@` prints. Nothing has been applied.
#
# What it is: the topics, the rights and the quotas that Qualm and the shippers need, as commands of Kafka's own tools.
# They can be run again: what is there stays, or is set to the same.
#
# What it changes: three new topics, rights of two principals, quotas of the same. Where the access logs have a topic
# already, put its name below: its settings are then only compared and changed, its records stay.
#
# How to undo it: `qualm wire kafka --namespace @namespace@ --remove` prints the commands, in order.
#
# To be set: who Qualm and the shippers are for Kafka (by their client certificates: see ssl.principal.mapping.rules of
# your brokers), and what administrates it.
set -eu
: "${BROKERS:?host:port of one or more brokers, separated by commas}"
# A file of client properties for an administrator; an empty file where brokers ask for nothing.
: "${ADMIN:?a file of client properties}"
REPLICAS="${REPLICAS:-3}"
PARTITIONS="${PARTITIONS:-12}"
ACCESS_LOGS="${ACCESS_LOGS:-@topic@}"
QUALM="User:@prefix@"
SHIPPER="User:@prefix@-shipper"

# 1. The access logs.
#    Partitions: one core of Qualm reads some hundred thousand lines a second, so these are for the brokers' sake.
#    Retention: what there is at Qualm's first start is learned from (`since` in [history], 14 days): the longer, the
#    sooner every level is armed. 14 days of 1,000 calls a second are about 250 GB compressed: `retention.bytes` counts
#    a partition.
#    Compression: as the shippers did it (zstd), so that brokers need not do it again.
#    Time: the broker's, so that a node with a wrong clock does not move what is kept; the lines have their own.
kafka-topics.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --create --if-not-exists \
  --topic "$ACCESS_LOGS" --partitions "$PARTITIONS" --replication-factor "$REPLICAS"
kafka-configs.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --alter --entity-type topics \
  --entity-name "$ACCESS_LOGS" --add-config "retention.ms=1209600000,retention.bytes=-1,cleanup.policy=delete,compression.type=producer,message.timestamp.type=LogAppendTime,max.message.bytes=1048588,min.insync.replicas=$((REPLICAS > 1 ? 2 : 1))"

# 2. Samples of records that Qualm cannot read (`dead_letter_topic = "@prefix@-dead-letters"`), and its alerts
#    ([alerts.kafka], `topic = "@prefix@-alerts"`). Samples are parts of the lines:
#    they stay as long as it takes to look at them.
kafka-topics.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --create --if-not-exists \
  --topic @prefix@-dead-letters --partitions 1 --replication-factor "$REPLICAS" --config retention.ms=604800000
kafka-topics.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --create --if-not-exists \
  --topic @prefix@-alerts --partitions 1 --replication-factor "$REPLICAS" --config retention.ms=7776000000

# 3. Rights. Whoever writes to the access logs can have identities denied, so it is the shippers alone.
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --add --allow-principal "$SHIPPER" \
  --operation Write --operation Describe --topic "$ACCESS_LOGS"
#    Qualm reads them in its own group (`group = "@prefix@"`), and writes to the two others. It creates no topics.
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --add --allow-principal "$QUALM" \
  --operation Read --operation Describe --topic "$ACCESS_LOGS"
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --add --allow-principal "$QUALM" \
  --operation Read --group @prefix@
kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --add --allow-principal "$QUALM" \
  --operation Write --operation Describe --topic @prefix@-dead-letters --topic @prefix@-alerts

# 4. Quotas, in bytes a second and broker: the history that is read at the first start must not crowd out others, and a
#    shipper gone wild must not fill the disks.
kafka-configs.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --alter --entity-type users \
  --entity-name "${QUALM#User:}" --add-config consumer_byte_rate=104857600
kafka-configs.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --alter --entity-type users \
  --entity-name "${SHIPPER#User:}" --add-config producer_byte_rate=52428800

# 5. Only where [hook.kafka] is to deny or to slow down (docs/hooks.md). Whoever may alter rules may give itself any
#    right: a principal of its own, whose key is kept as an administrator's. `Alter` is for `act = "deny"`, the
#    configurations are for `act = "quota"`.
# kafka-acls.sh --bootstrap-server "$BROKERS" --command-config "$ADMIN" --add --allow-principal "$QUALM-hooks" \
#   --cluster --operation Describe --operation Alter --operation DescribeConfigs --operation AlterConfigs
