use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::{core::v3::TypedExtensionConfig, rbac::v3::Action},
        extensions::filters::{
            http::{local_ratelimit::v3::LocalRateLimit, rbac::v3::Rbac as HttpRbac},
            network::rbac::v3::Rbac as NetworkRbac,
        },
    },
    xds::r#type::matcher::v3::{
        Matcher,
        matcher::{
            MatcherType, OnMatch,
            matcher_tree::{MatchMap, TreeType},
            on_match,
        },
    },
};
use proptest::prelude::*;
use prost::Message;
use qualm_model::time::Timestamp;

use super::*;
use crate::table::Subject;

const CART: &str = "spiffe://m/ns/shop/sa/cart";
const ORDERS: &str = "spiffe://m/ns/shop/sa/orders";

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
        known: None,
    }
}

/// One that is known at `orders`, for one operation.
fn restricted(decision: &str) -> TrustEntry {
    let only = Operations::Only(["GET /v1/orders/{id}".to_owned()].into());
    let known = Known { calls_a_minute: 64, peers: BTreeMap::from([(ORDERS.to_owned(), only)]), ..Known::default() };
    TrustEntry { known: Some(known.into()), ..entry(CART, None, Level::Restricted, decision) }
}

fn policies(entries: &[TrustEntry]) -> Policies {
    let mut policies = Policies::default();
    assert!(entries.iter().all(|entry| policies.add(entry)));
    policies
}

fn before(policies: &Policies, identity: &str) -> View {
    policies.view(Some(&identity.parse().unwrap()))
}

/// Who is denied, and who is marked, before a node: what stands at each URI SAN.
struct Trees {
    denied: Option<(MatchMap, OnMatch)>,
    marked: Option<(MatchMap, OnMatch)>,
}

fn trees(policies: &Policies, view: &View) -> Trees {
    let [(_, http), ..] = policies.resources(view);
    let http: HttpRbac = filter(&http);
    let open = |matcher: Matcher| {
        // Beneath the question for a certificate.
        let Some(MatcherType::MatcherList(list)) = matcher.matcher_type else { panic!("not a list") };
        assert_eq!(verdict(&matcher.on_no_match.unwrap()).1, 0, "whoever shows none passes");
        tree(nested(list.matchers[0].on_match.as_ref().unwrap()))
    };
    Trees { denied: http.matcher.map(open), marked: http.shadow_matcher.map(open) }
}

fn filter<T: Message + Default>(body: &Any) -> T {
    let config = TypedExtensionConfig::decode(body.value.as_slice()).unwrap();
    T::decode(config.typed_config.unwrap().value.as_slice()).unwrap()
}

fn nested(on_match: &OnMatch) -> &Matcher {
    let Some(on_match::OnMatch::Matcher(matcher)) = &on_match.on_match else { panic!("not nested: {on_match:?}") };
    matcher
}

fn tree(matcher: &Matcher) -> (MatchMap, OnMatch) {
    let Some(MatcherType::MatcherTree(tree)) = &matcher.matcher_type else { panic!("not a tree") };
    let Some(TreeType::ExactMatchMap(map)) = &tree.tree_type else { panic!("not an exact map") };
    (map.clone(), matcher.on_no_match.as_deref().unwrap().clone())
}

/// Name and answer: 0 lets pass, 1 denies.
fn verdict(on_match: &OnMatch) -> (String, i32) {
    let Some(on_match::OnMatch::Action(config)) = &on_match.on_match else { panic!("not an action") };
    let action = Action::decode(config.typed_config.as_ref().unwrap().value.as_slice()).unwrap();
    (action.name, action.action)
}

#[test]
fn one_instance_is_denied_and_its_siblings_and_strangers_are_not() {
    let policies = policies(&[entry(CART, Some("10.0.0.7"), Level::Quarantined, "d1")]);
    let (by_san, stranger) = trees(&policies, &View::Stranger).denied.unwrap();
    assert_eq!(verdict(&stranger).1, 0);
    let (by_address, sibling) = tree(nested(&by_san.map[CART]));
    assert_eq!(verdict(&by_address.map["10.0.0.7"]), ("qualm-deny/d1".into(), 1));
    assert_eq!(verdict(&sibling).1, 0);
}

#[test]
fn an_instance_beneath_a_denied_service_keeps_its_own_policy_name_and_the_others_that_of_the_service() {
    let policies = policies(&[
        entry(CART, None, Level::Quarantined, "all"),
        entry(CART, Some("10.0.0.7"), Level::Revoked, "one"),
        entry(CART, Some("10.0.0.8"), Level::Throttled, "less"),
    ]);
    let (by_san, _) = trees(&policies, &View::Stranger).denied.unwrap();
    let (by_address, others) = tree(nested(&by_san.map[CART]));
    assert_eq!(verdict(&by_address.map["10.0.0.7"]).0, "qualm-deny/one");
    assert_eq!(verdict(&by_address.map["10.0.0.8"]).0, "qualm-deny/all", "less for one takes nothing from all");
    assert_eq!(verdict(&others).0, "qualm-deny/all");
}

#[test]
fn what_is_not_to_be_enforced_or_is_watched_is_only_marked() {
    let shadow = TrustEntry { enforce: false, ..entry(CART, None, Level::Quarantined, "d1") };
    let policies = policies(&[shadow, entry(ORDERS, None, Level::Watched, "d2")]);
    let trees = trees(&policies, &View::Stranger);
    assert!(trees.denied.is_none());
    let (marked, _) = trees.marked.unwrap();
    assert_eq!(verdict(&marked.map[CART]), ("qualm-shadow/d1".into(), 1));
    assert_eq!(verdict(&marked.map[ORDERS]).0, "qualm-shadow/d2");
}

#[test]
fn a_throttled_identity_has_a_bucket_of_its_own_under_the_mark_of_its_calls() {
    let known = Known { calls_a_minute: 128, at_once: 512, ..Known::default() };
    let one = TrustEntry { known: Some(known.into()), ..entry(CART, Some("10.0.0.7"), Level::Throttled, "d1") };
    let policies = policies(&[one, TrustEntry { enforce: false, ..entry(ORDERS, None, Level::Throttled, "d2") }]);
    let (marked, _) = trees(&policies, &View::Stranger).marked.unwrap();
    let (by_address, _) = tree(nested(&marked.map[CART]));
    assert_eq!(verdict(&by_address.map["10.0.0.7"]), ("qualm-throttle/d1".into(), 0));
    let [.., (_, limit)] = policies.resources(&View::Stranger);
    let limit: LocalRateLimit = filter(&limit);
    let [descriptor] = limit.descriptors.as_slice() else { panic!("one bucket: {:?}", limit.descriptors) };
    assert_eq!(descriptor.entries[0].value, "qualm-throttle/d1");
    let bucket = descriptor.token_bucket.as_ref().unwrap();
    assert_eq!((bucket.max_tokens, bucket.tokens_per_fill.unwrap().value), (512, 3));
    let enabled = |limit: &LocalRateLimit| limit.filter_enforced.as_ref().unwrap().default_value.unwrap().numerator;
    let [.., (_, none)] = Policies::default().resources(&View::Stranger);
    assert_eq!((enabled(&limit), enabled(&filter(&none))), (100, 0));
}

#[test]
fn a_restricted_identity_is_denied_where_it_is_not_known_and_what_it_is_not_known_for() {
    let policies = policies(&[restricted("d1")]);
    let elsewhere = before(&policies, "spiffe://m/ns/bank/sa/accounts");
    assert_eq!(elsewhere, View::Stranger);
    let (denied, _) = trees(&policies, &elsewhere).denied.unwrap();
    assert_eq!(verdict(&denied.map[CART]), ("qualm-deny/d1".into(), 1));

    let orders = before(&policies, ORDERS);
    assert_eq!(orders, View::Of(ORDERS.to_owned()));
    let (denied, _) = trees(&policies, &orders).denied.unwrap();
    let (methods, otherwise) = tree(nested(&denied.map[CART]));
    assert_eq!(methods.map.keys().collect::<Vec<_>>(), ["GET"]);
    assert_eq!(verdict(&otherwise), ("qualm-deny/d1".into(), 1));
    // A connection has no operations.
    let rules = |view: &View| filter::<NetworkRbac>(&policies.resources(view)[1].1).rules;
    assert_eq!(rules(&orders), None);
    assert!(rules(&elsewhere).unwrap().policies.contains_key("qualm-deny/d1"));
}

/// Whether every map of a tree has a key: Envoy refuses one that has none, and with it all that is in the resource.
fn has_keys_everywhere(matcher: &Matcher) -> bool {
    let below = |on_match: &OnMatch| match &on_match.on_match {
        Some(on_match::OnMatch::Matcher(matcher)) => has_keys_everywhere(matcher),
        _ => true,
    };
    let own = match &matcher.matcher_type {
        Some(MatcherType::MatcherTree(tree)) => match &tree.tree_type {
            Some(TreeType::ExactMatchMap(MatchMap { map }) | TreeType::PrefixMatchMap(MatchMap { map })) => {
                !map.is_empty() && map.values().all(below)
            }
            _ => false,
        },
        Some(MatcherType::MatcherList(list)) => {
            !list.matchers.is_empty() && list.matchers.iter().filter_map(|of| of.on_match.as_ref()).all(below)
        }
        None => false,
    };
    own && matcher.on_no_match.as_deref().is_none_or(below)
}

#[test]
fn no_map_is_empty_whatever_an_identity_is_known_for() {
    for known in [vec![], vec!["GET /v1/orders/{id}"], vec!["GET /v1/orders"], vec!["GET /a", "PUT /a/{id}", "POST /…"]]
    {
        let only = Operations::Only(known.iter().map(|&of| of.to_owned()).collect());
        let known_at = Known { peers: BTreeMap::from([(ORDERS.to_owned(), only)]), ..Known::default() };
        let one = TrustEntry { known: Some(known_at.into()), ..entry(CART, None, Level::Restricted, "d1") };
        let policies = policies(&[one]);
        for view in [before(&policies, ORDERS), View::Stranger, View::Nameless, View::Reachable] {
            let [(_, http), ..] = policies.resources(&view);
            let http: HttpRbac = filter(&http);
            let trees = [&http.matcher, &http.shadow_matcher];
            assert!(trees.into_iter().flatten().all(has_keys_everywhere), "{known:?} {view:?}");
        }
    }
}

#[test]
fn before_a_proxy_that_proves_no_identity_a_restriction_is_only_marked() {
    let policies = policies(&[restricted("d1"), entry(ORDERS, None, Level::Quarantined, "d2")]);
    let nameless = policies.view(None);
    let (denied, _) = trees(&policies, &nameless).denied.unwrap();
    assert_eq!(denied.map.keys().collect::<Vec<_>>(), [ORDERS]);
    assert!(
        !filter::<NetworkRbac>(&policies.resources(&nameless)[1].1)
            .rules
            .unwrap()
            .policies
            .contains_key("qualm-deny/d1")
    );
}

#[test]
fn whoever_is_cut_off_still_reaches_what_is_declared_so() {
    let reachable =
        Reachable { destinations: vec!["spiffe://m/ns/spire*".to_owned()], paths: vec!["/healthz".to_owned()] };
    let mut policies = Policies::new(reachable);
    for level in [Level::Throttled, Level::Restricted, Level::Quarantined, Level::Revoked] {
        assert!(policies.add(&entry(&format!("{CART}-{level}"), None, level, level.as_str())));
    }
    let agent = before(&policies, "spiffe://m/ns/spire/sa/agent");
    assert_eq!(agent, View::Reachable);
    let [(_, http), (_, network), (_, rate)] = policies.resources(&agent);
    assert_eq!((filter::<HttpRbac>(&http).matcher, filter::<NetworkRbac>(&network).rules), (None, None));
    assert!(filter::<LocalRateLimit>(&rate).descriptors.is_empty());
    // Elsewhere the path comes before the question who calls.
    let (paths, _) = trees(&policies, &View::Stranger).denied.unwrap();
    assert_eq!(verdict(&paths.map["/healthz"]).1, 0);
}

#[test]
fn what_the_filter_cannot_express_is_refused_and_nothing_wider_is_done() {
    let mut policies = Policies::default();
    let narrow =
        TrustEntry { object: Object::Destination(ORDERS.into()), ..entry(CART, None, Level::Quarantined, "d1") };
    assert!(!policies.add(&narrow));
    assert!(!policies.add(&entry("10.0.0.7", None, Level::Quarantined, "d2")));
    assert!(!policies.add(&entry(CART, Some("cart-7f9c"), Level::Quarantined, "d3")));
    assert_eq!(policies, Policies::default());
}

#[test]
fn of_a_principal_that_several_share_nothing_is_denied_or_marked_but_an_instance() {
    for level in [Level::Watched, Level::Throttled, Level::Restricted, Level::Quarantined] {
        let mut policies = Policies::default();
        let shared = |entry: TrustEntry| TrustEntry { co_owners: vec!["cart".into(), "report".into()], ..entry };
        let subject = Subject { workload: Some("cart".into()), ..entry(CART, None, level, "d1").subject };
        let whole = shared(entry(CART, None, level, "d1"));
        assert!(!policies.add(&TrustEntry { subject, ..whole.clone() }) && !policies.add(&whole));
        assert_eq!(policies, Policies::default());
        assert!(policies.add(&shared(entry(CART, Some("10.0.0.7"), level, "d1"))));
        let branch = &policies.branches[CART];
        assert_eq!((&branch.whole, branch.addresses.len()), (&Slot::default(), 1));
    }
}

#[test]
fn an_empty_table_is_an_explicit_empty_filter_under_each_name() {
    let [(http, _), (network, body), (rate, _)] = Policies::default().resources(&View::Stranger);
    assert_eq!((http, network, rate), ("qualm-http-rbac", "qualm-net-rbac", "qualm-http-ratelimit"));
    let filter: NetworkRbac = filter(&body);
    assert_eq!((filter.rules, filter.shadow_rules, filter.stat_prefix.as_str()), (None, None, "qualm_"));
}

#[test]
fn where_two_entries_meet_the_higher_level_speaks_whatever_their_order() {
    for order in [[0, 1], [1, 0]] {
        let pair = [
            entry(CART, Some("10.0.0.7"), Level::Quarantined, "zz"),
            entry(CART, Some("10.0.0.7"), Level::Revoked, "aa"),
        ];
        let mut policies = Policies::default();
        assert!(order.iter().all(|&index| policies.add(&pair[index])));
        let slot = &policies.branches[CART].addresses[&"10.0.0.7".parse().unwrap()];
        assert_eq!(slot.acts.as_ref().unwrap().decision, "aa");
    }
}

fn any_entry() -> impl Strategy<Value = TrustEntry> {
    let address = prop::option::of(prop::sample::select(vec!["10.0.0.7", "10.0.0.8"]));
    let level = prop::sample::select(vec![Level::Watched, Level::Throttled, Level::Restricted, Level::Quarantined]);
    (address, level, any::<bool>(), any::<bool>(), 0..1000_u32).prop_map(|(address, level, enforce, is_known, id)| {
        let known = restricted("").known.filter(|_| is_known);
        TrustEntry { enforce, known, ..entry(CART, address, level, &format!("d{id}")) }
    })
}

proptest! {
    /// No sibling is limited by what is said of another, nothing acts that is not to be enforced, and no higher entry lets
    /// pass what a lower one limits.
    #[test]
    fn what_is_done_is_never_wider_than_an_entry_and_never_less_than_the_highest(
        entries in prop::collection::vec(any_entry(), 0..6),
        stranger in any::<bool>(),
    ) {
        let policies = policies(&entries);
        let view = if stranger { View::Stranger } else { View::Of(ORDERS.to_owned()) };
        for address in ["10.0.0.7", "10.0.0.8", "10.0.0.9"] {
            let about = |entry: &&TrustEntry| entry.subject.instance.as_deref().is_none_or(|of| of == address);
            let acting = entries.iter().filter(about).filter(|entry| entry.enforce && entry.level.limits());
            let highest = acting.map(|entry| entry.level).max();
            let slot = policies.branches.get(CART).map_or_else(Slot::default, |branch| {
                let own = branch.addresses.get(&address.parse().unwrap());
                own.map_or_else(|| branch.whole.clone(), |own| own.within(&branch.whole))
            });
            prop_assert_eq!(slot.acts.as_ref().map(|leaf| leaf.level), highest);
            let denied = slot.denial(&view).map(|denial| denial.but.is_none());
            match highest {
                Some(Level::Quarantined) => prop_assert_eq!(denied, Some(true)),
                Some(Level::Restricted) if stranger => prop_assert_eq!(denied, Some(true)),
                Some(Level::Restricted) => prop_assert!(denied.is_some()),
                _ => prop_assert_eq!(denied, None),
            }
            let limited = matches!(highest, Some(Level::Throttled | Level::Restricted));
            prop_assert_eq!(slot.throttle(&view).is_some(), limited);
            prop_assert!(slot.denial(&View::Reachable).is_none() && slot.throttle(&View::Reachable).is_none());
        }
    }
}
