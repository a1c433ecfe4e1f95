//! The RBAC filter for requests: a matcher tree keyed by the peer's URI SAN and, beneath it, where single instances are
//! meant, by the direct source address. What no branch names is allowed, at every depth.

use envoy_types::pb::{
    envoy::{
        config::rbac::v3::rbac::Action,
        extensions::{
            filters::http::rbac::v3::Rbac,
            matching::common_inputs::{network::v3::DirectSourceIpInput, ssl::v3::UriSanInput},
        },
    },
    xds::r#type::matcher::v3::{Matcher, matcher::OnMatch},
};

use super::{
    Branch, Denial, Policies, STAT_PREFIX, Slot, THROTTLE_PREFIX, View,
    matcher::{action, allow, exact, header, input, nested, with_certificate},
    paths,
};
use crate::table::Operations;

pub(super) fn filter(policies: &Policies, view: &View) -> Rbac {
    let denied = tree(policies, &|slot| slot.denial(view).map(|of| denial(&of)));
    let marked = tree(policies, &|slot| marked(slot, view));
    Rbac {
        matcher: denied.map(|tree| with_certificate(but_reachable(policies, tree), allow())),
        shadow_matcher: marked.map(|tree| with_certificate(but_reachable(policies, tree), allow())),
        shadow_rules_stat_prefix: STAT_PREFIX.to_owned(),
        ..Rbac::default()
    }
}

/// Paths that stay open to everybody come before all else.
fn but_reachable(policies: &Policies, tree: Matcher) -> Matcher {
    if policies.reachable.paths.is_empty() {
        return tree;
    }
    let open = policies.reachable.paths.iter().map(|path| (path.clone(), allow())).collect();
    exact(header(":path"), open, nested(tree))
}

fn denial(denial: &Denial<'_>) -> OnMatch {
    let deny = action(&denial.policy, Action::Deny);
    match &denial.but {
        None => deny,
        // Known there, and for nothing.
        Some((_, Operations::Only(none))) if none.is_empty() => deny,
        Some((_, operations)) => paths::only(operations, &deny).map_or_else(allow, nested),
    }
}

/// The mark of a call: whose rate is limited is read from it by the rate limit behind this filter.
fn marked(slot: &Slot, view: &View) -> Option<OnMatch> {
    if let Some(leaf) = slot.throttle(view) {
        return Some(action(&format!("{THROTTLE_PREFIX}{}", leaf.decision), Action::Allow));
    }
    slot.mark(view).map(|policy| action(&policy, Action::Deny))
}

/// A tree without branches is not allowed (and not needed): without a matcher the filter lets everything pass.
fn tree(policies: &Policies, answer: &dyn Fn(&Slot) -> Option<OnMatch>) -> Option<Matcher> {
    let branches = policies.branches.iter();
    let map: std::collections::HashMap<_, _> =
        branches.filter_map(|(principal, branch)| Some((principal.clone(), branch.on_match(answer)?))).collect();
    if map.is_empty() {
        return None;
    }
    Some(exact(input("san", UriSanInput {}), map, allow()))
}

impl Branch {
    fn on_match(&self, answer: &dyn Fn(&Slot) -> Option<OnMatch>) -> Option<OnMatch> {
        let whole = answer(&self.whole);
        let of = self.addresses.iter().map(|(address, slot)| (address, answer(&slot.within(&self.whole))));
        let of: Vec<_> = of.collect();
        if of.iter().all(|(_, answer)| *answer == whole) {
            return whole;
        }
        let map = of.into_iter().map(|(address, answer)| (address.to_string(), answer.unwrap_or_else(allow)));
        let input = input("source", DirectSourceIpInput {});
        Some(nested(exact(input, map.collect(), whole.unwrap_or_else(allow))))
    }
}
