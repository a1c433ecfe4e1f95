package mesh.authz_test

import rego.v1

import data.mesh.authz

cart := "spiffe://mesh.test/ns/shop/sa/cart"

grants := {cart: [{"action": "read", "resource": "order"}]}

ask(sensitivity, address) := {
	"principal": cart,
	"address": address,
	"action": "read",
	"resource": {"kind": "order", "sensitivity": sensitivity},
}

entry(rank, mode, expires) := {"rank": rank, "mode": mode, "expires": expires, "reason": "it calls whom it never called"}

later := "2200-01-01T00:00:00Z"

test_nothing_is_known_and_nothing_is_undefined if {
	authz.decision == {"allow": true, "level": "trusted", "because": []} with input as ask("secret", "10.0.0.7")
		with data.grants as grants
}

test_who_is_throttled_reads_no_secrets if {
	known := {cart: entry(2, "enforce", later)}
	not authz.allow with input as ask("secret", "10.0.0.7") with data.grants as grants with data.qualm.trust as known
	authz.allow with input as ask("internal", "10.0.0.7") with data.grants as grants with data.qualm.trust as known
}

test_one_instance_and_not_its_sibling if {
	known := {cart: {"10.0.0.7": entry(4, "enforce", later)}}
	not authz.allow with input as ask("public", "10.0.0.7") with data.grants as grants with data.qualm.instances as known
	authz.allow with input as ask("public", "10.0.0.8") with data.grants as grants with data.qualm.instances as known
}

test_a_shadow_denies_nothing if {
	known := {cart: entry(4, "shadow", later)}
	authz.allow with input as ask("secret", "10.0.0.7") with data.grants as grants with data.qualm.trust as known
}

test_what_a_qualm_has_left_that_is_gone_counts_no_more if {
	known := {cart: entry(4, "enforce", "2020-01-01T00:00:00Z")}
	authz.allow with input as ask("secret", "10.0.0.7") with data.grants as grants with data.qualm.trust as known
}
