# An example: attributes of the caller, of what it asks for, and how far it is trusted now.
package mesh.authz

import rego.v1

import data.qualm.attributes

default allow := false

# What the caller's service may do at all.
allow if {
	some grant in data.grants[input.principal]
	grant.action == input.action
	grant.resource == input.resource.kind
	attributes.rank(input.principal, input.address) <= most[input.resource.sensitivity]
}

# Who is quarantined reads nothing; who is throttled reads what is internal, and nothing that is secret.
most := {"public": 3, "internal": 2, "secret": 1}

# What a decision log is to say.
decision := {
	"allow": allow,
	"level": attributes.level(input.principal, input.address),
	"because": [entry.reason | some entry in attributes.entries(input.principal, input.address)],
}
