# @title@, without Qualm: what `qualm wire @command@ --namespace @namespace@ --remove` prints. Nothing has been done.
#
# What it does: says what to take back of `qualm wire @command@ --namespace @namespace@`, in order.
# What it changes: lines that were not yet shipped stay in the nodes' log files, until those are rotated.
# How to undo it: put in again what `qualm wire @command@ --namespace @namespace@` prints.
# With its `db` it goes on where it was.
#
# @intro@
#   1. the input, the two filters and the output with `qualm.*` from Fluent Bit's configuration; restart it
#   2. /var/lib/fluent-bit/@prefix@.db on every node, unless it is to go on later
#   3. the rights of its service account, and of User:@prefix@-shipper (`qualm wire kafka --remove`):
kubectl delete clusterrole @prefix@-shipper --ignore-not-found
