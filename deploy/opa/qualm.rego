# Who stands at which level, for your own policies to ask. Qualm's hook `opa` keeps data.qualm.trust (identities) and
# data.qualm.instances (one instance of an identity, by its address) as they are; see docs/hooks.md.
#
# An identity that nothing is known of is trusted, also right after OPA has started and knows nothing yet: nothing here
# is ever undefined. An entry whose lease ended more than a minute ago counts no more, so that what a Qualm has left that
# is gone does not stand for ever.
package qualm.attributes

import rego.v1

# trusted 0, watched 1, throttled 2, restricted 3, quarantined 4, revoked 5
names := ["trusted", "watched", "throttled", "restricted", "quarantined", "revoked"]

# The rank of an identity that calls from an address ("" where it is not known), as far as it acts.
rank(identity, address) := max({0} | {entry.rank | some entry in entries(identity, address); entry.mode == "enforce"})

# The same, with what is only a shadow: for logging what would be denied.
rank_in_shadow(identity, address) := max({0} | {entry.rank | some entry in entries(identity, address)})

level(identity, address) := names[rank(identity, address)]

# Everything that stands about it, with bits, reason and decision. What is not there makes an empty list, and nothing
# undefined; `object.get(data, …)` would be refused as recursive, since rules are data too.
entries(identity, address) := array.concat(
	[entry | entry := data.qualm.trust[identity]; stands(entry)],
	[entry | entry := data.qualm.instances[identity][address]; stands(entry)],
)

stands(entry) if time.now_ns() < time.parse_rfc3339_ns(entry.expires) + (60 * 1000000000)
