# Envoy, without Qualm: what `qualm wire envoy --namespace @namespace@ --remove` prints. Nothing has been done.
#
# What it does: says what to take out of a bootstrap that has what `qualm wire envoy --namespace @namespace@` prints.
# What it changes: denials end when the listeners are replaced or Envoy restarts; established connections drain.
# How to undo it: put in again what `qualm wire envoy --namespace @namespace@` prints.
#
# In this order, as Envoy refuses a bootstrap in which something names what is gone:
#   1. the filters `qualm-http-rbac`, `qualm-http-ratelimit` and `qualm-net-rbac`
#   2. the access logs `envoy.access_loggers.http_grpc` and `envoy.access_loggers.tcp_grpc` with log_name qualm_http and
#      qualm_tcp
#   3. the cluster `qualm`
#   4. if nobody else reads them: the keys of the JSON log that you did not have, and enable_ja3_fingerprinting and
#      enable_ja4_fingerprinting of the TLS inspectors
#   5. this Envoy's SPIFFE ID from `reporters` and `enforcement_points` in Qualm's [listen]
# Then:
envoy --mode validate --config-path envoy.yaml
