//! Where no certificate is logged, callers are but addresses: whoever reports its own end says which workload's they are,
//! and a pod that is restarted, at another address, is the same identity.

mod mesh;

use mesh::START;
use qualm_model::{
    event::{EventBatch, EventBuilder, EventDraft, Kind, Outcome, Party, Position, Reporter},
    identity::Provenance,
    time::{Span, Timestamp},
};
use qualm_scorer::{config::ScorerConfig, scorer::Scorer};

/// Both proxies tell of each call, the called's first; every half an hour the caller is another pod.
fn reports(restarts: i64) -> EventBatch {
    let mut builder = EventBuilder::new();
    for call in 0..restarts * 180 {
        let age = call / 180;
        let (ip, pod) = (format!("10.1.1.{}", 15 + age), format!("frontend-7d6c6c7775-{age:05}"));
        let time = Timestamp(START) + Span::seconds(call * 10);
        let record = format!("request-{call}");
        let called = Party { principal: "cart.shop", ip: "10.1.2.1", instance: "cart-0", port: 8080, ..named() };
        let base = EventDraft {
            kind: Kind::Request,
            record_id: &record,
            operation: "GET /cart",
            outcome: Outcome::Success,
            duration_ns: Some(2_000_000),
            destination: called,
            position: Position { offset: 2 * call, ..Position::default() },
            ..EventDraft::default()
        };
        let seen = Party { principal: &ip, ip: &ip, port: 40_000, ..named() };
        builder.push(&EventDraft { start: time, report: time, reporter: Reporter::Destination, source: seen, ..base });
        let own = Party { principal: "frontend.shop", instance: &pod, ..seen };
        let position = Position { offset: 2 * call + 1, ..Position::default() };
        let report = time + Span(1_000_000);
        builder.push(&EventDraft { start: time, report, reporter: Reporter::Source, source: own, position, ..base });
    }
    builder.finish()
}

fn named() -> Party<'static> {
    Party { provenance: Provenance::Name, ..Party::default() }
}

#[test]
fn a_pod_that_is_restarted_at_another_address_is_the_same_identity() {
    let mut scorer = Scorer::new(ScorerConfig::default());
    let batch = reports(8);
    scorer.open(&batch);
    for event in batch.events() {
        scorer.observe(event, event.report(), &mut Vec::new());
    }
    let tally = scorer.tally();
    assert_eq!((tally.identities, tally.edges), (1, 1), "{tally:?}");
}
