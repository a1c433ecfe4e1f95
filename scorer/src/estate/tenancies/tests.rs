//! Addresses of pods through their lives.

use qualm_model::event::{EventBuilder, EventDraft, Party};

use super::*;

const IP: &str = "10.1.2.3";
const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_000_000 + seconds)
}

/// A pod of `workload` in `shop` with an account of that name.
fn pod(uid: &str, workload: &str, since: i64, until: Option<i64>) -> Tenancy {
    Tenancy {
        cluster: "".into(),
        pod: uid.into(),
        tenant: Tenant::Workload {
            name: format!("{workload}.shop").into(),
            instance: format!("{workload}-0").into(),
            account: format!("/ns/shop/sa/{workload}").into(),
        },
        addresses: vec![IP.into()],
        since: at(since),
        until: until.map(at),
        told: at(until.unwrap_or(since)),
    }
}

fn resolved(tenancies: &mut Tenancies, start: i64, learned: Option<&str>) -> Option<String> {
    of_cluster(tenancies, "", start, learned)
}

fn of_cluster(tenancies: &mut Tenancies, cluster: &str, start: i64, learned: Option<&str>) -> Option<String> {
    let mut builder = EventBuilder::new();
    let source = Party { principal: IP, ip: IP, cluster, ..Party::default() };
    builder.push(&EventDraft { start: at(start), report: at(start), source, ..EventDraft::default() });
    let batch = builder.finish();
    tenancies.resolve(&batch.event(0).source(), at(start), learned.map(Arc::from)).map(|who| who.to_string())
}

#[test]
fn a_record_goes_to_whoever_had_the_address_when_it_began() {
    let mut tenancies = Tenancies::default();
    assert!(tenancies.take(&pod("a", "cart", 0, None)));
    assert!(tenancies.take(&pod("a", "cart", 0, Some(100))));
    // Used again within a minute.
    assert!(tenancies.take(&pod("b", "ledger", 130, None)));
    for (start, who) in [
        (-1, None),
        (0, Some("cart.shop")),
        (100, Some("cart.shop")),
        (101, None),
        (129, None),
        (130, Some("ledger.shop")),
        (9999, Some("ledger.shop")),
        // However late it comes.
        (50, Some("cart.shop")),
    ] {
        assert_eq!(resolved(&mut tenancies, start, None).as_deref(), who, "{start}");
    }
}

#[test]
fn a_second_that_two_claim_is_nobodys_and_the_next_pod_ends_the_stay_of_one_whose_end_is_not_told() {
    let mut tenancies = Tenancies::default();
    tenancies.take(&pod("a", "cart", 0, None));
    tenancies.take(&pod("b", "ledger", 130, None));
    assert_eq!(resolved(&mut tenancies, 129, None).as_deref(), Some("cart.shop"));
    assert_eq!(resolved(&mut tenancies, 130, None), None);
    assert_eq!(resolved(&mut tenancies, 131, None).as_deref(), Some("ledger.shop"));
    // Its end, told afterwards, takes nothing from the newcomer.
    tenancies.take(&pod("a", "cart", 0, Some(200)));
    assert_eq!(resolved(&mut tenancies, 150, None).as_deref(), Some("ledger.shop"));
}

#[test]
fn what_is_told_again_is_no_news_and_an_ended_pod_does_not_come_back() {
    let mut tenancies = Tenancies::default();
    assert!(tenancies.take(&pod("a", "cart", 0, None)));
    assert!(!tenancies.take(&pod("a", "cart", 0, None)));
    assert!(tenancies.take(&pod("a", "cart", 0, Some(10))));
    assert!(!tenancies.take(&pod("a", "cart", 0, Some(20))));
    assert!(!tenancies.take(&pod("a", "cart", 0, None)));
    assert_eq!(resolved(&mut tenancies, 15, None), None);
}

#[test]
fn an_address_of_a_node_is_nobodys_whatever_the_stream_says() {
    let mut tenancies = Tenancies::default();
    tenancies.take(&Tenancy { tenant: Tenant::Node, ..pod("", "", 0, None) });
    assert_eq!(resolved(&mut tenancies, 5, Some(CART)), None);
}

#[test]
fn a_workload_is_known_by_the_certificate_that_was_verified_at_its_address_from_then_on() {
    let mut tenancies = Tenancies::default();
    tenancies.take(&pod("a", "cart", 0, None));
    assert_eq!(resolved(&mut tenancies, 5, Some("spiffe://mesh.test/ns/bank/sa/ledger")).as_deref(), Some("cart.shop"));
    assert_eq!(resolved(&mut tenancies, 6, Some(CART)).as_deref(), Some(CART));
    assert_eq!(resolved(&mut tenancies, 7, None).as_deref(), Some(CART));
    // Everything that names no account has this one.
    let mut shared = Tenancies::default();
    let of = |pod: Tenancy| {
        let Tenant::Workload { name, instance, .. } = pod.tenant.clone() else { panic!("a pod") };
        Tenancy { tenant: Tenant::Workload { name, instance, account: "/ns/shop/sa/default".into() }, ..pod }
    };
    shared.take(&of(pod("a", "cart", 0, None)));
    let default = "spiffe://mesh.test/ns/shop/sa/default";
    assert_eq!(resolved(&mut shared, 5, Some(default)).as_deref(), Some("cart.shop"));
}

#[test]
fn between_two_stays_only_a_newcomers_certificate_says_whose_it_is() {
    let mut tenancies = Tenancies::default();
    tenancies.take(&pod("a", "cart", 0, Some(10)));
    assert_eq!(resolved(&mut tenancies, 20, Some(CART)), None, "it was verified when the pod lived");
    let newcomer = "spiffe://mesh.test/ns/bank/sa/ledger";
    assert_eq!(resolved(&mut tenancies, 20, Some(newcomer)).as_deref(), Some(newcomer));
}

#[test]
fn a_running_pod_with_another_address_has_left_the_first() {
    let mut tenancies = Tenancies::default();
    tenancies.take(&pod("a", "cart", 0, None));
    let moved = Tenancy { addresses: vec!["10.1.2.4".into()], told: at(60), ..pod("a", "cart", 0, None) };
    assert!(tenancies.take(&moved));
    assert_eq!(resolved(&mut tenancies, 61, None), None);
    assert_eq!(resolved(&mut tenancies, 59, None).as_deref(), Some("cart.shop"));
    assert_eq!(tenancies.holder("10.1.2.4", at(59)), Holder::Untold);
    assert!(matches!(tenancies.holder("10.1.2.4", at(61)), Holder::Known(_)));
}

#[test]
fn two_clusters_use_the_same_addresses() {
    let mut tenancies = Tenancies::default();
    tenancies.take(&Tenancy { cluster: "east".into(), ..pod("a", "cart", 0, None) });
    tenancies.take(&Tenancy { cluster: "west".into(), ..pod("b", "ledger", 0, None) });
    assert_eq!(of_cluster(&mut tenancies, "east", 5, None).as_deref(), Some("cart.shop"));
    assert_eq!(of_cluster(&mut tenancies, "west", 5, None).as_deref(), Some("ledger.shop"));
    assert_eq!(resolved(&mut tenancies, 5, None), None);
}

#[test]
fn whoever_is_not_in_the_list_of_its_cluster_has_ended_when_that_was_last_seen() {
    let mut scorer = Scorer::new(crate::config::ScorerConfig::default());
    let other = Tenancy { addresses: vec!["10.1.2.4".into()], ..pod("b", "ledger", 0, None) };
    let elsewhere = Tenancy { cluster: "west".into(), ..pod("c", "cart", 0, None) };
    assert_eq!(scorer.take_tenancies(vec![pod("a", "cart", 0, None), other.clone(), elsewhere]).len(), 3);
    let [ended] = scorer.take_all_tenancies("", vec![other], at(50)).try_into().expect("one is not there");
    assert_eq!((&*ended.pod, ended.until), ("a", Some(at(50))));
    assert_eq!(resolved(&mut scorer.tenancies, 50, None).as_deref(), Some("cart.shop"));
    assert_eq!(resolved(&mut scorer.tenancies, 51, None), None);
    assert_eq!(scorer.pod_addresses(), PodAddresses { kept: 3, pods: 2, forgotten: 0 });
}

#[test]
fn a_flood_of_pods_stays_within_the_bound_and_those_that_live_are_forgotten_last() {
    let mut tenancies = Tenancies::default();
    let numbered = |number: usize, until| Tenancy {
        addresses: vec![number.to_string().into()],
        pod: number.to_string().into(),
        ..pod("", "cart", 0, until)
    };
    tenancies.take(&numbered(0, None));
    for number in 1..KEPT + 10 {
        tenancies.take(&numbered(number, Some(1)));
    }
    assert_eq!((tenancies.stays.len(), tenancies.order.len(), tenancies.forgotten), (KEPT, KEPT, 10));
    assert!(tenancies.stays.contains_key("0") && !tenancies.stays.contains_key("1"));
    for uid in 0..2 * STAYS {
        tenancies.take(&pod(&format!("x{uid}"), "cart", uid as i64, Some(uid as i64)));
    }
    assert_eq!(tenancies.stays[IP].len(), STAYS);
}
