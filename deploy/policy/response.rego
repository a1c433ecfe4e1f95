# The response policy that holds where [response] names none: each hook acts from the level on that its configuration
# names (`from`). Copy it and change it; `qualm policy test` runs your cases against it.
#
# `input` is one order, and the hooks that are configured:
#   identity, principal, trust_domain, namespace, service, cluster, workload, instance (null where it is not known, or
#   every instance is meant), level and rank (watched 1, throttled 2, restricted 3, quarantined 4), acts (false: a shadow),
#   evidence_bits, evidence (question and bits of each that carried it, strongest first),
#   provenance ("verified", "claimed": by records that may lead to watched only, "operator"; null: not known any more),
#   by (the operator behind it, or null), reasons (in words), instances, co_owners,
#   leaking (a proxy has served a call that it had acknowledged to deny; stays true until the decision ends),
#   hooks: name, kind, from, from_rank, when ("always" or "leaking"), reversible, narrow (can act on one instance alone),
#   latency_ms, in_shadow.
# `data` is what the file `data` of [response] holds: tiers, owners, labels, whatever you decide by.
#
# `hooks` says which of them act. With `approval` (why) it waits for `qualm approve`, of `approvers` (SPIFFE IDs) alone
# where they are named; with `lease_s` it is taken back after so many seconds even while the order stands. What Qualm
# itself asks approval for still needs it, whatever is said here, and what is kept for leaks acts on nothing else. It is asked whenever what stands changes.
package qualm.response

import rego.v1

hooks contains {"hook": hook.name} if {
	some hook in input.hooks
	input.rank >= hook.from_rank
	due(hook)
}

due(hook) if hook.when == "always"

# What is kept for the case that a denial does not hold.
due(_) if input.leaking
