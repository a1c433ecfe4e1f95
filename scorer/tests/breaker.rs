//! Drills: very many identities come to be limited at once.

use qualm_model::{
    event::{EventBuilder, EventDraft, Party},
    identity::Provenance,
    level::Level,
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::{EnforceConfig, Mode, ScorerConfig},
    scorer::Scorer,
    table::{Object, Subject},
    verdict::{Cause, Verdict},
};

fn second(second: i64) -> Timestamp {
    Timestamp(1_760_000_000_000_000_000) + Span::seconds(second)
}

fn principal(number: usize) -> String {
    format!("spiffe://mesh.test/ns/shop/sa/s{number}")
}

/// A mesh of so many identities, each of which has called once.
fn mesh(identities: usize) -> Scorer {
    let enforce = EnforceConfig { mode: Mode::Enforce, ..EnforceConfig::default() };
    let mut scorer = Scorer::new(ScorerConfig { enforce, ..ScorerConfig::default() });
    let names: Vec<String> = (0..identities).map(principal).collect();
    let mut builder = EventBuilder::new();
    for name in &names {
        let party = |principal| Party { principal, provenance: Provenance::Certificate, ..Party::default() };
        builder.push(&EventDraft {
            start: second(0),
            report: second(0),
            source: party(name),
            destination: party("spiffe://mesh.test/ns/shop/sa/orders"),
            ..EventDraft::default()
        });
    }
    let batch = builder.finish();
    let mut verdicts = Vec::new();
    scorer.open(&batch);
    for event in batch.events() {
        scorer.observe(event, second(0), &mut verdicts);
    }
    scorer
}

/// That `number` was entered into `level` at a time.
fn entered(number: usize, level: Level, at: Timestamp) -> Verdict {
    let subject = Subject { principal: principal(number), cluster: None, workload: None, instance: None };
    Verdict {
        time: at,
        decided: at,
        identity: principal(number),
        namespace: Some("shop".to_owned()),
        subject,
        object: Object::Any,
        level,
        previous: Level::Trusted,
        cause: Cause::Evidence,
        pace: None,
        evidence_bits: 20.0,
        threshold_bits: 10.0,
        per_day: 0.001,
        m: 0.0,
        threshold: 0.0,
        lease: Some(Span::HOUR),
        expires: Some(at + Span::HOUR),
        decision: format!("d{number}"),
        episode: at,
        historic: false,
        enforce: true,
        held: None,
        held_by: None,
        dependants: None,
        instances: Vec::new(),
        co_owners: Vec::new(),
        reasons: Vec::new(),
        order: None,
        carried_by: Vec::new(),
        announced: None,
        incident: None,
        paused: false,
        grounds: None,
    }
}

fn acting(scorer: &Scorer) -> usize {
    scorer.entries().iter().filter(|entry| entry.enforce).count()
}

#[test]
fn two_hundred_identities_that_are_limited_at_once_are_held_back_and_told_of_one_by_one_but_once() {
    for level in [Level::Throttled, Level::Restricted, Level::Quarantined] {
        let mut scorer = mesh(1_000);
        for number in 0..200 {
            scorer.take_over(&entered(number, level, second(number as i64)));
        }
        assert_eq!(scorer.circuit_breaker(second(200)), Some(200));
        let mut told = Vec::new();
        scorer.tick(second(200), &mut told);
        assert_eq!((told.len(), acting(&scorer)), (200, 0), "{level}");
        let is_held = |of: &Verdict| of.cause == Cause::Held && !of.enforce && of.held.is_some() && of.level == level;
        assert!(told.iter().all(is_held), "{:?}", told[0]);
        told.clear();
        scorer.tick(second(201), &mut told);
        assert!(told.is_empty(), "it is said once");
        assert_eq!(scorer.circuit_breaker(second(900)), None, "ten minutes after the last it is closed again");
    }
}

#[test]
fn a_few_are_not_many_and_neither_are_those_who_have_stood_for_long() {
    let mut scorer = mesh(1_000);
    // One every minute for hours: no more than ten within ten minutes, of which fifty would be too many.
    for number in 0..200 {
        scorer.take_over(&entered(number, Level::Throttled, second(number as i64 * 60)));
    }
    let mut told = Vec::new();
    scorer.tick(second(199 * 60), &mut told);
    assert!(told.iter().all(|of| of.cause != Cause::Held));
    assert_eq!(scorer.circuit_breaker(second(199 * 60)), None);
    // In a small mesh five never are too many.
    let mut scorer = mesh(20);
    (0..5).for_each(|number| scorer.take_over(&entered(number, Level::Quarantined, second(0))));
    scorer.tick(second(1), &mut told);
    assert_eq!(acting(&scorer), 5);
}
