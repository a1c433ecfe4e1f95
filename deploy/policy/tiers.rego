# An example: critical services are only touched with a person's word, and for half an hour at most, unless their
# credential does not add up or their denial does not hold; a namespace that is being migrated is left alone; who came here by an operator's hand is
# done at once; what rests on claims alone triggers nothing.
package qualm.response

import rego.v1

default tier := "ordinary"

tier := data.tiers[input.namespace]

# A credential that was revoked, has expired or was never issued is in the wrong hands, whosever it is.
stolen if {
	some sign in input.evidence
	sign.question in {"after-revocation", "after-expiry", "before-issuance", "never-issued"}
}

waits if {
	tier == "critical"
	input.by == null
	not stolen
	not input.leaking
}

wanted contains hook.name if {
	some hook in input.hooks
	input.rank >= hook.from_rank
	due(hook)
	not input.namespace in data.migrating
	not input.provenance == "claimed"
}

due(hook) if hook.when == "always"

due(_) if input.leaking

# Where a denial does not hold, nobody is waited for.
hooks contains {"hook": name} if {
	some name in wanted
	not waits
}

hooks contains {"hook": name, "approval": "the service is critical", "approvers": data.owners, "lease_s": 1800} if {
	some name in wanted
	waits
}
