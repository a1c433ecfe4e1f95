//! What is narrowed to an address acts on the pod that had it, and on no pod that has it next.

use std::sync::Arc;

use qualm_model::{
    event::{EventBuilder, EventDraft, Party},
    identity::{Provenance, Tenancy, Tenant},
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    operator::{Ask, InShadow, Instruction},
    scorer::Scorer,
    verdict::Verdict,
};

const CART: &str = "spiffe://mesh.test/ns/shop/sa/cart";
const HOME: &str = "10.0.0.7";

fn minute(minute: i64) -> Timestamp {
    Timestamp(1_760_000_000_000_000_000) + Span(minute * Span::MINUTE.0)
}

fn pod(name: &str, since: Timestamp, until: Option<Timestamp>) -> Tenancy {
    let tenant =
        Tenant::Workload { name: "cart.shop".into(), instance: name.into(), account: "/ns/shop/sa/cart".into() };
    let addresses: Vec<Arc<str>> = vec![HOME.into()];
    Tenancy { cluster: "".into(), pod: name.into(), tenant, addresses, since, until, told: until.unwrap_or(since) }
}

/// A scorer to which cart is known, at its address, under a quarantine by hand of that one instance.
fn quarantined() -> Scorer {
    let enforce = EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() };
    let mut scorer = Scorer::new(ScorerConfig { enforce, ..ScorerConfig::default() });
    let party = |principal| Party { principal, provenance: Provenance::Certificate, ip: HOME, ..Party::default() };
    let mut builder = EventBuilder::new();
    builder.push(&EventDraft {
        start: minute(0),
        report: minute(0),
        source: party(CART),
        destination: party("spiffe://mesh.test/ns/shop/sa/orders"),
        operation: "GET /v1/orders",
        ..EventDraft::default()
    });
    let batch = builder.finish();
    let mut verdicts = Vec::new();
    scorer.open(&batch);
    for event in batch.events() {
        scorer.observe(event, minute(0), &mut verdicts);
    }
    scorer.take_tenancies(vec![pod("cart-1", minute(-60), None)]);
    let ask = Ask::Set {
        identity: CART.to_owned(),
        instance: Some(HOME.to_owned()),
        level: Level::Quarantined,
        lease: Span::HOUR,
        in_shadow: InShadow::Marks,
        overrides: Vec::new(),
    };
    let by = "spiffe://mesh.test/ns/soc/sa/ann".to_owned();
    let (why, key) = ("a drill".to_owned(), "k1".to_owned());
    let instruction = Instruction { by, why, key, at: minute(1), event: minute(1), ask };
    scorer.obey(&instruction, &mut verdicts).expect("it is done");
    scorer
}

fn acts(scorer: &Scorer) -> Vec<(Option<String>, bool)> {
    scorer.entries().into_iter().map(|entry| (entry.subject.instance, entry.enforce)).collect()
}

fn spared(scorer: &mut Scorer, at: Timestamp) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    scorer.spare_addresses(at, &mut verdicts);
    verdicts
}

#[test]
fn while_the_pod_is_there_it_is_acted_on_and_from_its_end_on_nobody_is() {
    let mut scorer = quarantined();
    assert_eq!(spared(&mut scorer, minute(2)), []);
    assert_eq!(acts(&scorer), [(Some(HOME.to_owned()), true)]);
    scorer.take_tenancies(vec![pod("cart-1", minute(-60), Some(minute(3)))]);
    let told = spared(&mut scorer, minute(3));
    assert_eq!((told.len(), told[0].enforce, told[0].level), (1, false, Level::Quarantined));
    assert_eq!(acts(&scorer), [(Some(HOME.to_owned()), false)]);
    assert_eq!(spared(&mut scorer, minute(4)), [], "it is told once");
}

#[test]
fn a_pod_that_takes_the_address_is_served_also_where_the_end_of_the_last_one_was_never_told() {
    let mut scorer = quarantined();
    scorer.take_tenancies(vec![pod("cart-2", minute(5), None)]);
    assert_eq!(spared(&mut scorer, minute(5)).len(), 1);
    assert_eq!(acts(&scorer), [(Some(HOME.to_owned()), false)]);
}

#[test]
fn news_of_a_pod_that_had_the_address_before_changes_nothing() {
    let mut scorer = quarantined();
    scorer.take_tenancies(vec![pod("cart-0", minute(-120), Some(minute(-90)))]);
    assert_eq!(spared(&mut scorer, minute(6)), []);
    assert_eq!(acts(&scorer), [(Some(HOME.to_owned()), true)]);
}
