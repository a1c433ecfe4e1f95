//! What a subject is known for: what it may still do while it is throttled or restricted; and what stays open to everybody
//! at every level.

use std::collections::{BTreeMap, BTreeSet};

use qualm_model::identity::Hierarchy;
use serde::{Deserialize, Serialize};

use crate::config::matches;

/// What a subject did before the episode began, and what the operator has declared: its own baseline, that of its healthy
/// siblings among it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    /// Calls a minute that one enforcement point lets pass.
    pub calls_a_minute: u32,
    /// Calls that it lets pass at once, where the caller was calm before: those of a usual busy ten minutes, which jobs
    /// make within one. Never less than those of a minute.
    pub at_once: u32,
    /// Whom it calls, by name, and what for.
    pub peers: BTreeMap<String, Operations>,
    /// Declared fall-back paths: a principal, with `*` for any text, and what for.
    pub declared: Vec<(String, Operations)>,
}

/// Operations, as method and folded path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operations {
    /// All: there are none to tell apart, or too many.
    Any,
    /// These.
    Only(BTreeSet<String>),
}

/// What is denied to nobody at any level: a workload that is cut off still renews its certificate, finds names and is
/// watched, or it would not come back when it may.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reachable {
    /// Destinations: principals, with `*` for any text.
    pub destinations: Vec<String>,
    /// Paths at any destination, exact and without a query.
    pub paths: Vec<String>,
}

impl Known {
    /// What it is known for at a destination; `None` where it is not known there.
    pub fn at(&self, destination: &str) -> Option<Operations> {
        let short = short_name(destination);
        let by_name = [Some(destination), short.as_deref()].into_iter().flatten();
        let own = by_name.filter_map(|name| self.peers.get(name));
        let declared = self.declared.iter().filter(|(to, _)| matches(to, destination)).map(|(_, what)| what);
        own.chain(declared).cloned().reduce(Operations::and)
    }
}

impl Operations {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a.into_iter().chain(b).collect()),
            _ => Self::Any,
        }
    }
}

impl Reachable {
    /// Whether nobody is kept from this destination.
    pub fn covers(&self, destination: &str) -> bool {
        self.destinations.iter().any(|pattern| matches(pattern, destination))
    }
}

/// `spiffe://<domain>/ns/<namespace>/sa/<service>` as `<service>.<namespace>`: how records name a destination whose
/// certificate they do not show.
pub(crate) fn short_name(principal: &str) -> Option<String> {
    let of = Hierarchy::of(principal);
    Some(format!("{}.{}", of.service, of.namespace?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(operation: &str) -> Operations {
        Operations::Only([operation.to_owned()].into())
    }

    #[test]
    fn a_destination_is_known_by_its_principal_its_service_name_or_a_declared_path() {
        let known = Known {
            peers: [
                ("orders.shop".to_owned(), only("GET /a")),
                ("spiffe://m/ns/shop/sa/mail".to_owned(), only("GET /m")),
            ]
            .into(),
            declared: vec![("spiffe://m/ns/shop/sa/orders*".to_owned(), only("GET /b"))],
            ..Known::default()
        };
        let both = Operations::Only(["GET /a".to_owned(), "GET /b".to_owned()].into());
        assert_eq!(known.at("spiffe://m/ns/shop/sa/orders"), Some(both));
        assert_eq!(known.at("spiffe://m/ns/shop/sa/orders-b"), Some(only("GET /b")));
        assert_eq!(known.at("spiffe://m/ns/shop/sa/mail"), Some(only("GET /m")));
        assert_eq!(known.at("spiffe://m/ns/bank/sa/orders"), None);
    }
}
