//! The RBAC filter for connections: a list of rules. A matcher tree would be quicker for thousands, but answers "no" to
//! whoever comes without TLS, and the words that tell these apart are not allowed in this filter.

use std::{collections::HashMap, net::IpAddr};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::CidrRange,
            rbac::v3::{Permission, Policy, Principal, Rbac as Rules, permission, principal, rbac::Action},
        },
        extensions::filters::network::rbac::v3::Rbac,
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::UInt32Value,
};

use super::{Policies, SHADOW_PREFIX, STAT_PREFIX, Slot, View};

pub(super) fn filter(policies: &Policies, view: &View) -> Rbac {
    // A connection has no operations: whoever is known at a destination may open one.
    let denied = rules(policies, &|slot| slot.denial(view).filter(|denial| denial.but.is_none()).map(|of| of.policy));
    Rbac {
        rules: denied,
        shadow_rules: rules(policies, &|slot| mark(slot, view)),
        shadow_rules_stat_prefix: STAT_PREFIX.to_owned(),
        stat_prefix: STAT_PREFIX.to_owned(),
        ..Rbac::default()
    }
}

/// Connections have no rate that could be limited by caller: they are marked.
fn mark(slot: &Slot, view: &View) -> Option<String> {
    let throttled = slot.throttle(view).map(|leaf| format!("{SHADOW_PREFIX}{}", leaf.decision));
    throttled.or_else(|| slot.mark(view))
}

fn rules(policies: &Policies, answer: &dyn Fn(&Slot) -> Option<String>) -> Option<Rules> {
    let mut rules: HashMap<String, Policy> = HashMap::new();
    let mut add = |policy: String, principal: Principal| {
        let any = Permission { rule: Some(permission::Rule::Any(true)) };
        let policy = rules.entry(policy).or_insert_with(|| Policy { permissions: vec![any], ..Policy::default() });
        policy.principals.push(principal);
    };
    for (principal, branch) in &policies.branches {
        let whole = answer(&branch.whole);
        for (address, slot) in &branch.addresses {
            if let Some(policy) = answer(&slot.within(&branch.whole)).filter(|policy| Some(policy) != whole.as_ref()) {
                add(policy, all_of([authenticated(principal), at(*address)]));
            }
        }
        whole.into_iter().for_each(|policy| add(policy, authenticated(principal)));
    }
    (!rules.is_empty()).then(|| Rules { action: Action::Deny.into(), policies: rules, ..Rules::default() })
}

fn authenticated(name: &str) -> Principal {
    let name = StringMatcher { match_pattern: Some(MatchPattern::Exact(name.to_owned())), ..StringMatcher::default() };
    of(principal::Identifier::Authenticated(principal::Authenticated { principal_name: Some(name) }))
}

fn at(address: IpAddr) -> Principal {
    let prefix_len = Some(UInt32Value { value: if address.is_ipv4() { 32 } else { 128 } });
    of(principal::Identifier::DirectRemoteIp(CidrRange { address_prefix: address.to_string(), prefix_len }))
}

fn all_of(principals: [Principal; 2]) -> Principal {
    of(principal::Identifier::AndIds(principal::Set { ids: Vec::from(principals) }))
}

fn of(identifier: principal::Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}
