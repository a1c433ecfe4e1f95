//! A verdict names the records that it rests on: without them it is not made. And it says how often what it shows was seen
//! before, of whom, and what would be usual.

mod mesh;

use mesh::{Call, batch, calls};
use qualm_model::{
    detector::Question,
    event::{Event, Position},
    level::Level,
    time::Span,
};
use qualm_scorer::{
    config::ScorerConfig,
    familiar::{Seen, Thing},
    scorer::Scorer,
    verdict::{Cause, Verdict},
};

const INPUT: &str = "topic mesh-access of kafka:9092";

/// Shows the calls to a new scorer; what is left out stays so, and the others keep their positions.
fn judged(calls: &[Call], is_left_out: impl Fn(usize, &Call) -> bool) -> Vec<Verdict> {
    let mut scorer = Scorer::new(ScorerConfig::default());
    scorer.name_sources(vec![INPUT.to_owned()]);
    let mut verdicts = Vec::new();
    for (n, chunk) in calls.chunks(1000).enumerate() {
        let batch = batch(chunk, n * 1000);
        scorer.open(&batch);
        let kept = batch.events().zip(chunk).enumerate().filter(|(i, (_, call))| !is_left_out(n * 1000 + i, call));
        kept.for_each(|(_, (event, _)): (usize, (Event<'_>, &Call))| {
            scorer.tick(event.report(), &mut verdicts);
            scorer.observe(event, event.report(), &mut verdicts);
        });
    }
    verdicts
}

fn entered(verdicts: &[Verdict], name: &str) -> Vec<Verdict> {
    let is_meant =
        |verdict: &&Verdict| verdict.cause == Cause::Evidence && verdict.identity.ends_with(&format!("/{name}"));
    verdicts.iter().filter(is_meant).cloned().collect()
}

#[test]
fn without_the_records_that_it_names_the_verdict_is_not_made() {
    let calls = calls();
    let verdicts = judged(&calls, |_, _| false);
    let told = entered(&verdicts, "s3");
    let highest = told.iter().max_by_key(|verdict| verdict.level).expect("the odd one is found");
    assert!(highest.level >= Level::Throttled, "{highest:?}");
    assert!(!highest.carried_by.is_empty() && highest.carried_by.iter().all(|run| run.input == INPUT));
    assert!(highest.carried_by.iter().all(|run| run.bits > 1.0 && run.first <= run.last && run.since <= run.until));
    let strongest = highest.carried_by.first().expect("some");
    assert!(highest.carried_by.iter().all(|run| run.bits <= strongest.bits), "strongest first");
    let is_named = |position: i64, call: &Call| {
        let position = Position { source: 0, partition: 0, offset: position };
        call.source.ends_with("/s3") && highest.is_carried_by(INPUT, position, &call.destination)
    };
    // Up to the event that led to it: what came later would be grounds for another.
    let until = calls.iter().position(|call| call.time > highest.time).unwrap_or(calls.len());
    let (calls, day) = (&calls[..until], highest.time - Span::DAY);
    let with = judged(calls, |_, _| false);
    assert!(entered(&with, "s3").iter().any(|verdict| verdict.decision == highest.decision), "it is made until then");
    let without = judged(calls, |i, call| is_named(i as i64, call));
    assert_eq!(entered(&without, "s3").iter().find(|verdict| verdict.time > day), None);
    let left_out = calls.iter().enumerate().filter(|(i, call)| is_named(*i as i64, call)).count();
    assert!(left_out < calls.len() / 20, "few records carry it: {left_out}");
}

#[test]
fn a_reason_says_how_often_it_was_seen_before_and_what_is_usual() {
    let told = entered(&judged(&calls(), |_, _| false), "s3");
    let reasons: Vec<_> = told.iter().flat_map(|verdict| &verdict.reasons).collect();
    let new_peer = reasons.iter().find(|reason| reason.detector == Question::RarePeer).expect("it calls new peers");
    let familiar = new_peer.familiar.expect("a peer is something that may be familiar");
    assert_eq!((familiar.thing, familiar.own.seen), (Thing::Peer, Seen::FirstTime));
    let peers = familiar.peers.expect("it has a namespace");
    assert_eq!((peers.seen, peers.count, peers.of), (Seen::FirstTime, 0.0, Some(19.0)), "nobody else calls it either");
    assert_eq!(familiar.mesh.map(|mesh| mesh.seen), Some(Seen::FirstTime));
    let counted = reasons.iter().filter(|reason| reason.detector.counts());
    let mut some = 0;
    for reason in counted {
        let (low, high) = reason.usual.expect("a count has a range");
        assert!(low <= high && low <= reason.expected.ceil() && reason.observed > low, "{reason:?}");
        some += 1;
    }
    assert!(some > 0, "something was counted: {reasons:?}");
    assert!(reasons.iter().all(|reason| reason.n >= 0.0));
}
