# Vector, without Qualm: what `qualm wire vector --namespace @namespace@ --remove` prints. Nothing has been done.
#
# What it does: says what to take back of `qualm wire vector --namespace @namespace@`, in order.
# What it changes: lines that were not yet shipped stay in the nodes' log files, until those are rotated.
# How to undo it: put in again what `qualm wire vector --namespace @namespace@` prints.
#
# In this order:
#   1. from Vector's configuration [sinks.@id@_kafka] with its tables, [transforms.@id@_origin],
#      [transforms.@id@_access], [sources.@id@_logs]; `vector validate` then accepts it
#   2. the buffer and the positions under its data_dir: `@id@_kafka`, `@id@_logs`
#   3. the rights of its service account, and of User:@prefix@-shipper (`qualm wire kafka --remove`):
kubectl delete clusterrole @prefix@-shipper --ignore-not-found
