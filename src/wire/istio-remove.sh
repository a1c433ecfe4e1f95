# Istio, without Qualm: what `qualm wire istio --namespace @namespace@ --remove` prints. Nothing has been done.
#
# What it does: takes back what `qualm wire istio --namespace @namespace@` prints, from the callers' side inwards, so that
# no proxy is ever left with a rule, a provider or a cluster that is gone. Qualm itself and what it learned stay.
# What it changes: denials end with the first command; the log is again what meshConfig says.
# How to undo it: apply what `qualm wire istio --namespace @namespace@` prints again.

# 1. No proxy asks Qualm for rules any more. Denials that stand end at once.
kubectl delete envoyfilter @prefix@-rbac --namespace istio-system --ignore-not-found
# 2. Fingerprints, if you took them in.
kubectl delete envoyfilter @prefix@-fingerprints --namespace istio-system --ignore-not-found
# 3. The log, before its providers: a Telemetry that names a provider which is gone logs nothing.
kubectl delete telemetry.telemetry.istio.io @prefix@ --namespace istio-system --ignore-not-found
# 4. By hand: the providers @prefix@-log, @prefix@-http and @prefix@-tcp
#    from meshConfig.extensionProviders in istiod's Helm values, then `helm upgrade`;
#    and "@namespace@/@host@" from every Sidecar that you added it to.
# 5. The way to Qualm, once no proxy uses it.
kubectl delete destinationrule qualm --namespace @namespace@ --ignore-not-found
# 6. The sidecar of Qualm's pod, and with it its certificate: give [listen] another before, or take the section out.
#    What was applied by this manager and is not in its word any more goes; the rest of the StatefulSet stays.
kubectl apply --server-side --field-manager=@prefix@-wire --filename=- <<'YAML'
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: qualm
  namespace: @namespace@
YAML
# 7. The roles, and their bindings if you made any.
kubectl delete role @prefix@-wiring --namespace istio-system --ignore-not-found
kubectl delete role @prefix@-wiring --namespace @namespace@ --ignore-not-found
