# Pods, without Qualm: what `qualm wire kubernetes --namespace @namespace@ --remove` prints. Nothing has been done.
#
# What it does: takes back what `qualm wire kubernetes --namespace @namespace@` prints.
# What it changes: Qualm's pod is started anew without the token; what was known of pods is forgotten as they end.
# How to undo it: apply what `qualm wire kubernetes --namespace @namespace@` prints again.

# 1. By hand: the [[kubernetes]] section out of Qualm's configuration, or it asks in vain.
# 2. The token. What was applied by this manager and is not in its word any more goes; the rest stays.
kubectl apply --server-side --field-manager=@prefix@-pods --filename=- <<'YAML'
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: qualm
  namespace: @namespace@
YAML
kubectl delete networkpolicy @prefix@-pods --namespace @namespace@ --ignore-not-found
# 3. The role.
kubectl delete clusterrolebinding @prefix@-pods --ignore-not-found
kubectl delete clusterrole @prefix@-pods --ignore-not-found
