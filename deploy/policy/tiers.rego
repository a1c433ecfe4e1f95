# An example: critical services are only touched with a person's word, and for half an hour at most; a namespace that is
# being migrated is left alone; who came here by an operator's hand is done at once.
package qualm.response

import rego.v1

default tier := "ordinary"

tier := data.tiers[input.namespace]

wanted contains hook if {
	some hook in input.hooks
	input.rank >= hook.from_rank
	not input.namespace in data.migrating
}

hooks contains {"hook": hook.name} if {
	some hook in wanted
	tier != "critical"
}

hooks contains {"hook": hook.name} if {
	some hook in wanted
	tier == "critical"
	input.by != null
}

hooks contains {"hook": hook.name, "approval": "the service is critical", "approvers": data.owners, "lease_s": 1800} if {
	some hook in wanted
	tier == "critical"
	input.by == null
}
