//! An input that logs only errors, and nobody has said so.

mod mesh;
mod reopened;

use mesh::{Call, START, batch, call, mixed};
use qualm_model::{
    detector::Question,
    event::{Filter, Outcome},
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    scorer::{Observed, Scorer},
    snapshot::{Covered, Snapshots},
};
use reopened::reopened;

/// Calls of twenty callers, five a second; whether they fail is told by the hour and the number of the call.
fn hours(of: std::ops::Range<i64>, fails: impl Fn(i64, u64) -> bool) -> Vec<Call> {
    let calls = of.flat_map(|hour| (0..2400_u64).map(move |i| (hour, i)));
    let made = |(hour, i): (i64, u64)| {
        let at = Timestamp(START) + Span(hour * Span::HOUR.0 + i as i64 * 1_500_000_000);
        let name = |number: u64| format!("spiffe://mesh.test/ns/shop/sa/s{number}");
        let from = mixed(i, 71) % 20;
        let outcome = if fails(hour, i) { Outcome::Failure } else { Outcome::Success };
        Call { outcome, ..call(at, &name(from), &name((from + 1) % 20)) }
    };
    calls.map(made).collect()
}

fn read(scorer: &mut Scorer, calls: &[Call]) -> Vec<Observed> {
    let mut observed = Vec::new();
    for chunk in calls.chunks(1000) {
        let batch = batch(chunk, 0);
        scorer.open(&batch);
        observed.extend(batch.events().map(|event| scorer.observe(event, event.report(), &mut Vec::new())));
    }
    observed
}

fn asks_about_failures(observed: &[Observed]) -> bool {
    let is_asked =
        |of: &Observed| matches!(of, Observed::Scored { leading: Some(Question::Failing | Question::Rate1m), .. });
    observed.iter().any(is_asked)
}

#[test]
fn a_log_of_errors_alone_is_known_by_it_and_asked_nothing_that_it_cannot_tell_also_after_a_restart() {
    let mut scorer = Scorer::new(ScorerConfig::default());
    read(&mut scorer, &hours(0..9, |_, _| true));
    assert_eq!(scorer.left_out().iter().map(|of| of.filter).collect::<Vec<_>>(), [Filter::Errors]);
    let directory = tempfile::tempdir().expect("a directory");
    let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
    snapshots.save(scorer.changes(Covered::default()));
    snapshots.finish().expect("it was being written").expect("it can be written");
    drop(snapshots);
    let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
    let mut again = loaded.expect("a snapshot").scorer;
    let rest = hours(9..11, |_, _| true);
    let observed = read(&mut scorer, &rest);
    assert!(!asks_about_failures(&observed));
    assert!(read(&mut again, &rest) == observed);
    scorer.filter_sources(vec![Filter::Sampled]);
    assert!(scorer.left_out().is_empty(), "what the operator says is believed");
}

#[test]
fn an_outage_of_everything_keeps_its_questions() {
    let mut scorer = Scorer::new(ScorerConfig::default());
    read(&mut scorer, &hours(0..24, |_, i| mixed(i, 72).is_multiple_of(50)));
    let observed = read(&mut scorer, &hours(24..32, |_, _| true));
    assert!(scorer.left_out().is_empty());
    assert!(asks_about_failures(&observed));
}
