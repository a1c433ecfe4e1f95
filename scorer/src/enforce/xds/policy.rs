//! From trust entries to what Envoy's filters do: who is denied what, who is slowed down, whose calls are marked.
//!
//! # Layout
//! - this file: entries in their places, and what follows from them before one node
//! - `http`, `network`: the RBAC filters; `rate`: the rate limit; `answer`: the same, said of one call
//! - `matcher`: words of Envoy's matching API; `paths`: operations as a matcher tree
//!
//! **Invariant:** nothing that is done is wider than its entry, and where two entries meet in one place the higher level
//! speaks.

mod answer;
mod http;
mod matcher;
mod network;
mod paths;
mod rate;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use envoy_types::pb::google::protobuf::Any;
use qualm_model::{identity::SpiffeId, level::Level};

pub use self::answer::{Answer, Call, Limit};
use crate::table::{Known, Object, Operations, Reachable, TrustEntry};

/// Name of the HTTP filter's resource, and of the filter in the listener.
pub const HTTP_RBAC: &str = "qualm-http-rbac";
/// Name of the network filter's resource, and of the filter in the listener.
pub const NETWORK_RBAC: &str = "qualm-net-rbac";
/// Name of the rate limit's resource, and of the filter in the listener: behind [`HTTP_RBAC`], whose marks it reads.
pub const HTTP_RATE_LIMIT: &str = "qualm-http-ratelimit";
/// All of them.
pub const RESOURCES: [&str; 3] = [HTTP_RBAC, NETWORK_RBAC, HTTP_RATE_LIMIT];
/// Begins the policy name of a call that was denied; the decision id follows.
pub const DENY_PREFIX: &str = "qualm-deny/";
/// Begins the policy name of a call whose caller's rate is limited; the decision id follows.
pub const THROTTLE_PREFIX: &str = "qualm-throttle/";
/// Begins the policy name of a call that would have been denied, or is watched; the decision id follows.
pub const SHADOW_PREFIX: &str = "qualm-shadow/";
/// Begins the keys of the shadow matcher's verdict in a log's metadata.
const STAT_PREFIX: &str = "qualm_";

/// The resources of one node, under their names.
pub type Bodies = [(&'static str, Any); RESOURCES.len()];

/// What every proxy does, in one order, so that two tables with the same effect are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    branches: BTreeMap<String, Branch>,
    reachable: Reachable,
}

/// Below one URI SAN: what applies to all instances, and to those at single addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Branch {
    whole: Slot,
    addresses: BTreeMap<IpAddr, Slot>,
}

/// What applies in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Slot {
    /// What is done.
    acts: Option<Leaf>,
    /// What is only noted in the proxy's own log.
    marks: Option<Leaf>,
}

/// One entry. Ordered by level first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Leaf {
    level: Level,
    decision: String,
    known: Option<Arc<Known>>,
}

/// What the place of a node changes of what it does: nodes with equal views do the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum View {
    /// Before a destination that is [`Reachable`]: nothing is done, calls are marked only.
    Reachable,
    /// Before a destination for which nobody who is restricted is known: they are denied.
    Stranger,
    /// Before this destination.
    Of(String),
    /// Nobody knows before whom: what depends on that is marked only.
    Nameless,
}

impl Policies {
    /// Nothing yet, but for what stays open to everybody.
    pub fn new(reachable: Reachable) -> Self {
        Self { branches: BTreeMap::new(), reachable }
    }

    /// Adds what `entry` asks for; `false` where these filters cannot express it: a principal that is no SPIFFE ID,
    /// an instance that is no address, an object other than everything, all instances of one of several workloads that
    /// share the principal. Nothing wider is done in its place.
    #[must_use]
    pub fn add(&mut self, entry: &TrustEntry) -> bool {
        if entry.level == Level::Trusted {
            return true;
        }
        if !entry.is_tellable() || entry.object != Object::Any || !entry.subject.principal.starts_with("spiffe://") {
            return false;
        }
        let address = match entry.subject.instance.as_deref().map(str::parse::<IpAddr>) {
            None => None,
            Some(Ok(address)) => Some(address.to_canonical()),
            Some(Err(_)) => return false,
        };
        let branch = self.branches.entry(entry.subject.principal.clone()).or_default();
        let slot = address.map_or(&mut branch.whole, |address| branch.addresses.entry(address).or_default());
        let acts = entry.enforce && entry.level.limits();
        let place = if acts { &mut slot.acts } else { &mut slot.marks };
        let leaf = Leaf { level: entry.level, decision: entry.decision.clone(), known: entry.known.clone() };
        *place = place.take().max(Some(leaf));
        true
    }

    /// How a node sees it that proves to be `identity`.
    pub fn view(&self, identity: Option<&SpiffeId>) -> View {
        let Some(identity) = identity else { return View::Nameless };
        if self.reachable.covers(identity.as_str()) {
            return View::Reachable;
        }
        let mut restricted = self.leaves().filter(|leaf| leaf.level == Level::Restricted);
        let knows = |leaf: &Leaf| leaf.known.as_ref().is_some_and(|known| known.at(identity.as_str()).is_some());
        if restricted.any(knows) { View::Of(identity.as_str().to_owned()) } else { View::Stranger }
    }

    /// The resources of a node; without entries they are explicit and empty.
    pub fn resources(&self, view: &View) -> Bodies {
        [
            (HTTP_RBAC, matcher::extension(HTTP_RBAC, http::filter(self, view))),
            (NETWORK_RBAC, matcher::extension(NETWORK_RBAC, network::filter(self, view))),
            (HTTP_RATE_LIMIT, matcher::extension(HTTP_RATE_LIMIT, rate::filter(self, view))),
        ]
    }

    /// Everything that acts.
    fn leaves(&self) -> impl Iterator<Item = &Leaf> {
        let slots =
            self.branches.values().flat_map(|branch| [&branch.whole].into_iter().chain(branch.addresses.values()));
        slots.filter_map(|slot| slot.acts.as_ref())
    }
}

impl Slot {
    /// What applies to an instance, where this is said of it alone and `whole` of all: of two things the higher level,
    /// and of equals the narrower.
    fn within(&self, whole: &Self) -> Self {
        let higher = |own: &Option<Leaf>, all: &Option<Leaf>| match (own, all) {
            (Some(own), Some(all)) if all.level > own.level => Some(all.clone()),
            (Some(own), _) => Some(own.clone()),
            (None, all) => all.clone(),
        };
        Self { acts: higher(&self.acts, &whole.acts), marks: higher(&self.marks, &whole.marks) }
    }

    /// What is denied before a node.
    fn denial(&self, view: &View) -> Option<Denial<'_>> {
        let leaf = self.acts.as_ref().filter(|leaf| leaf.level.denies() && *view != View::Reachable)?;
        let policy = format!("{DENY_PREFIX}{}", leaf.decision);
        if leaf.level != Level::Restricted {
            return Some(Denial { policy, but: None });
        }
        let but = match view {
            View::Of(destination) => leaf.known.as_deref().and_then(|known| known.at(destination)),
            // It cannot be told whether it is known there.
            View::Nameless => return None,
            View::Stranger | View::Reachable => None,
        };
        match but {
            Some(Operations::Any) => None,
            but => Some(Denial { policy, but: but.map(|but| (leaf, but)) }),
        }
    }

    /// Whose rate is limited before a node.
    fn throttle(&self, view: &View) -> Option<&Leaf> {
        let leaf = self.acts.as_ref().filter(|_| *view != View::Reachable)?;
        matches!(leaf.level, Level::Throttled | Level::Restricted).then_some(leaf)
    }

    /// What is noted before a node: what is only to be noted, or what cannot be done there.
    fn mark(&self, view: &View) -> Option<String> {
        let undone = self.acts.as_ref().filter(|leaf| match view {
            View::Reachable => true,
            View::Nameless => leaf.level == Level::Restricted,
            View::Stranger | View::Of(_) => false,
        });
        let leaf = self.marks.as_ref().max(undone)?;
        Some(format!("{SHADOW_PREFIX}{}", leaf.decision))
    }
}

/// Calls that are denied under one policy, but for these operations.
struct Denial<'a> {
    policy: String,
    but: Option<(&'a Leaf, Operations)>,
}
