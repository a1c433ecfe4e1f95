//! With a model file, ten minutes as a whole are held against what is usual, and the same events give the same verdicts:
//! at any size of batches, and from any restart point.

mod mesh;
mod reopened;

use mesh::{Call, START, batch, call, calls};
use qualm_model::{
    detector::Question,
    peers::{FEATURES, Group, Peers, Vector, WINDOW},
    time::{Span, Timestamp},
};
use qualm_scorer::{
    config::ScorerConfig,
    peers::Model,
    scorer::Scorer,
    snapshot::{Covered, Snapshots},
    verdict::Verdict,
};
use reopened::reopened;

/// Windows vary in how many calls, peers, operations and failures they have, and hardly in the mean size of a call.
fn model() -> Model {
    let axis = |feature: usize| -> Vector { std::array::from_fn(|other| f64::from(u8::from(other == feature))) };
    let axes = (0..4).map(|feature| (axis(feature), 0.1)).collect();
    let everybody = Group { centre: [0.0; FEATURES], members: 20, windows: 5_000.0, axes, rest: 0.01 };
    Model::new(
        Peers { mean: [1.0; FEATURES], spread: [1.0; FEATURES], groups: vec![everybody] },
        (20, 5_000),
        Vec::new(),
    )
}

fn with_model() -> Scorer {
    let mut scorer = Scorer::new(ScorerConfig::default());
    scorer.take_model(Some(&model()));
    scorer
}

fn feed(scorer: &mut Scorer, calls: &[Call], first: usize, size: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (n, chunk) in calls.chunks(size).enumerate() {
        let batch = batch(chunk, first + n * size);
        scorer.open(&batch);
        for event in batch.events() {
            scorer.observe(event, event.report(), &mut verdicts);
        }
    }
    verdicts
}

fn by_window(verdict: &&Verdict) -> bool {
    verdict.reasons.iter().any(|reason| reason.detector == Question::UnlikePeers)
}

/// The made-up days, and then ten minutes in which `s5` makes as many calls as ever, to whom and for what it always calls,
/// but all of them are of twice the size; none by itself is big. Returns also when these begin.
fn odd_at_the_end() -> (Vec<Call>, Timestamp) {
    let mut calls = calls();
    calls.truncate(55_000);
    let end = calls[calls.len() - 1].time;
    let begin = Timestamp((end.window(WINDOW) + 2) * WINDOW.0);
    let name = |n: i64| format!("spiffe://mesh.test/ns/shop/sa/s{n}");
    let odd = (0..8)
        .map(|n| Call { bytes: 1_400, ..call(begin + Span(n * 30 * Span::SECOND.0), &name(5), &name(6 + n % 3)) });
    // All others go on as ever, as the made-up days do.
    let usual = mesh::calls().into_iter().take(1_000).filter(|call| !call.source.ends_with("/s5"));
    let first = START;
    let usual = usual.map(|call| Call { time: begin + (call.time - Timestamp(first)), ..call });
    let mut last: Vec<Call> = odd.chain(usual).collect();
    last.sort_by_key(|call| call.time);
    calls.extend(last);
    (calls, begin)
}

#[test]
fn ten_minutes_that_no_call_of_them_shows_to_be_odd_are_evidence_when_they_have_ended() {
    let (calls, begin) = odd_at_the_end();
    let verdicts = feed(&mut with_model(), &calls, 0, 1000);
    let found: Vec<&Verdict> = verdicts.iter().filter(by_window).collect();
    let of_window = |verdict: &&&Verdict| verdict.identity.ends_with("/s5") && verdict.decided >= begin;
    let odd = found.iter().find(of_window).unwrap_or_else(|| panic!("{found:?}"));
    assert!(odd.decided >= begin + Span(WINDOW.0 - 1), "not before they have ended");
    // Where there is no model nothing of it is asked.
    let without = feed(&mut Scorer::new(ScorerConfig::default()), &calls, 0, 1000);
    assert_eq!(without.iter().filter(by_window).count(), 0);
}

#[test]
fn the_size_of_batches_and_a_restart_change_nothing() {
    let (calls, _) = odd_at_the_end();
    let expected = feed(&mut with_model(), &calls, 0, 1000);
    assert!(expected.iter().any(|verdict| by_window(&verdict)));
    assert_eq!(feed(&mut with_model(), &calls, 0, 1), expected);
    for restart in [20_011, 55_004] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut snapshots, _) = Snapshots::open(directory.path(), ScorerConfig::default()).expect("a new one");
        let mut scorer = with_model();
        let mut verdicts = feed(&mut scorer, &calls[..restart / 2], 0, 500);
        // The second snapshot holds only what has changed since the first.
        for (from, to) in [(0, restart / 2), (restart / 2, restart)] {
            if from > 0 {
                verdicts.extend(feed(&mut scorer, &calls[from..to], from, 500));
            }
            snapshots.save(scorer.changes(Covered::default()));
            snapshots.finish().expect("it was being written").expect("it can be written");
        }
        drop((snapshots, scorer));
        let (_snapshots, loaded) = reopened(directory.path(), &ScorerConfig::default());
        let mut scorer = loaded.expect("a snapshot").scorer;
        // As every start does: the same file is no news.
        scorer.take_model(Some(&model()));
        assert_eq!(scorer.applied_peers(), None);
        verdicts.extend(feed(&mut scorer, &calls[restart..], restart, 500));
        assert_eq!(verdicts, expected, "restart at {restart}");
    }
}
