//! From trust entries to Envoy's RBAC filters: a matcher tree keyed by the peer's URI SAN and, beneath it, where
//! single instances are meant, by the direct source address. What no branch names is allowed, at every depth.

use std::{collections::BTreeMap, net::IpAddr};

use envoy_types::{
    pb::{
        envoy::{
            config::rbac::v3::{Action, rbac},
            extensions::{
                filters::{http::rbac::v3::Rbac as HttpRbac, network::rbac::v3::Rbac as NetworkRbac},
                matching::common_inputs::{network::v3::DirectSourceIpInput, ssl::v3::UriSanInput},
            },
        },
        google::protobuf::Any,
        xds::{
            core::v3::TypedExtensionConfig,
            r#type::matcher::v3::{
                Matcher,
                matcher::{
                    MatcherTree, MatcherType, OnMatch,
                    matcher_tree::{MatchMap, TreeType},
                    on_match,
                },
            },
        },
    },
    util::pack_any,
};
use prost::{Message, Name};
use qualm_model::level::Level;

use crate::table::{Object, TrustEntry};

/// Name of the HTTP filter's resource, and of the filter in the listener.
pub const HTTP_RBAC: &str = "qualm-http-rbac";
/// Name of the network filter's resource, and of the filter in the listener.
pub const NETWORK_RBAC: &str = "qualm-net-rbac";
/// Begins the policy name of a call that was denied; the decision id follows.
pub const DENY_PREFIX: &str = "qualm-deny/";
/// Begins the policy name of a call that would have been denied, or is watched; the decision id follows.
pub const SHADOW_PREFIX: &str = "qualm-shadow/";
/// The lowest level at which calls are denied. Below it, Envoy has no answer between yes and no in this filter:
/// those entries are marked in the proxy's own log through the shadow matcher.
pub const DENIED_FROM: Level = Level::Quarantined;
/// Begins the keys of the shadow matcher's verdict in a log's metadata.
const STAT_PREFIX: &str = "qualm_";

/// What every proxy does, in one order, so that two tables with the same effect are equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    denied: Tree,
    shadowed: Tree,
}

type Tree = BTreeMap<String, Branch>;

/// Below one URI SAN: the policy of all instances, and those of single addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Branch {
    whole: Option<Leaf>,
    addresses: BTreeMap<String, Leaf>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Leaf {
    level: Level,
    policy: String,
}

impl Policies {
    /// Adds what `entry` asks for; `false` where this filter cannot express it: a principal that is no SPIFFE ID,
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
            Some(Ok(address)) => Some(address.to_canonical().to_string()),
            Some(Err(_)) => return false,
        };
        let denied = entry.enforce && entry.level >= DENIED_FROM;
        let (tree, prefix) = if denied { (&mut self.denied, DENY_PREFIX) } else { (&mut self.shadowed, SHADOW_PREFIX) };
        let leaf = Leaf { level: entry.level, policy: format!("{prefix}{}", entry.decision) };
        tree.entry(entry.subject.principal.clone()).or_default().add(address, leaf);
        true
    }

    /// The two resources, as [`HTTP_RBAC`] and [`NETWORK_RBAC`]; without entries they are explicit and empty.
    pub fn resources(&self) -> [(&'static str, Any); 2] {
        let http = HttpRbac {
            matcher: matcher(&self.denied),
            shadow_matcher: matcher(&self.shadowed),
            shadow_rules_stat_prefix: STAT_PREFIX.to_owned(),
            ..HttpRbac::default()
        };
        let network = NetworkRbac {
            matcher: matcher(&self.denied),
            shadow_matcher: matcher(&self.shadowed),
            shadow_rules_stat_prefix: STAT_PREFIX.to_owned(),
            stat_prefix: STAT_PREFIX.to_owned(),
            ..NetworkRbac::default()
        };
        [(HTTP_RBAC, extension(HTTP_RBAC, http)), (NETWORK_RBAC, extension(NETWORK_RBAC, network))]
    }
}

impl Branch {
    fn add(&mut self, address: Option<String>, leaf: Leaf) {
        // Should two entries meet in one place, the higher level speaks.
        match address {
            None => self.whole = self.whole.take().max(Some(leaf)),
            Some(address) => {
                let known = self.addresses.entry(address).or_insert_with(|| leaf.clone());
                if *known < leaf {
                    *known = leaf;
                }
            }
        }
    }

    fn on_match(&self) -> OnMatch {
        let whole = || self.whole.as_ref().map_or_else(allow, deny);
        if self.addresses.is_empty() {
            return whole();
        }
        let map = self.addresses.iter().map(|(address, leaf)| (address.clone(), deny(leaf))).collect();
        let input = input("envoy.matching.inputs.direct_source_ip", DirectSourceIpInput {});
        let tree = Box::new(exact(input, map, whole()));
        OnMatch { keep_matching: false, on_match: Some(on_match::OnMatch::Matcher(tree)) }
    }
}

/// The body of an ECDS resource: the filter's configuration under its name.
fn extension<T: Name + Message>(name: &str, filter: T) -> Any {
    use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
    pack_any(TypedExtensionConfig { name: name.to_owned(), typed_config: Some(pack_any(filter)) })
}

/// A tree without branches is not allowed (and not needed): without a matcher the filter lets everything pass.
fn matcher(tree: &Tree) -> Option<Matcher> {
    if tree.is_empty() {
        return None;
    }
    let map = tree.iter().map(|(principal, branch)| (principal.clone(), branch.on_match())).collect();
    Some(exact(input("envoy.matching.inputs.uri_san", UriSanInput {}), map, allow()))
}

fn exact(
    input: TypedExtensionConfig,
    map: std::collections::HashMap<String, OnMatch>,
    on_no_match: OnMatch,
) -> Matcher {
    let tree = MatcherTree { input: Some(input), tree_type: Some(TreeType::ExactMatchMap(MatchMap { map })) };
    Matcher { on_no_match: Some(Box::new(on_no_match)), matcher_type: Some(MatcherType::MatcherTree(tree)) }
}

fn input<T: Name + Message>(name: &str, input: T) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(pack_any(input)) }
}

fn allow() -> OnMatch {
    action("qualm-default-allow", rbac::Action::Allow)
}

fn deny(leaf: &Leaf) -> OnMatch {
    action(&leaf.policy, rbac::Action::Deny)
}

fn action(name: &str, action: rbac::Action) -> OnMatch {
    let action = TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(pack_any(Action { name: name.to_owned(), action: action.into() })),
    };
    OnMatch { keep_matching: false, on_match: Some(on_match::OnMatch::Action(action)) }
}

#[cfg(test)]
mod tests {
    use qualm_model::time::Timestamp;

    use super::*;
    use crate::table::Subject;

    fn entry(principal: &str, instance: Option<&str>, level: Level, decision: &str) -> TrustEntry {
        TrustEntry {
            decision: decision.into(),
            subject: Subject {
                principal: principal.into(),
                cluster: None,
                workload: None,
                instance: instance.map(Into::into),
            },
            object: Object::Any,
            level,
            enforce: true,
            decided: Timestamp(0),
            expires: Timestamp(1),
            evidence_bits: 1.0,
            co_owners: Vec::new(),
            reason: String::new(),
        }
    }

    fn tree(matcher: &Matcher) -> (&MatchMap, &OnMatch) {
        let Some(MatcherType::MatcherTree(tree)) = &matcher.matcher_type else { panic!("not a tree") };
        let Some(TreeType::ExactMatchMap(map)) = &tree.tree_type else { panic!("not an exact map") };
        (map, matcher.on_no_match.as_deref().unwrap())
    }

    fn verdict(on_match: &OnMatch) -> (String, i32) {
        let Some(on_match::OnMatch::Action(config)) = &on_match.on_match else { panic!("not an action") };
        let action = Action::decode(config.typed_config.as_ref().unwrap().value.as_slice()).unwrap();
        (action.name, action.action)
    }

    #[test]
    fn one_instance_is_denied_and_its_siblings_and_strangers_are_not() {
        let mut policies = Policies::default();
        assert!(policies.add(&entry("spiffe://m/cart", Some("10.0.0.7"), Level::Quarantined, "d1")));
        let matcher = matcher(&policies.denied).unwrap();
        let (by_san, stranger) = tree(&matcher);
        assert_eq!(verdict(stranger).1, rbac::Action::Allow as i32);
        let Some(on_match::OnMatch::Matcher(nested)) = &by_san.map["spiffe://m/cart"].on_match else { panic!() };
        let (by_address, sibling) = tree(nested);
        assert_eq!(verdict(&by_address.map["10.0.0.7"]), ("qualm-deny/d1".into(), rbac::Action::Deny as i32));
        assert_eq!(verdict(sibling).1, rbac::Action::Allow as i32);
    }

    #[test]
    fn an_instance_beneath_a_denied_service_keeps_its_own_policy_name_and_the_others_that_of_the_service() {
        let mut policies = Policies::default();
        assert!(policies.add(&entry("spiffe://m/cart", None, Level::Quarantined, "all")));
        assert!(policies.add(&entry("spiffe://m/cart", Some("10.0.0.7"), Level::Revoked, "one")));
        let matcher = matcher(&policies.denied).unwrap();
        let Some(on_match::OnMatch::Matcher(nested)) = &tree(&matcher).0.map["spiffe://m/cart"].on_match else {
            panic!()
        };
        assert_eq!(verdict(&tree(nested).0.map["10.0.0.7"]).0, "qualm-deny/one");
        assert_eq!(verdict(tree(nested).1).0, "qualm-deny/all");
    }

    #[test]
    fn what_is_not_to_be_enforced_or_below_quarantine_is_only_marked() {
        let mut policies = Policies::default();
        let shadow = TrustEntry { enforce: false, ..entry("spiffe://m/a", None, Level::Quarantined, "d1") };
        assert!(policies.add(&shadow));
        assert!(policies.add(&entry("spiffe://m/b", None, Level::Restricted, "d2")));
        assert_eq!(matcher(&policies.denied), None);
        let matcher = matcher(&policies.shadowed).unwrap();
        assert_eq!(verdict(&tree(&matcher).0.map["spiffe://m/a"]).0, "qualm-shadow/d1");
        assert_eq!(verdict(&tree(&matcher).0.map["spiffe://m/b"]).0, "qualm-shadow/d2");
    }

    #[test]
    fn what_the_filter_cannot_express_is_refused_and_nothing_wider_is_done() {
        let mut policies = Policies::default();
        let narrow = TrustEntry {
            object: Object::Destination("spiffe://m/orders".into()),
            ..entry("spiffe://m/a", None, Level::Quarantined, "d1")
        };
        assert!(!policies.add(&narrow));
        assert!(!policies.add(&entry("10.0.0.7", None, Level::Quarantined, "d2")));
        assert!(!policies.add(&entry("spiffe://m/a", Some("cart-7f9c"), Level::Quarantined, "d3")));
        assert_eq!(policies, Policies::default());
    }

    #[test]
    fn of_a_principal_that_several_share_nothing_is_denied_or_marked_but_an_instance() {
        for level in [Level::Watched, Level::Quarantined] {
            let mut policies = Policies::default();
            let shared = |entry: TrustEntry| TrustEntry { co_owners: vec!["cart".into(), "report".into()], ..entry };
            let subject = Subject { workload: Some("cart".into()), ..entry("spiffe://m/a", None, level, "d1").subject };
            let whole = shared(entry("spiffe://m/a", None, level, "d1"));
            assert!(!policies.add(&TrustEntry { subject, ..whole.clone() }) && !policies.add(&whole));
            assert_eq!(policies, Policies::default());
            assert!(policies.add(&shared(entry("spiffe://m/a", Some("10.0.0.7"), level, "d1"))));
            let tree = if level == Level::Quarantined { &policies.denied } else { &policies.shadowed };
            assert_eq!((tree["spiffe://m/a"].whole.clone(), tree["spiffe://m/a"].addresses.len()), (None, 1));
        }
    }

    #[test]
    fn an_empty_table_is_an_explicit_empty_filter_under_each_name() {
        let [(http, _), (network, body)] = Policies::default().resources();
        assert_eq!((http, network), ("qualm-http-rbac", "qualm-net-rbac"));
        let config = envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig::decode(body.value.as_slice());
        let filter = NetworkRbac::decode(config.unwrap().typed_config.unwrap().value.as_slice()).unwrap();
        assert_eq!((filter.matcher, filter.stat_prefix.as_str()), (None, "qualm_"));
    }

    #[test]
    fn where_two_entries_meet_the_higher_level_speaks_whatever_their_order() {
        for order in [[0, 1], [1, 0]] {
            let pair = [
                entry("spiffe://m/a", Some("10.0.0.7"), Level::Quarantined, "zz"),
                entry("spiffe://m/a", Some("10.0.0.7"), Level::Revoked, "aa"),
            ];
            let mut policies = Policies::default();
            assert!(order.iter().all(|&index| policies.add(&pair[index])));
            assert_eq!(policies.denied["spiffe://m/a"].addresses["10.0.0.7"].policy, "qualm-deny/aa");
        }
    }
}
