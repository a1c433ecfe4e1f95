//! A rhythm is named where the edge is new and the peer rare, and nowhere else.

use qualm_model::{
    detector::Question,
    event::{EventBuilder, EventDraft, Position, builder::plain},
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
};

const START: i64 = 1_700_000_000_137_000_000;

/// Seconds after which calls of `cart` lead with a rhythm, of calls at these seconds by these callers.
fn named(calls: impl IntoIterator<Item = (f64, &'static str, &'static str)>) -> Vec<i64> {
    let (mut scorer, mut builder) = (Scorer::new(ScorerConfig::default()), EventBuilder::new());
    for (offset, (seconds, source, destination)) in calls.into_iter().enumerate() {
        let time = Timestamp(START + (seconds * 1e9) as i64);
        let position = Position { offset: offset as i64, ..Position::default() };
        builder.push(&EventDraft { position, ..plain(time, source, destination) });
    }
    let batch = builder.finish();
    scorer.open(&batch);
    let mut verdicts = Vec::new();
    let mut named = Vec::new();
    for event in batch.events() {
        let observed = scorer.observe(event, event.report(), &mut verdicts);
        let is_named = matches!(observed, Observed::Scored { leading: Some(Question::Rhythm), .. });
        if is_named && event.source().principal() == "cart" {
            named.push((event.report().0 - START) / Span::SECOND.0);
        }
    }
    named
}

/// A call every nine seconds.
fn beacon(from: i32, calls: i32) -> impl Iterator<Item = (f64, &'static str, &'static str)> {
    (from..from + calls).map(|i| (f64::from(i) * 9.0, "cart", "c2"))
}

#[test]
fn it_is_named_within_ten_periods() {
    let named = named(beacon(0, 20));
    assert!(named.first().is_some_and(|first| *first <= 90), "{named:?}");
}

#[test]
fn a_peer_that_others_call_has_no_rhythm_to_tell_of() {
    let others = (0..600).map(|i| (f64::from(i) * 0.731, "orders", "c2"));
    let calls = others.chain(beacon(50, 60).map(|(seconds, ..)| (seconds, "cart", "c2")));
    let mut calls: Vec<_> = calls.collect();
    calls.sort_by(|a, b| a.0.total_cmp(&b.0));
    let named = named(calls);
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn an_edge_of_yesterday_has_none_either() {
    let first = (0..3).map(|i| (f64::from(i) * 777.0, "cart", "c2"));
    let named = named(first.chain(beacon(10_000, 30)));
    assert!(named.is_empty(), "{named:?}");
}
